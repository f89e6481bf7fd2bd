"""WebSocket frames (RFC 6455) as a client sends and receives them. It opens and knows no connection.

By hand, since a general library copies and masks each piece several times over, in Python.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from transom.target.etl.transports.exchange import MAX_READ, READ

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_MESSAGE = 16 * 1024**3
MAX_TEXT = 64 * 1024
_FINAL = 0x80
_RESERVED = 0x70
_KIND = 0x0F
_MASKED = 0x80
_MAX_CONTROL = 125
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_HEADS = (2, 4, 10)  # the lengths of a head, by how it says the payload's
_NO_MASK = bytes(4)
_XOR = [bytes(a ^ b for a in range(256)) for b in range(256)]


class FrameError(Exception):
    """What came is no frame that a server may send; the message says why."""


class Event(NamedTuple):
    """A piece of a binary message (`last` with its end), a whole text message, or a control frame."""

    kind: int
    payload: bytes
    last: bool = True


class _Head(NamedTuple):
    kind: int
    final: bool
    length: int
    end: int


class FrameReader:
    """Takes what was received, gives events. Large binary frames pass through uncopied."""

    __slots__ = ("_buffer", "_final", "_left", "_message", "_size", "_text")

    def __init__(self) -> None:
        self._buffer = b""
        self._message = 0  # the kind of the message under way
        self._size = 0  # how much of it came, in bytes
        self._left = 0  # of the binary frame under way
        self._final = True  # whether the message ends with that frame
        self._text = b""

    @property
    def wanted(self) -> int:
        """How many bytes to ask for next: the rest of a large frame alone, so that it need not be cut out."""
        return min(self._left, MAX_READ) if self._left >= READ else READ

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        return not self._message and not self._buffer

    def feed(self, data: bytes) -> list[Event]:
        """The events among the data; raises FrameError."""
        if not self._buffer and not self._message:
            whole = _whole_message(data)
            if whole is not None:
                return [whole]
        data = self._buffer + data if self._buffer else data
        events: list[Event] = []
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                events.append(self._piece(piece))
                continue
            head = _head(data, at)
            if head is None:
                break
            if head.kind == BINARY or (head.kind == CONTINUATION and self._message == BINARY):
                self._enter(head)
                self._left, self._final = head.length, head.final
                at = head.end
                if not head.length:
                    events.append(self._piece(b""))
                continue
            if head.length > MAX_TEXT:
                raise FrameError("a text too long")
            if len(data) < head.end + head.length:
                break
            at = head.end + head.length
            events += self._whole(head, data[head.end : at])
        self._buffer = data[at:]
        return events

    def _piece(self, piece: bytes) -> Event:
        last = self._final and not self._left
        if last:
            self._message = 0
        return Event(BINARY, piece, last)

    def _whole(self, head: _Head, payload: bytes) -> list[Event]:
        if head.kind >= CLOSE:
            return [Event(head.kind, payload)]
        self._enter(head)
        self._text += payload
        if not head.final:
            return []
        text, self._text, self._message = self._text, b"", 0
        return [Event(TEXT, text)]

    def _enter(self, head: _Head) -> None:
        """Begin or continue a message."""
        if (head.kind == CONTINUATION) != bool(self._message):
            raise FrameError("a message inside another, or the rest of none")
        if head.kind != CONTINUATION:
            self._message, self._size = head.kind, 0
        self._size += head.length
        if self._size > (MAX_TEXT if self._message == TEXT else MAX_MESSAGE):
            raise FrameError("a message too long")


def frame(kind: int, payload: bytes, *, final: bool = True, masked: bool = True) -> list[bytes]:
    """A client's frame, as buffers. Without `masked` the mask is all zeros, which is one as well."""
    length = len(payload)
    first = kind | _FINAL if final else kind
    if length <= _MAX_CONTROL:
        head = struct.pack(">BB", first, _MASKED | length)
    elif length <= 0xFFFF:  # noqa: PLR2004 - what two bytes can say
        head = struct.pack(">BBH", first, _MASKED | _TWO_BYTES, length)
    else:
        head = struct.pack(">BBQ", first, _MASKED | _EIGHT_BYTES, length)
    if not masked:
        return [head + _NO_MASK, payload]
    key = os.urandom(4)
    return [head + key, _mask(payload, key)]


def close_code(payload: bytes) -> tuple[int, str]:
    """The code and the reason of a close frame; 1005 where it names none."""
    if len(payload) < 2:  # noqa: PLR2004 - a code has two bytes
        return 1005, ""
    return int.from_bytes(payload[:2]), payload[2:].decode(errors="replace")


def _whole_message(data: bytes) -> Event | None:
    """The binary message in one frame that is all there is, as most results are; else None."""
    if len(data) < _HEADS[0] or data[0] != BINARY | _FINAL:
        return None
    length, end = data[1], _HEADS[0]
    if length >= _TWO_BYTES:
        if length > _EIGHT_BYTES:
            return None
        end = _HEADS[1] if length == _TWO_BYTES else _HEADS[2]
        length = int.from_bytes(data[2:end])
    return Event(BINARY, data[end:]) if len(data) == end + length else None


def _head(data: bytes, at: int) -> _Head | None:
    """The head of the frame that begins at `at`; None while it isn't whole."""
    if len(data) < at + 2:
        return None
    first, length = data[at], data[at + 1]
    if first & _RESERVED or length & _MASKED:
        raise FrameError("a frame that no server sends")
    kind, final, end = first & _KIND, bool(first & _FINAL), at + 2
    if kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise FrameError(f"a frame of kind {kind}")
    if kind >= CLOSE and (length > _MAX_CONTROL or not final):
        raise FrameError("a control frame too long")
    if length >= _TWO_BYTES:
        layout = ">H" if length == _TWO_BYTES else ">Q"
        end += struct.calcsize(layout)
        if len(data) < end:
            return None
        (length,) = struct.unpack_from(layout, data, at + 2)
    return _Head(kind, final, length, end)


def _mask(payload: bytes, key: bytes) -> bytes:
    masked = bytearray(payload)
    for i, byte in enumerate(key):
        masked[i::4] = masked[i::4].translate(_XOR[byte])
    return bytes(masked)
