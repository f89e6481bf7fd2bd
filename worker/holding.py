"""Holds a small result back until it is whole: it then goes out in one call, and an error is still an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator

_SIZE = 64 * 1024
_TIME_S = 0.01


def held(pieces: Iterator[bytes], in_hand: bool) -> tuple[bytes, bool]:
    """Return the first of a result, and whether that is all of it.

    Only the first piece is waited for, unless the input is `in_hand`: then as much as is made within a moment. Where
    the output may depend on input that is yet to come, to hold it back could be to wait for one another.
    """
    first = next(pieces, None)
    if first is None:
        return b"", True
    parts = [first]
    size = len(first)
    end = time.monotonic() + _TIME_S
    while in_hand and size <= _SIZE and time.monotonic() < end:
        piece = next(pieces, None)
        if piece is None:
            return b"".join(parts), True
        parts.append(piece)
        size += len(piece)
    return b"".join(parts), False
