"""Images for the tests, made by deploy/images/build from this machine's Python and kept until something changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".venv" / "images"
WORKER = "localhost/transom-test-worker:1"
AISTORE = "localhost/transom-test-aistore:1"
AISTORE_ENVIRONMENT = ROOT / ".venv-ais"


def worker_image() -> Path:
    """A worker written with our SDK, which listens where it is told."""
    added = (
        "src/transom/__init__.py:transom/__init__.py",
        "worker:transom/worker",
        "tests/containers/sdk_worker.py:/app/sdk_worker.py",
    )
    words = [word for each in added for word in ("--add", each)]
    start = ["/usr/bin/python3", "-m", "transom.worker", "/app/sdk_worker.py"]
    return _build("worker", "--tag", WORKER, "--entrypoint", json.dumps(start), *words)


def aistore_image() -> Path:
    """A worker written with AIStore's own library, which listens on TCP port 8000 of every address."""
    added = ("containers/aistore_worker.py:/app/aistore_worker.py", "integration/aistore_worker.py:/app/worker.py")
    words = [word for each in added for word in ("--add", f"tests/{each}")]
    start = ["/usr/bin/python3", "-m", "uvicorn", "--app-dir", "/app", "--host", "0.0.0.0", "--port", "8000"]
    command = json.dumps([*start, "aistore_worker:fastapi_app"])
    return _build("aistore", "--tag", AISTORE, "--packages", str(AISTORE_ENVIRONMENT), "--entrypoint", command, *words)


def _build(name: str, *options: str) -> Path:
    KEPT.mkdir(exist_ok=True)
    archive = KEPT / f"{name}.tar"
    command = [str(ROOT / "deploy/images/build"), "--output", str(archive), *options]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return archive
