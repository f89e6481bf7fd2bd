"""Child server processes: started pinned to cores, awaited until they listen, measured in /proc, stopped by id.

It knows nothing of any particular server.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.05
LOG_TAIL = 2000
ACCESS_KEY = "TRANSOMBENCHACCESS"
SECRET_KEY = "transom-bench-secret-key-0123456789abcdef"  # noqa: S105 - for servers that live as long as a benchmark


class PeerError(Exception):
    """A peer is not installed, or did not come up; the message says which and shows the end of its log."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process tree in bytes: now, and the sum of each living process's peak."""

    rss: int
    peak: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is up. Without an access key it takes unsigned requests.

    One that doesn't keep what it is sent is no store: nothing of it can be prepared, read back or removed.
    """

    name: str
    endpoint: str
    pid: int
    access_key: str = ""
    secret_key: str = ""
    keeps: bool = True

    def memory(self) -> Memory:
        """The memory of the server and its children."""
        rss = peak = 0
        for pid in family(self.pid):
            fields = _status(pid)
            rss += fields.get("VmRSS", 0)
            peak += fields.get("VmHWM", 0)
        return Memory(rss, peak)


def family(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    found, at = [pid], 0
    while at < len(found):
        for path in Path(f"/proc/{found[at]}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in path.read_text().split()]
        at += 1
    return found


def _status(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes; empty once the process is gone."""
    sizes = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                sizes[name] = int(value.split()[0]) * 1024
    return sizes


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago, for servers that can't choose one themselves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Children started inside run on these cores only; none given leaves them free."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def server(
    name: str,
    argv: Sequence[str],
    ready: Callable[[str], bool],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
) -> Iterator[int]:
    """The process id of a server that `ready(log text)` found up; inside the context it runs."""
    with log.open("wb") as sink, pinned(cores):
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed programs
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        except FileNotFoundError:
            raise PeerError(f"{name}: {argv[0]} is not installed") from None
    try:
        _await(name, process, ready, log)
        yield process.pid
    finally:
        _stop(process)


def _await(name: str, process: subprocess.Popen[bytes], ready: Callable[[str], bool], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if process.poll() is not None:
            raise PeerError(f"{name}: ended with status {process.returncode}\n{text[-LOG_TAIL:]}")
        if ready(text):
            return
        time.sleep(POLL_S)
    raise PeerError(f"{name}: not up within {START_TIMEOUT_S:.0f} s\n{log.read_text(errors='replace')[-LOG_TAIL:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the leader, then kill what is left of its family."""
    children = {pid: _birth(pid) for pid in family(process.pid)[1:]}
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, birth in children.items():
        _kill(pid, birth)


def _kill(pid: int, birth: str) -> None:
    """Kill the process if it still is the one born then, and wait until it is dead."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while birth and _birth(pid) == birth and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _birth(pid: int) -> str:
    """When the process started, in clock ticks: tells it from a later one of the same id. Empty once it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
