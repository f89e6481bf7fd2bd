"""Real processes to kill, found by pid through /proc, and load to keep up meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.running import RunningServer
from tests.wire import eventually
from transom.target.etl.keeper.places import Places
from transom.target.etl.runtimes.base import MARK

_LISTEN = "0A"
NO_RETRIES: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 60}


def state(pid: int) -> str:
    """The kernel's letter for a process: Z is dead and not yet reaped; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def gone(pid: int) -> bool:
    """Whether it is over, for its parent too: while other threads of it still end, it can't be waited for."""
    try:
        return state(pid) in ("", "Z") and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(pid: int) -> list[int]:
    """Children of every thread of a process."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def workers(server: RunningServer) -> list[int]:
    """The ETL worker processes under the server's processes."""
    return [each for process in server.children() for each in children(process) if b"etl.worker" in _command(each)]


def marked(server: RunningServer) -> list[int]:
    """Processes, of whatever parent, that carry the mark of a server's targets: their ETLs' programs."""
    marks = {f"{MARK}={Places(server.folder, target).mark}".encode() for target in ("local", "target-0", "target-1")}
    return [pid for pid in _pids() if marks & _environment(pid)]


def carrying(variable: str) -> list[int]:
    """Processes, of whatever parent, that have NAME=VALUE in their environment."""
    return [pid for pid in _pids() if variable.encode() in _environment(pid)]


def parents(pid: int) -> list[int]:
    """A process's parent, the parent of that, and so on."""
    found: list[int] = []
    try:
        while (pid := int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])) > 0:
            found.append(pid)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def listening(server: RunningServer, port: int) -> int:
    """The pid of the server's process that serves `port`: every one inherits its own listener only."""
    (inode,) = [row[9] for row in _sockets() if row[1].endswith(f":{port:04X}") and row[3] == _LISTEN]
    (pid,) = [pid for pid in server.children() if _holds(pid, f"socket:[{inode}]")]
    return pid


def serving(server: RunningServer, client: socket.socket) -> int:
    """The pid of the server's process at the other end of a connection; 0 while none has taken it."""
    ours = client.getsockname()[1]
    theirs = f":{client.getpeername()[1]:04X}"
    wanted = [row[9] for row in _sockets() if row[1].endswith(theirs) and row[2].endswith(f":{ours:04X}")]
    return next((pid for pid in server.children() if _holds(pid, f"socket:[{wanted[0]}]")), 0)


def _sockets() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def _holds(pid: int, what: str) -> bool:
    """Whether the process has that file open; one that has just ended holds nothing."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False
    for fd in descriptors:
        try:
            if str(fd.readlink()) == what:
                return True
        except FileNotFoundError:
            continue
    return False


def restarted(server: RunningServer, killed: int, count: int) -> None:
    """Wait until `killed` is gone and there are `count` processes again."""
    eventually(lambda: gone(killed) and len([pid for pid in server.children() if not gone(pid)]) == count)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@dataclass
class Load:
    """Reads in many threads until told to stop; `errors` has whatever was wrong."""

    read: Callable[[int], None]
    done: int = 0
    errors: list[BaseException] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def loop(self, number: int) -> None:
        while not self._stop.is_set() and len(self.errors) < 3:
            try:
                self.read(number)
            except BaseException as error:
                self.errors.append(error)
            with self._lock:
                self.done += 1

    def stop(self) -> None:
        self._stop.set()

    def more(self, count: int) -> None:
        """Wait until that many more reads have ended."""
        wanted = self.done + count
        eventually(lambda: self.done >= wanted or self.errors, within_s=40)


@contextmanager
def load(read: Callable[[int], None], threads: int) -> Iterator[Load]:
    """Keep `threads` threads reading while the block runs; fails if any read did."""
    running = Load(read)
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(running.loop, number) for number in range(threads)]
        try:
            yield running
        finally:
            running.stop()
        for future in futures:
            future.result()
    assert not running.errors, running.errors


def runs_under_way(server: RunningServer) -> dict[int, Path]:
    """The files that runs write into now, by the pid of the process that runs them."""
    scratch = server.folder / "results" / "tmp"
    return {int(path.name.split(".")[1]): path for path in scratch.iterdir() if path.is_file()}


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and how many seconds it took."""
    started = time.monotonic()
    return work(), time.monotonic() - started
