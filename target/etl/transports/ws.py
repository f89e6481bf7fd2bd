"""ws: many objects over one WebSocket, one after the other; the result may come while the object is still sent.

It speaks AIStore's contract: a control message, the object's bytes, and back one binary message with the result. A text
message is never a result.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator
from urllib.parse import quote

from transom.plugins.contract import Reject
from transom.target.etl.transports import outcomes
from transom.target.etl.transports.answers import Head, MalformedError, read_head
from transom.target.etl.transports.base import Address, Call, WorkerLost
from transom.target.etl.transports.connections import Connection, ConnectionPool
from transom.target.etl.transports.exchange import BrokenError, Buffers, Exchange
from transom.target.etl.transports.http import Sign, host_of
from transom.target.etl.transports.sockets import connect
from transom.target.etl.transports.told import left_ms
from transom.target.etl.transports.uploads import Upload
from transom.target.etl.transports.ws_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_MESSAGE,
    PING,
    PONG,
    TEXT,
    Event,
    FrameError,
    FrameReader,
    close_code,
    frame,
)
from transom.target.etl.waiting import Look
from transom.target.etl.watch import Watch

PROTOCOL = "transom.etl.v1"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_SWITCHING = 101
_NO_CODE = 1005
_TOO_BIG = 1009
_RESTARTING = (1001, 1012, 1013)


class _ClosedError(BrokenError):
    """The worker closed the WebSocket, and said why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _RefusedError(Exception):
    """The worker accepts no WebSocket."""

    def __init__(self, head: Head) -> None:
        super().__init__(head.reason)
        self.head = head


class _WebSocket(Connection):
    """An open WebSocket. `ours` tells that the worker speaks our subprotocol; `events` have come and wait."""

    __slots__ = ("events", "ours", "reader")

    def __init__(self, sock: socket.socket, path: str, host: str, extra: str, look: Look) -> None:
        """Upgrade a fresh connection; raises BrokenError, MalformedError, _RefusedError, and has closed it then."""
        super().__init__(sock)
        try:
            self._upgrade(path, host, extra, look)
        except BaseException:
            self.close()
            raise

    def _upgrade(self, path: str, host: str, extra: str, look: Look) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n"
            f"{extra}\r\n"
        )
        exchange = Exchange(self, [request.encode("ascii")], iter(()), look)
        head, data = read_head(exchange.receive)
        if head.status != _SWITCHING:
            raise _RefusedError(head)
        proof = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest())
        if head.headers.get(b"sec-websocket-accept") != proof:
            raise MalformedError("a WebSocket that was not asked for")
        self.ours = head.headers.get(b"sec-websocket-protocol", b"").decode("latin-1") == PROTOCOL
        self.reader = FrameReader()
        self.events = deque(self.reader.feed(data))


