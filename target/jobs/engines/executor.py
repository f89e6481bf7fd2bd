"""What a worker does with what it is sent, and the frames that are spoken with a local one: kind, length, a pickle.

It knows nothing of engines.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import traceback
from typing import Any

from transom.target.jobs.engines.base import Opener, WorkFailed

WORK, TASK, RESULT, RAISED = b"W", b"T", b"R", b"X"
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
    """Perform the tasks that come, one after the other, until the runner lets go or one wears this process out."""
    site = None
    work: Any = None
    try:
        while True:
            kind, payload = receive(sock)
            if kind == WORK:
                work = payload
                continue
            try:
                site = site or opener()
                work = pickle.loads(work) if isinstance(work, bytearray) else work  # noqa: S301 - of our parent's
                result = work(site, pickle.loads(payload))  # noqa: S301
                answer = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
            except BaseException as error:  # the runner raises it: it decides what becomes of the job
                send(sock, RAISED, dump_error(error))
                continue
            send(sock, RESULT, answer)
            if result.worn_out:
                os._exit(0)  # something hangs: nothing here can be closed
    except (EOFError, ConnectionError):
        if site is not None:
            site.close()


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
