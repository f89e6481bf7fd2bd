"""Signed requests over a socket of one's own: what a response is on the wire, down to whether it ever ended."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.running import ACCESS, SECRET, RunningServer

TIMEOUT_S = 30.0
_READ = 256 * 1024
T = TypeVar("T")


@dataclass(frozen=True)
class Raw:
    """A response. `ended` tells whether it came to its proper end: all of its length, or the closing chunk."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ended: bool

    @property
    def chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "") == "chunked"

    @property
    def etag(self) -> str:
        return self.headers["etag"]

    @property
    def code(self) -> str:
        """The S3 error code in the body."""
        return self.element("Code")

    @property
    def message(self) -> str:
        return self.element("Message")

    def element(self, name: str) -> str:
        found = re.search(f"<{name}>([^<]*)</{name}>", self.body.decode(errors="replace"))
        return found[1] if found else ""


@dataclass
class Exchange:
    """One request under way on its own connection."""

    sock: socket.socket
    method: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _eof: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def head(self) -> Exchange:
        """Read the status line and the headers, past a 100 Continue."""
        while b"\r\n\r\n" not in self._buffer:
            assert self._more(), f"the connection closed before the headers ended: {bytes(self._buffer)!r}"
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status_line.split()[1])
        if self.status == 100:  # any other 1xx is an answer that no client expects
            return self.head()
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in self.headers, f"{name} came twice"
            self.headers[name.lower()] = value.strip()
        return self

    def read(self, size: int | None = None) -> bytes:
        """Read on until `size` bytes of the body are there, or it ends; return all that came so far."""
        if self.method == "HEAD" or self.status in (204, 304):
            self.ended = True
        while not self.ended and not self._eof and (size is None or len(self.body) < size):
            self._decode()
            if not self.ended and (size is None or len(self.body) < size):
                self._more()
                self._decode()
        return bytes(self.body)

    def whole(self) -> Raw:
        """Read all of it."""
        if not self.status:
            self.head()
        body = self.read()
        return Raw(self.status, self.headers, body, self.ended)

    def _decode(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            self._decode_chunks()
            return
        self.body += self._buffer
        self._buffer.clear()
        length = self.headers.get("content-length")
        self.ended = len(self.body) == int(length) if length is not None else self._eof

    def _decode_chunks(self) -> None:
        while not self.ended:
            line, found, _ = self._buffer.partition(b"\r\n")
            if not found:
                return
            size = int(line.split(b";")[0], 16)
            start = len(line) + 2
            if len(self._buffer) < start + size + 2:
                return
            self.body += self._buffer[start : start + size]
            del self._buffer[: start + size + 2]
            self.ended = size == 0

    def _more(self) -> bool:
        try:
            data = self.sock.recv(_READ)
        except ConnectionResetError:
            data = b""
        self._eof = not data
        self._buffer += data
        return bool(data)


@dataclass(frozen=True)
class Wire:
    """Makes requests to a server, signed with a key unless told otherwise."""

    server: RunningServer
    access: str = ACCESS
    secret: str = SECRET
    tls: ssl.SSLContext | None = None

    def open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        version: str = "1.1",
        signed: bool = True,
    ) -> Exchange:
        """Send a request for `target`, path and query as they are to be sent; read nothing yet."""
        sent = dict(headers or {})
        if body or method in ("PUT", "POST"):
            sent["Content-Length"] = str(len(body))
        if signed:
            request = AWSRequest(method=method, url=self.server.endpoint + target, headers=sent, data=body)
            S3SigV4Auth(Credentials(self.access, self.secret), "s3", "us-east-1").add_auth(request)
            sent = dict(request.headers.items())
        return self.send(method, target, sent, body=body, version=version)

    def send(
        self, method: str, target: str, headers: Mapping[str, str], *, body: bytes = b"", version: str = "1.1"
    ) -> Exchange:
        """Send a request as it stands."""
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=TIMEOUT_S)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_hostname="localhost")
        lines = [f"{method} {target} HTTP/{version}", f"Host: 127.0.0.1:{self.server.port}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return Exchange(sock, method)

    def __call__(self, method: str, target: str, headers: Mapping[str, str] | None = None, **options: Any) -> Raw:
        """Send a request and read the whole answer."""
        with self.open(method, target, headers, **options) as exchange:
            return exchange.whole()

    def get(self, target: str, headers: Mapping[str, str] | None = None, **options: Any) -> Raw:
        return self("GET", target, headers, **options)

    def head(self, target: str, headers: Mapping[str, str] | None = None, **options: Any) -> Raw:
        return self("HEAD", target, headers, **options)

    def put(self, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Raw:
        answer = self("PUT", target, headers, body=body)
        assert answer.status == 200, answer
        return answer

    def presigned(self, method: str, target: str, *, version: int = 4, expires_s: int = 60) -> str:
        """The path and query of a presigned URL."""
        request = AWSRequest(method=method, url=self.server.endpoint + target)
        credentials = Credentials(self.access, self.secret)
        if version == 2:
            HmacV1QueryAuth(credentials, expires=expires_s).add_auth(request)
        else:
            S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=expires_s).add_auth(request)
        parts = urlsplit(str(request.url))
        return f"{parts.path}?{parts.query}"


def at(bucket: str, key: str, **query: object) -> str:
    """The path and query of an object; query values are percent-encoded."""
    encoded = "&".join(f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in query.items())
    return f"/{bucket}/{quote(key)}" + (f"?{encoded}" if encoded else "")


def eventually(check: Callable[[], T], *, within_s: float = 20.0) -> T:
    """Ask until the answer is truthy; fail after `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < give_up, f"it did not happen within {within_s} s"
        time.sleep(0.01)
