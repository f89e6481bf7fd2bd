"""A shard's bytes, member by member, out of sources that are read in long pieces, adjacent members together.

It knows nothing of where the shard goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

from transom.target.errors import SourceChanged
from transom.target.jobs.sort.archive import header, padding
from transom.target.jobs.sort.opened import Opened, Sources
from transom.target.jobs.sort.sources import Piece, SourceObject

MIB = 1024 * 1024
WINDOW_SIZE = 8 * MIB  # of members that are read together, in the order they are stored in
_LONG = 4 * MIB  # a member that is read alone, a piece at a time
_GAP, _FAR_GAP = 8 * 1024, 256 * 1024  # bytes between two members that cost less to read than to ask twice
_READ_SIZE = 4 * MIB
_SENT_SIZE = MIB
_COUNT_MAX = 20_000


@dataclass(slots=True)
class _Range:
    """Members of one source that are read in one go; of the bytes from `start` to `stop` so many are `wanted`."""

    start: int
    stop: int
    wanted: int
    members: list[int]


async def packed(
    pieces: Iterable[Piece], source_of: Callable[[int], SourceObject], sources: Sources
) -> AsyncGenerator[bytes, None]:
    """Yield members with their headers and padding, in chunks of about 1 MiB; a window or two of them are in memory.

    Raises SourceChanged where a source isn't what it was, and what opening one raises.
    """
    for window in _windows(pieces):
        if len(window) == 1 and window[0].size >= _LONG:
            async for chunk in _long(window[0], await sources.open(source_of(window[0].source))):
                yield chunk
            continue
        data: list[memoryview] = [memoryview(b"")] * len(window)
        for number, places in _by_source(window).items():
            opened = await sources.open(source_of(number))
            await asyncio.to_thread(_read, opened, places, window, data)
        for chunk in _joined(window, data):
            yield chunk


def _windows(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Put members together that are read together, in order; long ones come alone."""
    window: list[Piece] = []
    size = 0
    for piece in pieces:
        if window and (size + piece.size > WINDOW_SIZE or piece.size >= _LONG or len(window) >= _COUNT_MAX):
            yield window
            window, size = [], 0
        window.append(piece)
        size += piece.size
        if piece.size >= _LONG:
            yield window
            window, size = [], 0
    if window:
        yield window


def _by_source(window: list[Piece]) -> dict[int, list[int]]:
    """Say which of a window's members each source has, as they are stored."""
    found: dict[int, list[int]] = {}
    for at in sorted(range(len(window)), key=lambda at: (window[at].source, window[at].offset)):
        found.setdefault(window[at].source, []).append(at)
    return found


def _ranges(places: list[int], window: list[Piece], gap: int) -> Iterator[_Range]:
    """Join members that lie close together."""
    under_way: _Range | None = None
    for at in places:
        start, stop = window[at].offset, window[at].offset + window[at].size
        if under_way and start - under_way.stop <= gap and stop - under_way.start <= _READ_SIZE + _LONG:
            under_way.stop = max(stop, under_way.stop)
            under_way.wanted += stop - start
            under_way.members.append(at)
        else:
            if under_way:
                yield under_way
            under_way = _Range(start, stop, stop - start, [at])
    if under_way:
        yield under_way


def _read(opened: Opened, places: list[int], window: list[Piece], data: list[memoryview]) -> None:
    """Read members of one source; blocking."""
    for each in _ranges(places, window, _GAP if opened.near else _FAR_GAP):
        found = memoryview(_whole(opened, each.start, each.stop - each.start))
        sparse = 2 * each.wanted < len(found)  # then what is wanted is copied, and the rest not kept in memory
        for at in each.members:
            begin = window[at].offset - each.start
            part = found[begin : begin + window[at].size]
            data[at] = memoryview(bytes(part)) if sparse else part


def _joined(window: list[Piece], data: list[memoryview]) -> Iterator[bytes]:
    held: list[bytes | memoryview] = []
    size = 0
    for piece, content in zip(window, data, strict=True):
        held += (header(piece.name, piece.size), content, bytes(padding(piece.size)))
        size += piece.size
        if size >= _SENT_SIZE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _long(piece: Piece, opened: Opened) -> AsyncIterator[bytes]:
    yield header(piece.name, piece.size)
    for at in range(0, piece.size, _READ_SIZE):
        yield await asyncio.to_thread(_whole, opened, piece.offset + at, min(_READ_SIZE, piece.size - at))
    if padding(piece.size):
        yield bytes(padding(piece.size))


def _whole(opened: Opened, offset: int, length: int) -> bytes:
    """Read so many bytes. Raises SourceChanged when there are fewer."""
    data = opened.read_at(offset, length)
    if len(data) < length:
        raise SourceChanged(f"{opened.source} is shorter than it was when it was scanned; sort again.")
    return data
