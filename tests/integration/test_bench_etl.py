"""`scripts/bench etl` from end to end, a container engine and AIStore's worker with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import aistore
from tests.containers.engines import RunningEngine
from tests.packaging.trees import ROOT

ECHOES = ["call", "process", "command", "io", "hpush", "stream", "hpull", "hrev", "ws", "file", "container"]
ECHOES += ["aistore", "aistore-ws"]


@pytest.mark.soak
def test_every_runtime_and_transport_is_measured(container_engine: RunningEngine, tmp_path: Path) -> None:
    aistore.need()
    out = tmp_path / "etl.json"
    options = ["--quick", "--sizes", "1KiB", "--engine", container_engine.url, "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "transom.bench.suite", "etl", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "echo-hpush 1KiB / echo-call 1KiB" in done.stdout
    data = json.loads(out.read_text())
    assert (data["schema"], data["absent"]) == ("transom.suite/1", {})
    figures = data["measurements"]
    assert all(each["ops_per_s"] > 0 and not (each["error"] or each["failed"] or each["corrupt"]) for each in figures)
    assert {each["case"] for each in figures} == {
        *("get 1KiB", "aistore worker 1KiB"),
        *(f"echo-{each} 1KiB" for each in ECHOES),
        *("image-call", "image-process", "image-code"),
    }
