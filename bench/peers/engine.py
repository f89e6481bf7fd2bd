"""A container engine that runs already, and an image for it. No engine is started or stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transom.bench.peers.process import PeerError

TAG = "localhost/transom-bench-echo:1"
_USUAL = ("/var/run/docker.sock", "/run/podman/podman.sock")
_BUILD = Path("deploy/images/build.py")
_SDK = ("src/transom/__init__.py:transom/__init__.py", "worker:transom/worker")
_START = ["/usr/bin/python3", "-m", "transom.worker", "/app/worker.py"]


def find_engine(named: str = "") -> str:
    """The URL of an engine's socket: the named one, DOCKER_HOST's, or a usual one. Raises PeerError."""
    found = named or os.environ.get("DOCKER_HOST", "")
    found = found or next((f"unix://{path}" for path in _USUAL if Path(path).exists()), "")
    if not found:
        raise PeerError("no container engine runs: start one, or name its socket in DOCKER_HOST")
    return found


@contextmanager
def worker_image(engine: str, worker: Path, work: Path) -> Iterator[str]:
    """The tag of an image with our SDK, which serves the transformer in the file `worker`. Raises PeerError."""
    archive = _built(worker, work)
    try:
        import docker
    except ImportError:
        raise PeerError("the library 'docker' is not installed: pip install 'transom[containers]'") from None
    try:
        api: Any = docker.APIClient(engine, version="auto")
    except docker.errors.DockerException as error:
        raise PeerError(f"no container engine answers at {engine}: {error}") from None
    try:
        with archive.open("rb") as file:
            problems = [event["error"] for event in api.load_image(file) if "error" in event]
        if problems:
            raise PeerError(f"the container engine at {engine} takes no image: {problems[0]}")
        yield TAG
        api.remove_image(TAG, force=True)
    finally:
        api.close()


def _built(worker: Path, work: Path) -> Path:
    archive = work / "worker.tar"
    added = [word for each in (*_SDK, f"{worker}:/app/worker.py") for word in ("--add", each)]
    options = ["--tag", TAG, "--output", str(archive), "--entrypoint", json.dumps(_START), *added]
    done = subprocess.run(  # noqa: S603 - a program of this repository
        [sys.executable, "-I", str(_BUILD), *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PeerError(f"no image can be made: {done.stderr[-500:]}")
    return archive
