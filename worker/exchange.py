"""One HTTP connection to a worker: reads a request, runs its object, answers, again and again.

It knows nothing of how connections are accepted and threads ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace
from urllib.parse import quote, unquote

from transom.worker.contract import Context
from transom.worker.conversation import Conversation
from transom.worker.errors import Failure, Gone, Refused
from transom.worker.jobs import deadline
from transom.worker.reading import PIECE, Body
from transom.worker.requests import Request, parse
from transom.worker.sending import HttpSink, answer
from transom.worker.service import Line, Service
from transom.worker.shapes import Source

_DRAINED = 256 * 1024  # so much of an unwanted body is read to keep the connection
_LINGER_S = 2.0
_LISTENED_TO = 16 * 1024 * 1024  # so much of one is read for the sake of an answer that its sender has yet to read


class Exchange:
    """One connection; runs in a thread of its own."""

    def __init__(self, line: Line, service: Service) -> None:
        self._line = line
        self._sock = line.sock
        self._service = service

    def run(self) -> None:
        """Serve until either side has enough."""
        with self._sock, contextlib.suppress(Gone):
            while not self._service.leaving and self._once():
                self._line.busy = False

    def _once(self) -> bool:
        """Serve one request; whether the connection can take another."""
        try:
            head = self._line.reader.head()
            if not head:
                return False
            self._line.busy = True
            request = parse(head)
            expects = request.headers.get("expect", "").lower() == "100-continue"
            body = Body(self._line.reader, request.body_size, self._sock if expects else None)
        except Refused as error:
            self._refuse(error, "Connection: close")
            self._linger()
            return False
        try:
            if request.path == "/ws":
                Conversation.upgraded(request, self._line, self._service).run()
                return False
            self._answer(request, body)
        except Refused as error:
            self._refuse(error)
        return self._is_over(body) and request.headers.get("connection", "").lower() != "close"

    def _answer(self, request: Request, body: Body) -> None:
        service = self._service
        if request.path == "/health":
            status, word = (200, "Running") if service.ready else (503, "Starting")
            answer(self._sock, status, word, "Transom-Chunked: yes")
            return
        service.admit(request, self._line)
        by_target = self._line.trusted or not service.settings.require_signature
        context = _context(request, service.settings.etl, body.size, request.metadata if by_target else {})
        if "etl_fqn" in request.query:
            # the path is escaped for itself, and then once more as a part of the query: AIStore has it so
            path = service.jobs.file(unquote(request.query["etl_fqn"]))
            self._run(Source(path=path), replace(context, size=os.stat(path).st_size))  # noqa: PTH116
        elif request.method == "PUT":
            self._run(Source(body), context)
        else:
            with service.puller.get(request.target.partition("?")[0]) as (pulled, content_type):
                context = replace(context, content_type=content_type or context.content_type, size=pulled.size)
                self._run(Source(pulled), context, pulled=True)

    def _run(self, source: Source, context: Context, *, pulled: bool = False) -> None:
        """Run one object and answer. Once an answer has begun, what goes wrong can only break it off: Gone."""
        content_type = self._service.transform.content_type or context.content_type
        sink = HttpSink(self._sock, content_type, source.in_hand)
        try:
            self._service.jobs.run(source, context, sink)
        except Failure as failure:
            if sink.begun:
                raise Gone from failure
            if failure.kind == "skip":
                message = quote(failure.message, errors="replace")
                answer(self._sock, 204, "", "Transom-Outcome: skip", f"Transom-Message: {message}")
            else:
                answer(self._sock, 422 if failure.kind == "reject" else 500, failure.message)
        except Refused as error:
            if sink.begun:
                raise Gone from error
            raise
        except Gone:
            if sink.begun or not (pulled and source.broken):
                raise
            raise Refused(503, "the target broke off", retry=True) from None

    def _refuse(self, error: Refused, *headers: str) -> None:
        again = ("Retry-After: 1",) if error.retry else ()
        answer(self._sock, error.status, error.message, *again, *headers)

    def _is_over(self, body: Body) -> bool:
        """Get rid of what is left of a request's body; whether that leaves the connection fit for use."""
        with contextlib.suppress(Refused):
            if body.drained(_DRAINED):
                return True
        self._linger()
        return False

    def _linger(self) -> None:
        """Listen a little longer: to close a socket with bytes unread in it would take the answer from its reader."""
        with contextlib.suppress(Gone, OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(_LINGER_S)
            left = _LISTENED_TO
            while left > 0:
                left -= len(self._line.reader.some(PIECE))


def _context(request: Request, etl: str, size: int | None, metadata: dict[str, str]) -> Context:
    bucket, key = request.bucket_and_key
    told = request.number("transom-object-size")
    return Context(
        bucket=bucket,
        key=key,
        etl=etl,
        args_text=request.query.get("etl_args", ""),
        content_type=request.headers.get("content-type", "binary/octet-stream"),
        size=size if told is None else told,
        metadata=metadata,
        deadline=deadline(request.number("transom-deadline-ms")),
    )
