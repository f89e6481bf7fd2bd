"""Gets objects from the target for requests that carry none: hpull and hrev. Its address is AIS_TARGET_URL."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from transom.worker.errors import Gone, Refused
from transom.worker.reading import Body, Reader

_CONNECT_S = 10.0
_KEPT = 8
_OK, _NOT_FOUND = 200, 404
_AGAIN = (429, 503)
_MESSAGE_SIZE = 1000


class Puller:
    """Keeps connections to one target. Callable from several threads at once."""

    def __init__(self, url: str) -> None:
        """Aim at `http://HOST:PORT/PREFIX` or `http+unix://PERCENT-ENCODED-PATH/PREFIX`; "" for no target."""
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "http+unix") or not parts.netloc):
            raise ValueError(f"AIS_TARGET_URL is no http:// or http+unix:// URL: {url!r}")
        self._unix = unquote(parts.netloc) if parts.scheme == "http+unix" else ""
        self._place = (parts.hostname or "", parts.port or 80) if url and not self._unix else ("", 0)
        self._host = "localhost" if self._unix else parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._idle: list[_Line] = []

    @contextlib.contextmanager
    def get(self, path: str) -> Iterator[tuple[Body, str]]:
        """Give one object's body and its content type; `path` is percent-encoded. Raises Refused."""
        if not self._host:
            raise Refused(400, "this worker was told no AIS_TARGET_URL to get the object from")
        request = f"GET {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode("latin-1")
        line, head = self._ask(request)
        keep = False
        try:
            status, headers = _parsed(head)
            body = Body(line.reader, _size(headers))
            if status != _OK:
                raise _refused(status, body)
            yield body, headers.get("content-type", "")
            keep = body.ended and headers.get("connection", "").lower() != "close" and len(self._idle) < _KEPT
        finally:
            if keep:
                self._idle.append(line)
            else:
                line.sock.close()

    @property
    def idle(self) -> int:
        """How many connections wait for the next object."""
        return len(self._idle)

    def close(self) -> None:
        """Let go of idle connections."""
        while self._idle:
            self._idle.pop().sock.close()

    def _ask(self, request: bytes) -> tuple[_Line, bytes]:
        """Send a request and return the head of its answer. A connection that was idle may turn out to be closed."""
        with contextlib.suppress(IndexError):
            while True:
                line = self._idle.pop()
                with contextlib.suppress(Gone):
                    return line, line.ask(request)
        try:
            line = _Line(self._connected())
            return line, line.ask(request)
        except (OSError, Gone) as error:
            raise Refused(503, f"the target can't be reached: {error}", retry=True) from error

    def _connected(self) -> socket.socket:
        if not self._unix:
            sock = socket.create_connection(self._place, _CONNECT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(None)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._unix)
        except OSError:
            sock.close()
            raise
        return sock


class _Line:
    """One connection to the target."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = Reader(sock)

    def ask(self, request: bytes) -> bytes:
        try:
            self.sock.sendall(request)
            head = self.reader.head()
        except (OSError, Gone) as error:
            self.sock.close()
            raise Gone(str(error)) from error
        if not head:
            self.sock.close()
            raise Gone("it closed the connection")
        return head


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    status = first[9:12]
    if not first.startswith("HTTP/1.1 ") or not status.isdigit():
        raise Refused(502, "the target's answer is no HTTP/1.1")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(status), headers


def _size(headers: dict[str, str]) -> int | None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return None
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise Refused(502, "the target's answer has no length")
    return int(length)


def _refused(status: int, body: Body) -> Refused:
    message = b""
    with contextlib.suppress(Gone, Refused):
        message = b"".join(body) if (body.size or 0) <= _MESSAGE_SIZE else b""
    told = message.decode(errors="replace")[:_MESSAGE_SIZE]
    if status == _NOT_FOUND:
        return Refused(_NOT_FOUND, told or "the target has no such object")
    again = status in _AGAIN
    return Refused(503 if again else 502, f"the target answered {status} {told}".strip(), retry=again)
