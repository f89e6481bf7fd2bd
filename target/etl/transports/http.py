"""hpush, hpull and hrev: one HTTP/1.1 request to a worker for each object.

It speaks AIStore's contract and nothing of S3: PUT sends the object, GET lets the worker fetch it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from transom.target.errors import EtlOutputTooLarge
from transom.target.etl.transports import outcomes, told
from transom.target.etl.transports.answers import (
    MAX_HEAD,
    Body,
    Head,
    LateFailureError,
    MalformedError,
    SizedBody,
    UnsizedBody,
    read_head,
)
from transom.target.etl.transports.base import Address, Call
from transom.target.etl.transports.connections import Connection, ConnectionPool
from transom.target.etl.transports.exchange import BrokenError, Buffers, Exchange
from transom.target.etl.transports.sockets import connect
from transom.target.etl.transports.tls import CutOffError
from transom.target.etl.transports.uploads import Upload, measured
from transom.target.etl.waiting import Look
from transom.target.etl.watch import Watch

_RESULT = (200, 202)
_ANY_TYPE = "binary/octet-stream"
_ASKS_FOR_LENGTH = (411, 501)
_UNDECLARED = (
    "TLS ended without a close_notify, so nobody can tell half a result from a whole one; "
    "a service that ends so must send a Content-Length or chunks"
)
Method = Literal["push", "pull"]
Sign = Callable[[str, str], Mapping[str, str]]


class HttpTransport:
    """Speaks HTTP with one worker. With the method "pull" it sends no bytes where the call says the worker pulls them.

    `host` is sent as Host where it isn't the address itself, `prefix` stands before the path; `sign` gives further
    headers for a method and what is asked for with it. `scratch` is the folder for inputs of unknown length, where the
    worker must be told the length: from the start with `tells_length`, else once it has asked for that.
    """

    def __init__(
        self,
        address: Address,
        method: Method = "push",
        *,
        host: str = "",
        prefix: str = "",
        sign: Sign | None = None,
        scratch: Path | None = None,
        tells_length: bool = False,
    ) -> None:
        self._pool = ConnectionPool(lambda look: Connection(connect(address, look)))
        self._pulls = method == "pull"
        self._host = host or host_of(address)
        self._prefix = prefix.rstrip("/")
        self._sign = sign
        self._scratch = scratch
        self._tells_length = tells_length

    def run(self, call: Call, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Send the object, yield the result as it comes; see `Transport`."""
        try:
            if call.path or self._lets_pull(call):
                yield from self._converse(call, Upload(call.etl, iter(()), 0), watch)
            elif call.size is None and self._tells_length:
                with measured(chunks, self._scratch) as (size, collected):
                    yield from self._converse(call, Upload(call.etl, collected, size), watch)
            else:
                yield from self._converse(call, Upload(call.etl, chunks, call.size), watch)
        except MalformedError as error:
            raise outcomes.failed(call.etl, f"its worker's answer is no HTTP: {error}") from error

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.close()

    def _lets_pull(self, call: Call) -> bool:
        return self._pulls and call.pulled

    def _converse(self, call: Call, upload: Upload, watch: Watch) -> Generator[bytes, None, None]:
        exchange, head, data = self._begin(call, upload, watch)
        keep, text = False, b""
        try:
            body = head.body()
            if head.status in _RESULT:
                _check_size(call, body)
                yield from self._result(call.etl, exchange, body, data, watch)
            else:
                text = _text(exchange, body, data)
            keep = exchange.all_sent and body.done and not body.excess and head.keep_alive
        finally:
            if keep:
                self._pool.give_back(exchange.connection)
            else:
                exchange.connection.close()
        if head.status not in _RESULT:
            raise self._refusal(call.etl, upload, head, text)

    def _begin(self, call: Call, upload: Upload, watch: Watch) -> tuple[Exchange[Connection], Head, bytes]:
        """Send the request until the head of its answer is there, on a connection that turns out to stand."""
        first = self._first(call, upload, watch)
        connection = _connected(call.etl, self._pool.take, watch)
        while True:
            exchange = Exchange(connection, first, _framed(upload), watch.check)
            try:
                return exchange, *read_head(exchange.receive)
            except BrokenError as error:
                connection.close()
                if not connection.reused or exchange.heard or not upload.replayable:
                    raise outcomes.lost(call.etl) from error
            except BaseException:
                connection.close()
                raise
            connection = _connected(call.etl, self._pool.fresh, watch)

    def _first(self, call: Call, upload: Upload, watch: Watch) -> Buffers:
        """The request's head, and the body as far as it is in hand."""
        pulled = self._lets_pull(call)
        method, target = "GET" if pulled else "PUT", self._prefix + _target(call)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", *told.lines(call, watch)]
        lines += [_field(name, value) for name, value in call.headers.items()]
        if self._sign is not None:
            lines += [_field(name, value) for name, value in self._sign(method, target).items()]
        if pulled:
            return [_encoded(lines)]
        lines.append(f"Content-Type: {call.content_type if _is_plain(call.content_type) else _ANY_TYPE}")
        if upload.size is None:
            lines.append("Transfer-Encoding: chunked")
            return [_encoded(lines), *_chunk(upload.first)]
        lines.append(f"Content-Length: {upload.size}")
        return [_encoded(lines), upload.first]

    def _result(
        self, etl: str, exchange: Exchange[Connection], body: Body, data: bytes, watch: Watch
    ) -> Generator[bytes, None, None]:
        begun = False
        try:
            while True:
                piece = body.feed(data)
                if piece:
                    begun = True
                    yield piece
                if body.done:
                    return
                data = exchange.receive(body.wanted)
                if not data:
                    break
            piece = body.end()
            self._look_for_worker(watch)
        except LateFailureError as error:
            raise outcomes.of_status(etl, error.head.status, {}, outcomes.public(error.head.reason)) from error
        except BrokenError as error:
            undeclared = isinstance(body, UnsizedBody) and isinstance(error.__cause__, CutOffError)
            tell = outcomes.broken if begun else outcomes.lost
            raise tell(etl, _UNDECLARED if undeclared else "") from error
        if piece:
            yield piece

    def _look_for_worker(self, watch: Watch) -> None:
        """Raise BrokenError if it is gone: where a body ends with the connection, only that tells its end from half."""
        try:
            self._pool.fresh(watch.check).close()
        except OSError as error:
            raise BrokenError from error

    def _refusal(self, etl: str, upload: Upload, head: Head, text: bytes) -> Exception:
        if upload.size is None and head.status in _ASKS_FOR_LENGTH:
            self._tells_length = True
            return outcomes.busy(etl, "its worker must be told the length of its input first")
        message = outcomes.message_of(text, head.headers.get(b"content-type", b""), head.reason)
        return outcomes.of_status(etl, head.status, head.headers, message)


