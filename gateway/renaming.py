"""Keys of a view that lists some extensions under others: the renaming both ways, and exact pages in the listed order.

It knows stores and keys; nothing of ETLs, of results, or of who asks.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterator, Set
from dataclasses import dataclass

from transom.target.errors import NoSuchKey
from transom.target.store.base import ObjectInfo, Store

_FLAT_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Renaming:
    """Which extension is listed as which, in pairs (stored, listed): none twice on a side, none with '.' or '/'."""

    pairs: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def listed(self, key: str) -> str:
        """The key that a stored key is listed under."""
        stem, dot, extension = key.rpartition(".")
        for stored, shown in self.pairs:
            if dot and extension == stored:
                return f"{stem}.{shown}"
        return key

    def sources(self, key: str) -> Iterator[str]:
        """The stored keys that a listed one may stand for: the first that exists is the one it does stand for."""
        stem, dot, extension = key.rpartition(".")
        for stored, shown in self.pairs:
            if dot and extension == shown:
                yield f"{stem}.{stored}"
        if self.listed(key) == key:
            yield key


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing: a key and the object it stands for, or a common prefix and None."""

    shown: str
    source: ObjectInfo | None


@dataclass(frozen=True, slots=True)
class Window:
    """What to list. `prefix` and `after` are meant as listed: stored keys and places are never told to clients."""

    prefix: str
    delimiter: str
    after: str
    limit: int


async def renamed_page(store: Store, bucket: str, renaming: Renaming, window: Window) -> tuple[list[Entry], str | None]:
    """One page in the order of listed keys, and where the next one goes on, None at the end.

    Every listed key comes once, with the object that a read of it finds.
    """
    entries: list[Entry] = []
    async for entry in _rolled_up(_Walk(store, bucket, renaming, window).entries(), window):
        if len(entries) == window.limit:
            return entries, entries[-1].shown
        entries.append(entry)
    return entries, None


async def _rolled_up(entries: AsyncIterator[Entry], window: Window) -> AsyncIterator[Entry]:
    last = ""
    async for entry in entries:
        at = entry.shown.find(window.delimiter, len(window.prefix)) if window.delimiter else -1
        if at < 0:
            yield entry
            continue
        prefix = entry.shown[: at + len(window.delimiter)]
        if prefix != last and not window.after.startswith(prefix):
            yield Entry(prefix, None)
        last = prefix


class _Walk:
    """All listed keys of a window in order, from one pass over the stored keys, which come in another order.

    A stored key and the one it is listed under differ after their last dot only, so whatever lies between the two
    begins with their common stem and its dot. A key that is listed later than it is stored waits for its turn. One
    that is listed earlier is looked up as soon as anything with its stem is met; likewise one that the pass would
    not meet, because it is stored before the place to begin at or outside the prefix. So little ever waits: the
    stems of one key.
    """

    def __init__(self, store: Store, bucket: str, renaming: Renaming, window: Window) -> None:
        self._store = store
        self._bucket = bucket
        self._renaming = renaming
        self._window = window
        self._order: list[str] = []
        self._waiting: dict[str, ObjectInfo | None] = {}

    async def entries(self) -> AsyncIterator[Entry]:
        """Keys, and the common prefixes that the store rolled up, in order."""
        met = {*_stems(self._window.prefix), *_stems(self._window.after)}
        await self._look_up(met)
        async for key, info in self._stored():
            stems = set(_stems(key))
            await self._look_up(stems - met, info)
            met = stems
            shown = key if info is None else self._renaming.listed(key)
            if shown >= key and shown.startswith(self._window.prefix):
                self._wait(shown, info, renamed=shown != key)
            while self._order and self._order[0] <= key:
                yield self._next()
        while self._order:
            yield self._next()

    async def _stored(self) -> AsyncIterator[tuple[str, ObjectInfo | None]]:
        window = self._window
        # a delimiter that ends in '/' never reaches into an extension, so the store can roll up for us
        delimiter = window.delimiter if window.delimiter.endswith("/") else ""
        limit = window.limit + 1 if delimiter == window.delimiter else _FLAT_PAGE
        after: str | None = window.after
        while after is not None:
            page = await self._store.list_objects(
                self._bucket, prefix=window.prefix, delimiter=delimiter, after=after, limit=limit
            )
            rows: list[tuple[str, ObjectInfo | None]] = [(info.key, info) for info in page.objects]
            rows += [(prefix, None) for prefix in page.prefixes]
            for row in sorted(rows, key=lambda row: row[0]):
                yield row
            after = page.next_after

    async def _look_up(self, stems: Set[str], met: ObjectInfo | None = None) -> None:
        """Let wait what is stored under the stems and the pass would meet too late or not at all; `met` it just met."""
        window = self._window
        for stem in stems:
            for stored, listed in self._renaming.pairs:
                key, shown = f"{stem}.{stored}", f"{stem}.{listed}"
                if shown <= window.after or not shown.startswith(window.prefix):
                    continue
                if shown < key or key <= window.after or not key.startswith(window.prefix):
                    info = met if met is not None and met.key == key else await self._head(key)
                    if info is not None:
                        self._wait(shown, info, renamed=True)

    async def _head(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(self._bucket, key)
        except NoSuchKey:
            return None

    def _wait(self, shown: str, info: ObjectInfo | None, *, renamed: bool) -> None:
        if shown not in self._waiting:
            heapq.heappush(self._order, shown)
            self._waiting[shown] = info
        elif renamed:  # a read finds it before a key that is stored under the very name
            self._waiting[shown] = info

    def _next(self) -> Entry:
        shown = heapq.heappop(self._order)
        return Entry(shown, self._waiting.pop(shown))


def _stems(key: str) -> Iterator[str]:
    """What stands before each dot."""
    at = key.find(".")
    while at >= 0:
        yield key[:at]
        at = key.find(".", at + 1)
