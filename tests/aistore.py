"""Workers on AIStore's own server classes, run as processes with the environment that scripts/setup makes for them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import BinaryIO

import pytest

ENVIRONMENT = Path(__file__).parents[1] / ".venv-ais"
PYTHON = ENVIRONMENT / "bin" / "python"
PROGRAM = Path(__file__).parent / "integration" / "aistore_worker.py"
START_S = 60.0


def need() -> None:
    """Skip the test where AIStore's library isn't to be had."""
    if not PYTHON.exists():
        pytest.skip("aistore is not installed in .venv-ais: run scripts/setup")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def workers(asked: list[tuple[str, str, int, str]], log: BinaryIO) -> Iterator[None]:
    """Workers, each of a server, a method, a port and its AIS_TARGET_URL: all of them well while the block runs."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for server, method, port, url in asked:
            command = [PYTHON, PROGRAM, server, method, str(port)]
            env = {**os.environ, "AIS_TARGET_URL": url, "PYTHONPATH": ""}
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        for process, (_, _, port, _) in zip(processes, asked, strict=True):
            _wait_healthy(process, port)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().read() == b"Running":
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("AIStore's worker does not start")