def _check_size(call: Call, body: Body) -> None:
    """Refuse a result that is known to be too long before any of it is handed on: the client gets a plain error."""
    if call.max_output is not None and isinstance(body, SizedBody) and body.length > call.max_output:
        raise EtlOutputTooLarge(f"ETL '{call.etl}' made more than {call.max_output} bytes", etl=call.etl)


def host_of(address: Address) -> str:
    """What an address is called in a Host header."""
    if address.unix:
        return "localhost"
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def path_of(bucket: str, key: str) -> str:
    """The percent-encoded path of an object; dots that stand alone too, which clients would resolve on their way."""
    path = quote(f"/{bucket}/{key}")
    if "/." not in path:
        return path
    return "/".join(part.replace(".", "%2E") if part in (".", "..") else part for part in path.split("/"))


def _target(call: Call) -> str:
    query: list[str] = []
    if call.etl_args:
        query.append(f"etl_args={quote(call.etl_args, safe='')}")
    if call.path:
        query.append(f"etl_fqn={quote(quote(call.path), safe='')}")  # AIStore's workers unescape the value once more
    path = path_of(call.bucket, call.key)
    return f"{path}?{'&'.join(query)}" if query else path


def _field(name: str, value: str) -> str:
    if not _is_plain(name + value):
        raise ValueError(f"no header can be {name}: {value!r}")
    return f"{name}: {value}"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _encoded(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "\r\n"]).encode("ascii")


def _chunk(piece: bytes) -> Buffers:
    return [b"%x\r\n" % len(piece), piece, b"\r\n"]


def _framed(upload: Upload) -> Iterator[Buffers]:
    """What of the body is not in hand yet, as it goes over the wire."""
    if upload.size is not None:
        for piece in upload.rest():
            yield [piece]
        return
    for piece in upload.rest():
        yield _chunk(piece)
    yield [b"0\r\n\r\n"]


def _text(exchange: Exchange[Connection], body: Body, data: bytes) -> bytes:
    """What an answer that is no result says; as much as came, if the worker breaks off."""
    exchange.stop_sending()
    text = body.feed(data)
    try:
        while not body.done and len(text) < MAX_HEAD:
            data = exchange.receive(body.wanted)
            text += body.feed(data) if data else body.end()
    except LateFailureError:
        pass
    except BrokenError:
        with suppress(BrokenError, LateFailureError):
            text += body.end()  # what is held back of one without an end of its own
    return text


def _connected(etl: str, take: Callable[[Look], Connection], watch: Watch) -> Connection:
    try:
        return take(watch.check)
    except OSError as error:
        raise outcomes.unreachable(etl, error) from error
