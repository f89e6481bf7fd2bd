"""A request refused before its body was read leaves the connection fit for the next one, or says that it isn't."""

from __future__ import annotations

import socket

import pytest

from tests.running import RunningServer
from tests.wire import Exchange


def ask(sock: socket.socket, server: RunningServer, body: bytes, *headers: str, method: str = "PUT") -> Exchange:
    """Send an unsigned request, which is refused, on a connection that is kept."""
    lines = [f"{method} /somebody/elses HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Content-Length: {len(body)}"]
    sent = b"" if any(line.startswith("Expect") for line in headers) else body
    sock.sendall("\r\n".join([*lines, *headers, "", ""]).encode() + sent)
    exchange = Exchange(sock, method).head()
    exchange.read()
    return exchange


@pytest.fixture
def sock(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def test_small_body_is_read_all_the_same(server: RunningServer, sock: socket.socket) -> None:
    with sock:
        for size in (1, 1000, 60_000, 0):
            answer = ask(sock, server, b"x" * size)
            assert (answer.status, answer.ended) == (404, True)
            assert answer.headers.get("connection") != "close"


def test_large_body_ends_the_connection_and_the_answer_says_so(server: RunningServer, sock: socket.socket) -> None:
    with sock:
        answer = ask(sock, server, b"x" * 70_000)
        assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_body_that_was_not_asked_for_ends_the_connection(server: RunningServer, sock: socket.socket) -> None:
    """The client holds it back; a server that waits for it would read the next request as that body."""
    with sock:
        answer = ask(sock, server, b"x", "Expect: 100-continue")
        assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_management_refuses_on_a_connection_that_goes_on(sock: socket.socket) -> None:
    with sock:
        for _ in range(3):
            body = b'{"plugin": "upper"}'
            lines = [f"PUT /-/api/v1/etls/x HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"]
            sock.sendall(lines[0].encode() + body)
            exchange = Exchange(sock, "PUT").head()
            exchange.read()
            assert (exchange.status, exchange.ended) == (403, True)
