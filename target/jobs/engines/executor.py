"""What a worker does with what it is sent, and the frames that are spoken with a local one: kind, length, a pickle.

It knows nothing of engines.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from transom.target.jobs.engines.base import Later, Opener, StagedWork, WorkFailed
from transom.target.jobs.hands import Hands
from transom.target.jobs.site import Site

WORK, TASK, FREE, RESULT, RAISED = b"W", b"T", b"F", b"R", b"X"
_HEAD = struct.Struct("!cQ")
_COPIED = 64 * 1024  # a frame up to this is sent in one call, for the price of a copy


def send(sock: socket.socket, kind: bytes, payload: bytes) -> None:
    """Send one frame."""
    head = _HEAD.pack(kind, len(payload))
    if len(payload) <= _COPIED:
        sock.sendall(head + payload)
    else:
        sock.sendall(head)
        sock.sendall(payload)


def receive(sock: socket.socket) -> tuple[bytes, bytearray]:
    """Receive one frame; raises EOFError when the other end is gone."""
    kind, length = _HEAD.unpack(_exactly(sock, _HEAD.size))
    return kind, _exactly(sock, length)


def _exactly(sock: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        n = sock.recv_into(view)
        if not n:
            raise EOFError
        view = view[n:]
    return data


def execute(opener: Opener, sock: socket.socket) -> None:
    """Perform the tasks that come, one after the other, until the runner lets go or one wears this process out.

    The end of a task that only waits goes on beside the next one, and FREE is said before it: no third is begun.
    """
    executor = _Executor(opener, sock)
    try:
        executor.open_site()
        while True:
            kind, payload = receive(sock)
            if kind == WORK:
                executor.take_work(payload)
            else:
                executor.perform(payload)
    except (EOFError, ConnectionError):
        executor.close()


class _Executor:
    """What performs tasks in this process, and sends what came of each, in their order."""

    def __init__(self, opener: Opener, sock: socket.socket) -> None:
        self._opener, self._sock = opener, sock
        self._site: Site | None = None
        self._work: Any = None
        self._hands = Hands()
        self._last: Future[None] | None = None  # the task before, as long as it waits

    def open_site(self) -> None:
        """Open the site before there is a task; what fails is tried again for that, and raised then."""
        with suppress(Exception):
            self._site = self._opener()

    def take_work(self, data: bytearray) -> None:
        """Tasks from now on are for this work."""
        self._work = data

    def perform(self, data: bytearray) -> None:
        """Perform a task; return when the next may be begun."""
        try:
            site, work = self._ready()
            task = pickle.loads(data)  # noqa: S301 - of our parent's
            result = work.begin(site, task) if isinstance(work, StagedWork) else work(site, task)
        except BaseException as error:
            self._await_last()
            send(self._sock, RAISED, dump_error(error))
            return
        self._await_last()
        if isinstance(result, Later):
            send(self._sock, FREE, b"")  # before there is another thread that sends
            self._last = self._hands.do(partial(self._answer, result.wait))
        else:
            self._answer(lambda: result)

    def close(self) -> None:
        """Let what waits end, and close the site."""
        with suppress(ConnectionError):
            self._await_last()
        if self._site is not None:
            self._site.close()

    def _ready(self) -> tuple[Site, Any]:
        self._site = self._site or self._opener()
        if isinstance(self._work, bytearray):
            self._work = pickle.loads(self._work)  # noqa: S301 - of our parent's
        return self._site, self._work

    def _answer(self, wait: Callable[[], Any]) -> None:
        try:
            result = wait()
            answer = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        except BaseException as error:  # the runner raises it: it decides what becomes of the job
            send(self._sock, RAISED, dump_error(error))
            return
        send(self._sock, RESULT, answer)
        if result.worn_out:
            os._exit(0)  # something hangs: nothing here can be closed

    def _await_last(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()


def dump_error(error: BaseException) -> bytes:
    """An error as `load_error` reads it."""
    told = "".join(traceback.format_exception(error)).rstrip()
    try:
        data = pickle.dumps((error, told))
        pickle.loads(data)  # noqa: S301 - an error whose arguments aren't its constructor's fails only here
    except Exception:
        return pickle.dumps((None, told))
    return data


def load_error(data: bytes | bytearray) -> BaseException:
    """What was raised elsewhere; its cause is a WorkFailed with the traceback of there."""
    error, told = pickle.loads(data)  # noqa: S301 - of our own worker
    if not isinstance(error, Exception):  # nor what ends processes: SystemExit, KeyboardInterrupt
        return WorkFailed(told)
    error.__cause__ = WorkFailed(told)
    return error
