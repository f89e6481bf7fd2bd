"""HTTP with a worker wherever it is, by the standard library: what the tests compare our transports' sockets with."""

from __future__ import annotations

import contextlib
import http.client
import socket

from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import connect

TIMEOUT_S = 20.0


class Spoken(http.client.HTTPConnection):
    """HTTP over a worker's address."""

    def __init__(self, address: Address) -> None:
        super().__init__("worker")
        self._address = address

    def connect(self) -> None:
        self.sock = connect(self._address, lambda: None)
        self.sock.settimeout(TIMEOUT_S)


def ask(address: Address, method: str, path: str, body: bytes | None = None) -> bytes:
    """Ask a worker; what it answers with 200."""
    with contextlib.closing(Spoken(address)) as asked:
        asked.request(method, path, body)
        answer = asked.getresponse()
        found = answer.read()
        assert answer.status == 200, found
        return found


def serve_once(listener: socket.socket, body: bytes, asked: list[bytes]) -> None:
    """Answer one request with `body`; what was asked is added to `asked`."""
    listener.settimeout(TIMEOUT_S)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(TIMEOUT_S)
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
