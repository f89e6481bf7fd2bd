"""Paging through a view that renames keys, against what a read of each key finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hypothesis import example, given
from hypothesis import strategies as st

from transom.gateway.renaming import Renaming, Window, renamed_page
from transom.target.errors import NoSuchKey
from transom.target.store.base import Attributes
from transom.target.store.memory import MemoryStore

# few letters, so that names collide, nest and lie on both sides of '.' and '/'
EXTENSIONS = ["a", "m", "z", "ab", "-", "é"]
KEYS = st.text(st.sampled_from("a.m/z-é"), min_size=1, max_size=7)
NAMES = KEYS | st.builds("{}.{}".format, st.text(st.sampled_from("a./-"), max_size=4), st.sampled_from(EXTENSIONS))
DELIMITERS = st.sampled_from(["", "/", ".", "a", "z", "/a", "a/", "é", ".m"])


@st.composite
def renamings(draw: st.DrawFn) -> Renaming:
    stored = draw(st.lists(st.sampled_from(EXTENSIONS), min_size=1, max_size=4, unique=True))
    listed = draw(st.lists(st.sampled_from(EXTENSIONS), min_size=len(stored), max_size=len(stored), unique=True))
    return Renaming(tuple(zip(stored, listed, strict=True)))


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def store_of(keys: set[str]) -> MemoryStore:
    store = MemoryStore()
    await store.create_bucket("b", owner="o")
    for key in keys:
        await store.put("b", key, nothing(), Attributes())
    return store


async def found(store: MemoryStore, renaming: Renaming, key: str) -> str | None:
    """The key of the object that a read of a listed key finds."""
    for candidate in renaming.sources(key):
        try:
            return (await store.head("b", candidate)).key
        except NoSuchKey:
            continue
    return None


def rolled(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that a key is listed as."""
    at = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if at < 0 else key[: at + len(delimiter)]


async def expected(store: MemoryStore, renaming: Renaming, keys: set[str], window: Window) -> list[tuple[str, bool]]:
    """All that can be read, by trying every key there could be; True for a key, False for a common prefix."""
    endings = [pair[1] for pair in renaming.pairs]
    tried = keys | {f"{key.rpartition('.')[0]}.{ending}" for key in keys if "." in key for ending in endings}
    lines = set()
    for key in tried:
        if not key.startswith(window.prefix) or await found(store, renaming, key) is None:
            continue
        line = rolled(key, window.prefix, window.delimiter)
        if line is None and key > window.after:
            lines.add((key, True))
        if line is not None and line > window.after and not window.after.startswith(line):
            lines.add((line, False))
    return sorted(lines)


@given(
    renamings(), st.sets(NAMES, max_size=12), NAMES | st.just(""), DELIMITERS, NAMES | st.just(""), st.integers(1, 5)
)
@example(Renaming((("a", "z"),)), {"m.a", "m.z", "m.m"}, "", "", "", 1)
@example(Renaming((("z", "a"),)), {"m.z", "m.a", "m.m", "m.m.z"}, "", "", "", 1)
@example(Renaming((("a", "z"), ("z", "a"))), {"m.a", "m.z"}, "m.z", "", "m.a", 1)
def test_pages_hold_every_readable_key_once_in_order_with_the_object_a_read_finds(
    renaming: Renaming, keys: set[str], prefix: str, delimiter: str, after: str, limit: int
) -> None:
    async def check() -> None:
        store = await store_of(keys)
        wanted = await expected(store, renaming, keys, Window(prefix, delimiter, after, limit))
        lines: list[tuple[str, bool]] = []
        place: str | None = after
        while place is not None:
            entries, place = await renamed_page(store, "b", renaming, Window(prefix, delimiter, place, limit))
            assert len(entries) <= limit
            assert place is None or len(entries) == limit
            lines += [(entry.shown, entry.source is not None) for entry in entries]
            for entry in entries:
                if entry.source is not None:
                    assert entry.source.key == await found(store, renaming, entry.shown)
        assert lines == wanted

    asyncio.run(check())


@given(renamings(), st.sets(NAMES, max_size=12))
def test_every_stored_key_is_listed_or_hidden_by_one_that_is_listed_so(renaming: Renaming, keys: set[str]) -> None:
    async def check() -> None:
        store = await store_of(keys)
        entries, _ = await renamed_page(store, "b", renaming, Window("", "", "", 100))
        assert {entry.shown for entry in entries} == {renaming.listed(key) for key in keys}

    asyncio.run(check())
