"""The pool of worker processes that run GIL-bound transformers, and the frames spoken with them.

The worker asks for each piece of input (frame R), so neither side can fill the other's buffer: no deadlock, and
back-pressure both ways. Frames: one kind byte, four length bytes, the payload.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from transom.plugins.contract import Context, Reject, Skip
from transom.target.errors import EtlCrashed, EtlFailed
from transom.target.etl.watch import Watch

_HEAD = struct.Struct("!cI")
_START_TIMEOUT_S = 30.0
_LOOK_S = 0.25  # how often a run that waits for its worker looks whether it should go on
_COPIED = 64 * 1024  # a frame up to this is sent in one call, for the price of a copy
MAX_FRAME = 16 * 1024 * 1024
J = TypeVar("J")
J_contra = TypeVar("J_contra", contravariant=True)


def framed(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(kind, len(payload)) + payload


class Channel:
    """Frames over one end of a socket pair; blocking. `look` is called whenever nothing came for a while."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.look: Callable[[], None] | None = None

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame."""
        if len(payload) <= _COPIED:
            self.send_bytes(framed(kind, payload))
        else:
            self.send_bytes(_HEAD.pack(kind, len(payload)))
            self.send_bytes(payload)

    def send_bytes(self, data: bytes) -> None:
        """Send what holds whole frames, or the rest of one."""
        view = memoryview(data)
        while view:
            with self._looking():
                view = view[self.sock.send(view) :]

    def receive(self) -> tuple[bytes, bytes]:
        """Receive one frame; raises EOFError when the other end is gone, ConnectionError for what is no frame."""
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > MAX_FRAME:
            raise ConnectionError(f"what came is no frame: it claims {length} bytes")
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            with self._looking():
                n = self.sock.recv_into(view)
                if not n:
                    raise EOFError
                view = view[n:]
        return bytes(data)

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            if self.look is None:
                raise
            self.look()


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given: a transformer, its arguments as JSON, what it is told, and how much memory it may use."""

    plugin: str
    given: str
    context: Context
    max_memory: int

    def to_json(self) -> str:
        """Encode for the worker; `worker.Task` reads it."""
        context = self.context
        return json.dumps(
            {
                "plugin": self.plugin,
                "given": self.given,
                "max_memory": self.max_memory,
                "context": {
                    "bucket": context.bucket,
                    "key": context.key,
                    "etl": context.etl,
                    "content_type": context.content_type,
                    "size": context.size,
                    "metadata": dict(context.metadata),
                    "deadline": context.deadline if context.deadline != float("inf") else None,
                },
            }
        )


class Worker:
    """One worker process. It ends when its socket closes or its parent dies."""

    def __init__(self, etl: str, scratch_folder: Path) -> None:
        """Start one for `etl`, which is named where it does not start; any ETL may use it later."""
        self.idle = True  # whether it waits for a task: only then can it be used again
        self._scratch = Path(tempfile.mkdtemp(prefix=f"worker.{os.getpid()}.", dir=scratch_folder))
        ours, theirs = socket.socketpair()
        ends, self._lifeline = os.pipe()
        with theirs:
            inherited = (theirs.fileno(), ends)
            arguments = [str(theirs.fileno()), str(ends), str(self._scratch)]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "transom.target.etl.worker", *arguments],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
            )
        os.close(ends)
        self._channel = Channel(ours)
        ours.settimeout(_START_TIMEOUT_S)
        try:
            self._channel.receive()  # it says hello once its plugins are loaded
        except (EOFError, OSError) as error:
            self.kill()
            raise EtlCrashed(f"ETL '{etl}' crashed: its worker process did not start", etl=etl) from error
        ours.settimeout(_LOOK_S)

    def run(self, task: Task, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run a transformer; raises EtlCrashed, EtlFailed, Skip, Reject, and what `watch` has to say."""
        etl = task.context.etl
        self.idle = False
        self._channel.look = watch.check
        try:
            self._channel.send(b"J", task.to_json().encode())
            while True:
                kind, payload = self._channel.receive()
                watch.check()
                if kind == b"D":
                    yield payload
                elif kind == b"R":
                    piece = next(chunks, None)
                    self._channel.send(b"E" if piece is None else b"D", piece or b"")
                else:
                    break
        except (EOFError, ConnectionError) as error:
            code = self._exit_code()
            raise EtlCrashed(f"ETL '{etl}' crashed: its worker process ended with {code}", etl=etl) from error
        self.idle = True
        if kind != b"E":
            told = json.loads(payload)
            if told["kind"] == "timeout" and task.context.remaining_s() <= 0:
                raise watch.timeout()  # the worker keeps to what it was told, whatever the clock stood still since
            raise _failure(etl, told)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Stop the process now, reap it and remove what it left."""
        self._process.kill()
        self._process.wait()
        self._channel.sock.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _exit_code(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "a broken socket"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class Pooled(Protocol[J_contra]):
    """A worker that a pool keeps; `J_contra` is what it runs."""

    @property
    def idle(self) -> bool:
        """Whether it waits for an object: only then can it be used again."""

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""

    def run(self, task: J_contra, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one object."""

    def kill(self) -> None:
        """Stop the process now, reap it and remove what it left."""


class Pool(Generic[J]):
    """Keeps idle workers warm; `start` makes one for a run that finds none. Callable from any thread."""

    def __init__(self, start: Callable[[J, Watch], Pooled[J]]) -> None:
        self._start = start
        self._idle: list[Pooled[J]] = []
        self._closed = False
        self._lock = threading.Lock()

    def run(self, task: J, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one object in a worker. Closing the iterator early kills that worker."""
        worker = self._take(task, watch)
        try:
            with contextlib.closing(worker.run(task, chunks, watch)) as pieces:
                yield from pieces
        finally:
            if not self._keep(worker):
                worker.kill()

    def close(self) -> None:
        """Stop every idle worker, and those at work once they have done it."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self, task: J, watch: Watch) -> Pooled[J]:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                watch.pause()  # the time it takes to start is not the transform's
                try:
                    return self._start(task, watch)
                finally:
                    watch.resume()
            if worker.alive:
                return worker
            worker.kill()  # it died while idle: no run's fault

    def _keep(self, worker: Pooled[J]) -> bool:
        with self._lock:
            if self._closed or not worker.idle:
                return False
            self._idle.append(worker)
            return True


class WorkerPool(Pool[Task]):
    """The pool of workers that run installed transformers."""

    def __init__(self, scratch_folder: Path) -> None:
        super().__init__(lambda task, _: Worker(task.context.etl, scratch_folder))


def _failure(etl: str, error: dict[str, Any]) -> Exception:
    if error["kind"] == "skip":
        return Skip(error["message"])
    if error["kind"] == "reject":
        return Reject(error["message"])
    return EtlFailed(f"ETL '{etl}' failed: {error['message']}", etl=etl)
