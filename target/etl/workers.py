"""The pool of worker processes that run GIL-bound transformers, and the frames spoken with them.

The worker asks for each piece of input (frame R), so neither side can fill the other's buffer: no deadlock, and
back-pressure both ways. Frames: one kind byte, four length bytes, the payload.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from transom.plugins.contract import Context, Reject, Skip
from transom.target.errors import EtlCrashed, EtlFailed, EtlTimeout

_HEAD = struct.Struct("!cI")
_START_TIMEOUT_S = 30.0


class Channel:
    """Frames over one end of a socket pair; blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame."""
        self.sock.sendall(_HEAD.pack(kind, len(payload)))
        if payload:
            self.sock.sendall(payload)

    def receive(self) -> tuple[bytes, bytes]:
        """Receive one frame; raises EOFError when the other end is gone."""
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size))
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            n = self.sock.recv_into(view)
            if not n:
                raise EOFError
            view = view[n:]
        return bytes(data)


class Worker:
    """One worker process. It ends when its socket closes or its parent dies."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._lifeline = os.pipe()
        with theirs:
            command = [sys.executable, "-m", "transom.target.etl.worker", str(theirs.fileno()), str(self._lifeline[0])]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, pass_fds=(theirs.fileno(), self._lifeline[0]), stdin=subprocess.DEVNULL
            )
        os.close(self._lifeline[0])
        self._channel = Channel(ours)
        self.idle = True  # whether it waits for a job: only then can it be used again
        self._channel.sock.settimeout(_START_TIMEOUT_S)
        try:
            self._channel.receive()  # it says hello once its plugins are loaded
        except (EOFError, OSError) as error:
            self.kill()
            raise EtlCrashed("the worker process did not start") from error

    def run(self, plugin: str, given: str, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
        """Run a transformer; raises EtlCrashed, EtlTimeout, EtlFailed, Skip, Reject."""
        try:
            yield from self._run(plugin, given, chunks, context)
        except TimeoutError as error:
            raise EtlTimeout(f"ETL '{context.etl}' passed its deadline; its worker was stopped") from error
        except (EOFError, ConnectionError) as error:
            code = self._exit_code()
            raise EtlCrashed(f"ETL '{context.etl}' crashed: its worker process ended with {code}") from error

    def _run(self, plugin: str, given: str, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
        self.idle = False
        self._send(context, b"J", json.dumps({"plugin": plugin, "given": given, "context": _pack(context)}).encode())
        while True:
            self._wait(context)
            kind, payload = self._channel.receive()
            if kind == b"D":
                yield payload
            elif kind == b"R":
                piece = next(chunks, None)
                self._send(context, b"E" if piece is None else b"D", piece or b"")
            elif kind == b"E":
                self.idle = True
                return
            else:
                self.idle = True
                raise _failure(context.etl, json.loads(payload))

    def _send(self, context: Context, kind: bytes, payload: bytes) -> None:
        self._wait(context)
        self._channel.send(kind, payload)

    def _wait(self, context: Context) -> None:
        left = context.remaining_s()
        if left <= 0:
            raise TimeoutError
        self._channel.sock.settimeout(min(left, 1e6))

    def _exit_code(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "a broken socket"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """Stop the process now and reap it."""
        self._process.kill()
        self._process.wait()
        self._channel.sock.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline[1])


class WorkerPool:
    """Keeps idle workers warm. Callable from any thread."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self._lock = threading.Lock()

    def run(self, plugin: str, given: str, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
        """Run a transformer in a worker. Closing the iterator early kills that worker."""
        worker = self._take()
        try:
            yield from worker.run(plugin, given, chunks, context)
        finally:
            if worker.idle:
                with self._lock:
                    self._idle.append(worker)
            else:
                worker.kill()

    def close(self) -> None:
        """Stop every idle worker."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Worker()


def _pack(context: Context) -> dict[str, Any]:
    return {
        "bucket": context.bucket,
        "key": context.key,
        "etl": context.etl,
        "content_type": context.content_type,
        "size": context.size,
        "metadata": dict(context.metadata),
        "deadline": context.deadline if context.deadline != float("inf") else None,
    }


def _failure(etl: str, error: dict[str, str]) -> Exception:
    if error["kind"] == "skip":
        return Skip(error["message"])
    if error["kind"] == "reject":
        return Reject(error["message"])
    return EtlFailed(f"ETL '{etl}' failed: {error['message']}")
