"""A Ray cluster of this one machine for tests, started as `deploy/ray` says; stopped by pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 60.0
RAY = Path(sys.executable).with_name("ray")
HEAD = ("--head", "--port=0", "--include-dashboard=false")
OPTIONS = ("--block", "--num-cpus=2", "--disable-usage-stats", "--object-store-memory=80000000")  # about its least
ADDRESS = "127.0.0.2"  # of the loopback; for 127.0.0.1 Ray would take this machine's own


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Run a head with two CPUs; yields its address. Its socket paths must be short, so it has a folder in /tmp."""
    with _short_folder() as folder, _started(folder, *HEAD, f"--node-ip-address={ADDRESS}") as process:
        yield _address(folder / "ray_current_cluster", process, folder / "log")


@contextmanager
def ray_node(head: str, host: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one more node with two CPUs, at an address of the loopback; its processes are one group."""
    with _short_folder() as folder, _started(folder, f"--address={head}", f"--node-ip-address={host}") as process:
        yield process


def environment() -> dict[str, str]:
    """What nodes and drivers run with: no token of this user's, no address of another cluster."""
    return {**{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}, "RAY_AUTH_MODE": "disabled"}


@contextmanager
def _short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ry", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            [RAY, "start", *OPTIONS, f"--temp-dir={folder}", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _address(told: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + START_TIMEOUT_S
    while not (told.exists() and told.read_text().strip()):
        assert process.poll() is None and time.monotonic() < give_up, log.read_text()
        time.sleep(0.05)
    return told.read_text().strip()
