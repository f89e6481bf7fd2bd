"""One WebSocket connection to a worker: a control message and the object's bytes, then its result, again and again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote

from transom.worker.contract import Context
from transom.worker.errors import Failure, Gone, Refused
from transom.worker.frames import (
    BINARY,
    CONTINUATION,
    FAILED,
    GOING_AWAY,
    TEXT,
    TOO_BIG,
    TRY_AGAIN_LATER,
    UNEXPECTED,
    Message,
    ProtocolError,
    WebSocket,
    accept_value,
)
from transom.worker.holding import held
from transom.worker.jobs import deadline
from transom.worker.reading import PIECE
from transom.worker.requests import Request
from transom.worker.sending import send_all
from transom.worker.service import Line, Service
from transom.worker.shapes import Source

SUBPROTOCOL = "transom.etl.v1"
_MAX_CONTROL_MESSAGE = 1024 * 1024
_VERSION = "13"
_SERVER_ERROR = 500


class Conversation:
    """One connection; objects come one after the other."""

    def __init__(self, websocket: WebSocket, line: Line, service: Service) -> None:
        self._socket = websocket
        self._line = line
        self._service = service

    @classmethod
    def upgraded(cls, request: Request, line: Line, service: Service) -> Conversation:
        """Answer the request that opens one; raises Refused."""
        service.admit(request, line)
        headers = request.headers
        key = headers.get("sec-websocket-key", "")
        if headers.get("upgrade", "").lower() != "websocket" or not key or request.method != "GET":
            raise Refused(400, "/ws is for WebSockets")
        if headers.get("sec-websocket-version") != _VERSION:
            raise Refused(400, "a worker speaks version 13 of WebSocket")
        offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_value(key)}",
            *([f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"] if SUBPROTOCOL in offered else []),
        ]
        send_all(line.sock, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), b"")
        line.busy = False
        return cls(WebSocket(line.sock, line.reader), line, service)

    def run(self) -> None:
        """Take objects until either side has enough; raises Gone."""
        try:
            while not self._service.leaving:
                self._object(self._socket.message())
                self._line.busy = False
            self._socket.close(GOING_AWAY)
        except ProtocolError as error:
            self._socket.close(error.code, str(error))
        except Gone:
            if self._service.leaving and not self._line.busy:
                with contextlib.suppress(Gone):
                    self._socket.close(GOING_AWAY)
            raise

    def _object(self, control: Message) -> None:
        self._line.busy = True
        task = _parsed(control)
        message = None if task.get("fqn") else self._socket.message()
        sink = _Sink(self._socket, message is None or Source(message).in_hand)
        try:
            # AIStore escapes the path in here too
            path = self._service.jobs.file(unquote(str(task["fqn"]))) if message is None else ""
            context = _context(task, self._service.settings.etl, path, message)
            self._service.jobs.run(Source(message, path), context, sink)
        except Failure as failure:
            self._fail(sink, failure.kind, failure.message)
        except Refused as error:
            if error.retry:
                self._socket.close(TRY_AGAIN_LATER, error.message)
                raise Gone from error
            self._fail(sink, "failed" if error.status >= _SERVER_ERROR else "reject", error.message)
        if message is not None:
            message.drain()

    def _fail(self, sink: _Sink, outcome: str, message: str) -> None:
        """Send an error in a result's place; within a begun result there is no place for one."""
        if sink.begun:
            self._socket.close(FAILED, message)
            raise Gone
        self._socket.send(TEXT, json.dumps({"error": message, "outcome": outcome}).encode())


class _Sink:
    """One result as one binary message. `begun` tells whether any of it was sent."""

    def __init__(self, websocket: WebSocket, in_hand: bool) -> None:
        self._socket = websocket
        self._in_hand = in_hand
        self.begun = False

    def whole(self, data: bytes) -> None:
        self.begun = True
        self._socket.send(BINARY, data)

    def pieces(self, pieces: Iterator[bytes]) -> None:
        """Send every piece as a fragment, when it is there; an empty one says that it was the last."""
        first, complete = held(pieces, self._in_hand)
        self.begun = True
        self._socket.send(BINARY, first, final=complete)
        if not complete:
            for piece in pieces:
                self._socket.send(CONTINUATION, piece, final=False)
            self._socket.send(CONTINUATION)

    def file(self, file: BinaryIO, size: int) -> None:
        self.pieces(_of_file(file, size))


def _of_file(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (piece := file.read(min(size, PIECE))):
        size -= len(piece)
        yield piece
    if size:
        raise Gone


def _parsed(control: Message) -> dict[str, Any]:
    text = bytearray()
    for piece in control:
        text += piece
        if len(text) > _MAX_CONTROL_MESSAGE:
            raise ProtocolError("a control message is too long", TOO_BIG)
    try:
        task = json.loads(text)
    except (ValueError, RecursionError):
        task = None
    if not isinstance(task, dict):
        raise ProtocolError("a control message is no JSON object", UNEXPECTED)
    return task


def _context(task: dict[str, Any], etl: str, path: str, message: Message | None) -> Context:
    bucket, _, key = str(task.get("path", "")).lstrip("/").partition("/")
    given = task.get("etl_args")
    size = os.stat(path).st_size if message is None else task.get("size", message.size)  # noqa: PTH116
    return Context(
        bucket=bucket,
        key=key,
        etl=etl,
        args_text=given if isinstance(given, str) else "" if given is None else json.dumps(given),
        content_type=str(task.get("content_type") or "binary/octet-stream"),
        size=size if isinstance(size, int) else None,
        metadata=metadata if isinstance(metadata := task.get("metadata"), dict) else {},
        deadline=deadline(task.get("deadline_ms") if isinstance(task.get("deadline_ms"), int) else None),
    )
