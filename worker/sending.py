"""Writes HTTP/1.1 answers to a blocking socket. What is sent says whether it is whole: a failed one never ends well."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import BinaryIO

from transom.worker.errors import Gone
from transom.worker.holding import held

_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    422: "Unprocessable Content",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_COPIED = 16 * 1024  # up to this, joining costs less than a call with two buffers
_FILE_PIECE = 8 * 1024 * 1024


def send_all(sock: socket.socket, head: bytes, body: bytes) -> None:
    """Send two parts in one call where that can be; raises Gone."""
    try:
        if len(body) <= _COPIED:
            sock.sendall(head + body)
            return
        sent = sock.sendmsg((head, body)) - len(head)
        if sent < 0:
            sock.sendall(head[sent:])
            sent = 0
        if sent < len(body):
            sock.sendall(memoryview(body)[sent:])
    except OSError as error:
        raise Gone from error


def answer(sock: socket.socket, status: int, message: str = "", *headers: str) -> None:
    """Send an answer that is a text; `headers` are whole lines."""
    body = message.encode(errors="replace")
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", *headers]
    if status != 204:  # noqa: PLR2004 - which has no body
        lines += ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
    send_all(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body)


class HttpSink:
    """One answer with status 200. `begun` tells whether any of it was sent: then an error can only break it off."""

    __slots__ = ("_head", "_in_hand", "_sock", "begun")

    def __init__(self, sock: socket.socket, content_type: str, in_hand: bool) -> None:
        self._sock = sock
        self._in_hand = in_hand
        self._head = b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type.encode("latin-1", "replace") + b"\r\n"
        self.begun = False

    def whole(self, data: bytes) -> None:
        """Send the whole result."""
        self.begun = True
        send_all(self._sock, self._head + b"Content-Length: %d\r\n\r\n" % len(data), data)

    def pieces(self, pieces: Iterator[bytes]) -> None:
        """Send the result as it is made, in chunks; nothing before the first piece is there."""
        first, complete = held(pieces, self._in_hand)
        if complete:
            self.whole(first)
            return
        self.begun = True
        send_all(self._sock, self._head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(first), first)
        for piece in pieces:
            send_all(self._sock, b"\r\n%x\r\n" % len(piece), piece)
        send_all(self._sock, b"\r\n0\r\n\r\n", b"")

    def file(self, file: BinaryIO, size: int) -> None:
        """Send the first `size` bytes of a file, without reading them here."""
        self.begun = True
        send_all(self._sock, self._head + b"Content-Length: %d\r\n\r\n" % size, b"")
        offset = 0
        try:
            while offset < size:
                sent = os.sendfile(self._sock.fileno(), file.fileno(), offset, min(size - offset, _FILE_PIECE))
                if not sent:
                    raise Gone("the file became shorter")
                offset += sent
        except OSError as error:
            raise Gone from error
