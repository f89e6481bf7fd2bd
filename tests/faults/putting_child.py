"""A process that stores objects until it is killed, saying on stdout what it began and what was acknowledged."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

from transom.target.store.base import Attributes, ObjectInfo, Whole
from transom.target.store.local import LocalStore

CONCURRENCY = 200
TOGETHER = 4
SIZES = (0, 10, 4_096, 70_000, 300_000, 1_500_000)


def body_for(key: str) -> bytes:
    """The bytes of a key: anyone can work out what it must read back as."""
    seed = hashlib.sha256(key.encode()).digest()
    return (seed * (SIZES[seed[0] % len(SIZES)] // 32 + 1))[: SIZES[seed[0] % len(SIZES)]]


async def chunked(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65_536):
        yield data[at : at + 65_536]
        await asyncio.sleep(0)


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


async def put_whole(store: LocalStore, key: str) -> None:
    await store.put("b", key, chunked(body_for(key)), Attributes())


async def put_in_parts(store: LocalStore, key: str) -> None:
    upload = await store.create_upload("b", key, Attributes())
    data = body_for(key)
    named = []
    for number, at in enumerate(range(0, max(len(data), 1), 500_000), start=1):
        part = await store.put_part("b", key, upload.upload_id, number, chunked(data[at : at + 500_000]))
        named.append((number, part.etag))
    await store.complete_upload("b", key, upload.upload_id, named)


async def put_together(store: LocalStore, name: str, number: int) -> None:
    keys = [f"{name}/{number}-{each}" for each in range(TOGETHER)]
    for key in keys:
        say("began", key)
    for info in await store.put_many("b", [Whole(key, body_for(key), Attributes()) for key in keys]):
        assert isinstance(info, ObjectInfo), info
        say("stored", info.key)


async def put_for_ever(store: LocalStore, name: str, numbers: count[int]) -> None:
    for number in numbers:
        key = f"{name}/{number}"
        say("began", key)
        await (put_in_parts if number % 5 == 0 else put_whole)(store, key)
        say("stored", key)
        if number % 3 == 0:
            await put_together(store, name, number)
        if number % 7 == 0:
            say("deleting", key)
            await store.delete("b", key)
            say("deleted", key)


async def main(root: Path, name: str) -> None:
    store = LocalStore.at(root, threads=8, min_part_size=1)
    numbers = count()
    await asyncio.gather(*(put_for_ever(store, name, numbers) for _ in range(CONCURRENCY)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
