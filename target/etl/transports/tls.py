"""TLS to a worker elsewhere: what is spoken on one end of a socket pair goes out encrypted, and back.

The transports send and receive in ways that Python's TLS sockets don't know; so a thread stands between. It knows
nothing of what is spoken, but it tells an end that the other side declared from one that anybody could have made.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

_PIECE = 64 * 1024


class CutOffError(ConnectionResetError):
    """The connection ended without the other side's saying so (close_notify): more may have been on its way."""


def secured(sock: socket.socket, name: str, look: Callable[[], None]) -> socket.socket:
    """Take over a connected socket and return the end of it on which to speak plainly.

    What came is received there, and then b"" if the other side ended it by close_notify: else CutOffError is raised.
    Raises PermissionError unless the other end's certificate is for `name` and trusted, OSError, and what `look` does,
    which is called while nothing comes.
    """
    line = _Line(sock, name)
    line.shake_hands(look)
    ours, theirs = socket.socketpair()
    threading.Thread(target=line.carry, args=(theirs,), name="tls", daemon=True).start()
    return _PlainEnd(ours, line)


class _PlainEnd(socket.socket):
    """Our end of the socket pair."""

    def __init__(self, ours: socket.socket, line: _Line) -> None:
        super().__init__(ours.family, ours.type, ours.proto, ours.detach())
        self._line = line

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As sockets do, but for an end that the other side didn't declare."""
        try:
            data = super().recv(size, flags)
        except ConnectionResetError:  # we had more to send, which nobody takes any more
            data = b""
        # the pair's other end is closed only once all that came was sent there, and it is known how that ended
        if not data and size and not self._line.whole:
            raise CutOffError("the connection ended without TLS's close_notify")
        return data


class _Line:
    """The encrypted side of one connection; `whole` tells that all was carried back that there was to come."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.whole = False
        self._sock = sock
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ended = self._declared = False
        self._tls = ssl.create_default_context().wrap_bio(self._coming, self._going, server_hostname=name)

    def shake_hands(self, look: Callable[[], None]) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._going.read())
            except ssl.SSLCertVerificationError as error:
                raise PermissionError(f"its certificate is not to be trusted: {error.verify_message}") from error
            else:
                self._sock.sendall(self._going.read())
                return
            try:
                data = self._sock.recv(_PIECE)
            except BlockingIOError:
                look()
                continue
            if not data:
                raise ConnectionResetError("the connection was closed before TLS was agreed on")
            self._coming.write(data)

    def carry(self, inner: socket.socket) -> None:
        """Carry bytes both ways until either end closes; holds little more than a piece each way."""
        outer = self._sock
        with outer, inner, suppress(OSError):  # TLS's errors are OSErrors: the connection ends with them
            for sock in (outer, inner):
                sock.setblocking(False)
            out, back = b"", self._plain()
            while back or not self._ended:
                ready = _ready(outer, inner, out=bool(out), back=bool(back), ended=self._ended)
                if ready.get(inner.fileno(), 0) & (select.POLLHUP | select.POLLERR):
                    return
                if not out and inner.fileno() in ready and (data := _received(inner)):
                    self._tls.write(data)
                if not back and not self._ended and outer.fileno() in ready:
                    back = self._decrypted(_received(outer))
                back = _sent(inner, back)
                out = _sent(outer, out + self._going.read())
            self.whole = self._declared

    def _decrypted(self, data: bytes | None) -> bytes:
        self._ended = data == b""
        self._coming.write(data or b"")
        return self._plain()

    def _plain(self) -> bytes:
        """What has come, decrypted."""
        pieces = []
        try:
            while piece := self._tls.read(_PIECE):
                pieces.append(piece)
            self._ended = self._declared = True  # nothing is read, and no more of it wanted: at a close_notify only
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)


def _ready(outer: socket.socket, inner: socket.socket, *, out: bool, back: bool, ended: bool) -> dict[int, int]:
    """Wait for what can go on: what waits to go out must be gone before more is taken in, each way."""
    poll = select.poll()
    outer_events = (select.POLLOUT if out else 0) | (0 if back or ended else select.POLLIN)
    if outer_events:
        poll.register(outer, outer_events)
    poll.register(inner, (select.POLLOUT if back else 0) | (0 if out else select.POLLIN))
    return dict(poll.poll())


def _received(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(_PIECE)
    except BlockingIOError:
        return None


def _sent(sock: socket.socket, data: bytes) -> bytes:
    """What is left of the data after as much was sent as can be."""
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            break
    return data
