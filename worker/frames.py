"""WebSocket frames (RFC 6455, a server's side) over a blocking socket. It knows nothing of objects."""

from __future__ import annotations

import hashlib
import socket
import struct
from binascii import b2a_base64
from collections.abc import Iterator

from transom.worker.errors import Gone
from transom.worker.reading import PIECE, Reader
from transom.worker.sending import send_all

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GOING_AWAY, PROTOCOL_ERROR, UNEXPECTED, TOO_BIG, FAILED, TRY_AGAIN_LATER = 1001, 1002, 1003, 1009, 1011, 1013
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_FINAL, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_SHORT, _LONG = 126, 127
_MAX_CONTROL = 125
_NO_MASK = bytes(4)
_BLOCK = 64 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ProtocolError(Exception):
    """The other end broke the rules; `code` is what the close frame says."""

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def accept_value(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return b2a_base64(digest, newline=False).decode()


def unmasked(data: bytes, mask: bytes) -> bytes:
    """Undo a mask of four bytes, the first of which belongs to the first of `data`.

    Whole numbers are the widest thing that Python can XOR; in blocks, since large ones fall out of the cache.
    """
    if mask == _NO_MASK or not data:
        return data
    size = len(data)
    block = min(size, _BLOCK)
    pattern = int.from_bytes((mask * (block // 4 + 1))[:block], "little")
    if size == block:
        return (int.from_bytes(data, "little") ^ pattern).to_bytes(size, "little")
    parts = [
        (int.from_bytes(data[start : start + block], "little") ^ pattern).to_bytes(block, "little")
        for start in range(0, size - size % block, block)
    ]
    parts.append(unmasked(data[size - size % block :], mask))
    return b"".join(parts)


class WebSocket:
    """One open connection. Pings are answered on the way; every call raises Gone when the other end has left."""

    def __init__(self, sock: socket.socket, reader: Reader) -> None:
        self._sock = sock
        self._reader = reader

    def message(self) -> Message:
        """Wait for the next message; the one before must have ended."""
        opcode, final, length, mask = self.frame()
        if opcode not in (TEXT, BINARY):
            raise ProtocolError("a message begins with a continuation")
        return Message(self, self._reader, final, length, mask)

    def frame(self) -> tuple[int, bool, int, bytes]:
        """Return the next data frame's opcode, whether it is its message's last, its length and its mask."""
        while True:
            first, second = self._reader.exactly(2)
            opcode, final, length = first & _OPCODE, bool(first & _FINAL), second & _LENGTH
            if first & _RESERVED or opcode not in _OPCODES:
                raise ProtocolError("a frame uses what was not agreed upon")
            if not second & _MASKED:
                raise ProtocolError("a frame is not masked")
            if opcode <= BINARY:
                more = 0 if length < _SHORT else 2 if length == _SHORT else 8
                rest = self._reader.exactly(more + len(_NO_MASK))
                return opcode, final, int.from_bytes(rest[:more], "big") if more else length, rest[more:]
            if length > _MAX_CONTROL or not final:
                raise ProtocolError("a control frame is too long")
            mask = self._reader.exactly(4)
            self._control(opcode, unmasked(self._reader.exactly(length), mask))

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        """Send one frame."""
        size = len(payload)
        first = opcode | (_FINAL if final else 0)
        if size < _SHORT:
            head = bytes((first, size))
        elif size <= 0xFFFF:  # noqa: PLR2004 - what two bytes hold
            head = struct.pack("!BBH", first, _SHORT, size)
        else:
            head = struct.pack("!BBQ", first, _LONG, size)
        send_all(self._sock, head, payload)

    def close(self, code: int, reason: str = "") -> None:
        """Say good-bye; nothing can be sent afterwards."""
        words = reason.encode(errors="replace")[: _MAX_CONTROL - 2].decode(errors="ignore").encode()
        self.send(CLOSE, code.to_bytes(2, "big") + words)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(PONG, payload)
        elif opcode == CLOSE:
            self.send(CLOSE, payload[:2])
            raise Gone


class Message:
    """One message on its way here, an `Input`. `size` is known where it came in one frame."""

    __slots__ = ("_final", "_left", "_mask", "_reader", "_socket", "broken", "ended", "size")

    def __init__(self, websocket: WebSocket, reader: Reader, final: bool, length: int, mask: bytes) -> None:
        self.size = length if final else None
        self.broken = False
        self.ended = False
        self._socket = websocket
        self._reader = reader
        self._final = final
        self._left = length
        self._mask = mask

    @property
    def in_hand(self) -> bool:
        """Whether all of it has come already."""
        return self._final and self._reader.holds(self._left)

    def read(self) -> bytes:
        """Return the rest."""
        if not self._final:
            return b"".join(self)
        self.broken = True  # unless what follows gets to its end
        data = unmasked(self._reader.exactly(self._left), self._mask)
        self._left = 0
        self.ended, self.broken = True, False
        return data

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._piece():
            yield piece

    def drain(self) -> None:
        """Read the rest for nothing."""
        while self._piece():
            pass

    def _piece(self) -> bytes:
        try:
            while not self._left:
                if self._final:
                    self.ended = True
                    return b""
                self._next_frame()
            piece = self._reader.some(min(self._left, PIECE))
        except (Gone, ProtocolError):
            self.broken = True
            raise
        self._left -= len(piece)
        data = unmasked(piece, self._mask)
        turn = len(piece) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return data

    def _next_frame(self) -> None:
        opcode, self._final, self._left, self._mask = self._socket.frame()
        if opcode != CONTINUATION:
            raise ProtocolError("a message begins within another")
