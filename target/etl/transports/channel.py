"""Frames over one end of a socket pair: one kind byte, four length bytes, the payload. It knows no kinds."""

from __future__ import annotations

import socket
import struct

from transom.target.etl.transports.sockets import bound
from transom.target.etl.waiting import Look

_HEAD = struct.Struct("!cI")
_COPIED = 64 * 1024  # a frame up to this is sent in one call, for the price of a copy
_READ = 64 * 1024
_MAX_READ = 1024 * 1024
_MAX_FRAME = 16 * 1024 * 1024


def framed(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(kind, len(payload)) + payload


class Channel:
    """One end; blocking. `look` is called every quarter of a second while nothing happens, and may end the wait."""

    def __init__(self, sock: socket.socket, look: Look | None = None) -> None:
        """Take over `sock`. Without `look` it waits as long as it takes."""
        sock.setblocking(True)
        if look is not None:
            bound(sock)
        self.look: Look = look or _nothing
        self._sock = sock
        self._rest = b""

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame; raises OSError when the other end is gone."""
        if len(payload) <= _COPIED:
            self.send_bytes(framed(kind, payload))
        else:
            self.send_bytes(_HEAD.pack(kind, len(payload)))
            self.send_bytes(payload)

    def send_bytes(self, data: bytes) -> None:
        """Send what holds whole frames, or the rest of one."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                self.look()

    def receive(self) -> tuple[bytes, bytes]:
        """Receive one frame; raises EOFError when the other end is gone, ConnectionError for what is no frame."""
        data = self._rest
        while len(data) < _HEAD.size:
            data += self._some(_READ)
        kind, length = _HEAD.unpack_from(data)
        if length > _MAX_FRAME:
            raise ConnectionError(f"what came is no frame: it claims {length} bytes")
        end = _HEAD.size + length
        if len(data) < end:
            data = self._filled(data, end)
        self._rest = data[end:]
        return kind, data[_HEAD.size : end]

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody took: neither data nor the other end's end."""
        if self._rest:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def _filled(self, first: bytes, size: int) -> bytes:
        """So many bytes, of which only the first have come."""
        parts = [first]
        size -= len(first)
        while size:
            parts.append(self._some(min(size, _MAX_READ)))
            size -= len(parts[-1])
        return b"".join(parts)

    def _some(self, at_most: int) -> bytes:
        """What comes next."""
        while True:
            try:
                data = self._sock.recv(at_most)
            except BlockingIOError:
                self.look()
                continue
            if not data:
                raise EOFError
            return data


def _nothing() -> None:
    """Nobody looks."""