class WsTransport:
    """Speaks with one worker over WebSockets, which stay open from object to object.

    `host` is sent as Host where it isn't the address itself, `prefix` stands before the path; `sign` gives further
    headers for a method and what is asked for with it.
    """

    def __init__(self, address: Address, *, host: str = "", prefix: str = "", sign: Sign | None = None) -> None:
        self._address = address
        self._host = host or host_of(address)
        self._path = prefix.rstrip("/") + "/ws"
        self._sign = sign
        # a mask keeps middle boxes from reading the data as something else: none are on the way to this machine
        self._masked = not _is_local(address)
        self._pool = ConnectionPool(self._open)

    def run(self, call: Call, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Send the object, yield the result as it comes; see `Transport`."""
        upload = Upload(call.etl, iter(()), 0) if call.path else Upload(call.etl, chunks, call.size)
        if (upload.size or 0) > MAX_MESSAGE:
            raise Reject(f"the object is larger than a message may be, which is {MAX_MESSAGE} bytes")
        try:
            yield from self._converse(call, upload, watch)
        except (FrameError, MalformedError) as error:
            raise outcomes.failed(call.etl, f"its worker's answer is no WebSocket's: {error}") from error

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.close()

    def _open(self, look: Look) -> _WebSocket:
        signed = {} if self._sign is None else self._sign("GET", self._path)
        extra = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return _WebSocket(connect(self._address, look), self._path, self._host, extra, look)

    def _converse(self, call: Call, upload: Upload, watch: Watch) -> Generator[bytes, None, None]:
        exchange, event = self._begin(call, upload, watch)
        websocket = exchange.connection
        keep = False
        try:
            failure = yield from self._result(call.etl, exchange, event)
            keep = exchange.all_sent and websocket.reader.at_rest and not websocket.events
        finally:
            if keep:
                self._pool.give_back(websocket)
            else:
                websocket.close()
        if failure is not None:
            raise failure

    def _begin(self, call: Call, upload: Upload, watch: Watch) -> tuple[Exchange[_WebSocket], Event]:
        """Send the object until something comes back, on a connection that turns out to stand."""
        connection = self._connected(call.etl, self._pool.take, watch)
        while True:
            first = self._first(call, upload, watch, ours=connection.ours)
            exchange = Exchange(connection, first, self._framed(upload), watch.check)
            try:
                return exchange, _next(exchange)
            except BrokenError as error:
                connection.close()
                if not connection.reused or not upload.replayable:
                    raise _broken(call.etl, error, begun=False) from error
            except BaseException:
                connection.close()
                raise
            connection = self._connected(call.etl, self._pool.fresh, watch)

    def _first(self, call: Call, upload: Upload, watch: Watch, *, ours: bool) -> Buffers:
        """The control message, and the object as far as it is in hand."""
        control: dict[str, object] = {
            "pipeline": "",
            "etl_args": call.etl_args,
            "fqn": quote(call.path),  # AIStore's workers unescape it
            "path": f"{call.bucket}/{call.key}",
        }
        if ours:
            control["content_type"] = call.content_type
            control["deadline_ms"] = left_ms(watch)
            control["metadata"] = dict(call.metadata)
        buffers = frame(BINARY, json.dumps(control).encode(), masked=self._masked)
        if not call.path:
            buffers += frame(BINARY, upload.first, final=upload.whole, masked=self._masked)
        return buffers

    def _framed(self, upload: Upload) -> Iterator[Buffers]:
        for piece in upload.rest():
            yield frame(CONTINUATION, piece, final=False, masked=self._masked)
        if not upload.whole:
            yield frame(CONTINUATION, b"", masked=self._masked)

    def _result(
        self, etl: str, exchange: Exchange[_WebSocket], event: Event
    ) -> Generator[bytes, None, Exception | None]:
        """Yield the result; return what the worker says instead of one."""
        begun = False
        try:
            while event.kind != TEXT:
                if event.payload:
                    begun = True
                    yield event.payload
                if event.last:
                    return None
                event = _next(exchange)
        except BrokenError as error:
            raise _broken(etl, error, begun=begun) from error
        return outcomes.of_text(etl, event.payload.decode(errors="replace"), ours=exchange.connection.ours)

    def _connected(self, etl: str, take: Callable[[Look], _WebSocket], watch: Watch) -> _WebSocket:
        try:
            return take(watch.check)
        except OSError as error:
            raise outcomes.unreachable(etl, error) from error
        except BrokenError as error:
            raise outcomes.lost(etl) from error
        except _RefusedError as error:
            raise _refusal(etl, error.head) from error


def _next(exchange: Exchange[_WebSocket]) -> Event:
    """The next message, or piece of one; pings are answered. Raises BrokenError."""
    websocket = exchange.connection
    pong: bytes | None = None  # for the latest of pings that come together, as RFC 6455, 5.5.3 allows
    while True:
        while not websocket.events:
            if pong is not None:
                exchange.send_also(pong)
                pong = None
            data = exchange.receive(websocket.reader.wanted)
            if not data:
                raise BrokenError
            websocket.events.extend(websocket.reader.feed(data))
        event = websocket.events.popleft()
        if event.kind == CLOSE:
            raise _ClosedError(*close_code(event.payload))
        if event.kind == PING:
            pong = b"".join(frame(PONG, event.payload))
        elif event.kind != PONG:
            if pong is not None:
                exchange.send_also(pong)
            return event


def _broken(etl: str, error: BrokenError, *, begun: bool) -> Exception:
    """What it means that the worker broke off, or closed the WebSocket."""
    code, reason = (error.code, error.reason) if isinstance(error, _ClosedError) else (_NO_CODE, "")
    if code == _TOO_BIG:
        return Reject("its worker takes no message as large as this object (close code 1009)")
    if reason and code not in _RESTARTING:
        return outcomes.failed(etl, outcomes.public(reason))
    if begun:
        return outcomes.broken(etl)
    if isinstance(error, _ClosedError) and code not in _RESTARTING:
        return outcomes.failed(etl, f"its worker closed the WebSocket without an answer (close code {code})")
    return outcomes.lost(etl)


def _refusal(etl: str, head: Head) -> Exception:
    """What an answer other than an upgrade means: nothing is wrong with the object."""
    error = outcomes.of_status(etl, head.status, head.headers, outcomes.public(head.reason))
    if isinstance(error, WorkerLost):
        return error
    return outcomes.failed(etl, f"its worker accepts no WebSocket at /ws (status {head.status})")


def _is_local(address: Address) -> bool:
    if address.unix or address.netns_pid:
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"
