"""Pages of an ordered index: rolled up at a delimiter by seeking past each common prefix, not through its keys.

It knows nothing of SQL or folders: `seek(key, id)` gives the rows from there on, each starting with its key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from transom.target.store.rules import after_prefix, common_prefix

Row = tuple[Any, ...]
Seek = Callable[[bytes, str], Iterator[Row]]
Position = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class Page:
    """What to list: `after` is a key and an id, `several` tells that a key has several rows, told apart by id."""

    prefix: bytes
    delimiter: bytes
    after: Position
    limit: int
    several: bool = False

    def begin(self) -> Position | None:
        """The first place that may be listed; None when there is none."""
        key, id_ = self.after
        if not key or key < self.prefix:
            return self.prefix, ""
        rolled = common_prefix(key, self.prefix, self.delimiter)
        if rolled is not None:
            return _past(rolled)
        return (key, id_ + "\0") if self.several and id_ else (key + b"\0", "")


def roll_up(seek: Seek, page: Page) -> tuple[list[Row | bytes], Position | None]:
    """One page of rows and common prefixes (as bytes), in order, and where the next one goes on, if there is one."""
    return cut(_walk(seek, page), page)


def cut(entries: Iterator[Row | bytes], page: Page) -> tuple[list[Row | bytes], Position | None]:
    """The first `limit` of the entries, and the last one's position when there are more."""
    taken = list(itertools.islice(entries, max(page.limit, 0)))
    if not taken or next(entries, None) is None:
        return taken, None
    last = taken[-1]
    return taken, (last, "") if isinstance(last, bytes) else (last[0], last[1] if page.several else "")


def _walk(seek: Seek, page: Page) -> Iterator[Row | bytes]:
    following = page.begin()
    while following is not None:
        key, id_ = following
        following = None
        for row in seek(key, id_):
            key = row[0]
            if not key.startswith(page.prefix):
                return
            rolled = common_prefix(key, page.prefix, page.delimiter)
            if rolled is not None:
                yield rolled
                following = _past(rolled)
                break
            yield row


def _past(prefix: bytes) -> Position | None:
    end = after_prefix(prefix)
    return None if end is None else (end, "")
