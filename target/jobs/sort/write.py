"""Writes one shard: its members read where they are, in few long reads, and streamed to the store in constant memory.

A shard that is there already, made of the same, is left alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transom.plugins.contract import Reject
from transom.target.errors import NoSuchBucket, NoSuchKey, TargetError
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.site import Site
from transom.target.jobs.sort.archive import end_mark
from transom.target.jobs.sort.opened import Sources
from transom.target.jobs.sort.packing import packed
from transom.target.jobs.sort.scan import unpacking
from transom.target.jobs.sort.sources import Piece, SourceObject
from transom.target.jobs.sort.spill import Spill
from transom.target.jobs.truth import RESULT, SHARD, place_of, up_to_date
from transom.target.store.base import Attributes

_FORMAT = b"transom shard 1\n"  # changed with what `archive` and `packing` make of the same members
CONTENT_TYPE = "application/x-tar"


class Members(Protocol):
    """What a shard is made of."""

    def pieces(self) -> Iterator[Piece]:
        """Yield the members in order; may be asked for more than once."""

    def source(self, n: int) -> SourceObject:
        """Return source number `n`."""

    def close(self) -> None:
        """Let go of what is held."""


class Contents(Protocol):
    """How a task gets at its shard's members, wherever it is done; can be pickled."""

    def open(self) -> Members:
        """Open them, in the worker; blocking."""


@dataclass(frozen=True, slots=True)
class Spilled:
    """Shard number `shard` in a spill that the worker can open."""

    folder: Path
    shard: int

    def open(self) -> Members:
        """Open the spill."""
        return _OfSpill(Spill.open(self.folder), self.shard)


@dataclass(frozen=True, slots=True)
class _OfSpill:
    spill: Spill
    shard: int

    def pieces(self) -> Iterator[Piece]:
        return self.spill.pieces(self.shard)

    def source(self, n: int) -> SourceObject:
        return self.spill.source(n)

    def close(self) -> None:
        self.spill.close()


@dataclass(frozen=True, slots=True)
class Carried:
    """A shard's members themselves, for a worker on another machine: some 100 bytes for each."""

    members: tuple[Piece, ...]
    sources: Mapping[int, SourceObject]

    def open(self) -> Members:
        """Return itself."""
        return self

    def pieces(self) -> Iterator[Piece]:
        """Yield the members in order."""
        return iter(self.members)

    def source(self, n: int) -> SourceObject:
        """Return source number `n`."""
        return self.sources[n]

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """An item of the worklist that is a shard; its size is what its members take of it."""

    item: Item
    contents: Contents
    place: str = ""


@dataclass(frozen=True, slots=True)
class Wrote:
    """What became of a shard."""

    outcome: Outcome
    worn_out: bool = False


@dataclass(frozen=True, slots=True)
class WriteWork:
    """Writes shards into `bucket` with `metadata` beside what names their contents; `force` has them written anew.

    With `dry` nothing is written.
    """

    bucket: str
    owner: str
    metadata: Mapping[str, str]
    force: bool
    unpacked: Path | None
    dry: bool = False

    def __call__(self, site: Site, task: ShardTask, /) -> Wrote:
        """Write a shard, or see that it is there; what goes wrong is its outcome."""
        try:
            with closing(task.contents.open()) as members:
                return Wrote(self._written(site, task, members))
        except Reject as error:
            return Wrote(Outcome(task.item.n, "failed", code="DamagedArchive", message=str(error)))
        except TargetError as error:
            return Wrote(Outcome(task.item.n, "failed", code=type(error).__name__, message=error.message))
        except OSError as error:
            return Wrote(Outcome(task.item.n, "failed", code=type(error).__name__, message=str(error)))

    def _written(self, site: Site, task: ShardTask, members: Members) -> Outcome:
        result = digest(members)
        if not self.force and site.wait(self._is_there(site, task.item.destination, result)):
            return Outcome(task.item.n, "unchanged")
        if self.dry:
            size = task.item.size + len(end_mark(task.item.size))
            return Outcome(task.item.n, "written", bytes_in=task.item.size, bytes_out=size)
        with unpacking(self.unpacked, site) as unpacked:
            sources = Sources(site.store, unpacked)
            try:
                size = site.wait(self._put(site, task, members, sources, result))
            finally:
                sources.close()
        return Outcome(task.item.n, "written", bytes_in=task.item.size, bytes_out=size)

    async def _is_there(self, site: Site, key: str, result: str) -> bool:
        try:
            return up_to_date(await site.store.head(self.bucket, key), result)
        except (NoSuchKey, NoSuchBucket):  # a bucket that a dry run does not make
            return False

    async def _put(self, site: Site, task: ShardTask, members: Members, sources: Sources, result: str) -> int:
        attributes = Attributes(
            content={"content-type": CONTENT_TYPE},
            metadata={**self.metadata, RESULT: result, SHARD: place_of(self.bucket, task.item.destination)},
            owner=self.owner,
        )
        async with aclosing(_ahead(packed(members.pieces(), members.source, sources))) as body:
            stored = await site.store.put(self.bucket, task.item.destination, _ended(body, task.item.size), attributes)
        return stored.size


def digest(members: Members) -> str:
    """Name a shard's bytes by what they are made of: every member, where it is in which version of which object."""
    named = hashlib.blake2b(_FORMAT, digest_size=16)
    numbers: dict[int, int] = {}
    for piece in members.pieces():
        at = numbers.get(piece.source)
        if at is None:
            at = numbers[piece.source] = len(numbers)
            source = members.source(piece.source)
            text = f"{len(source.bucket)} {len(source.key)} {source.bucket}{source.key} {source.etag}\n"
            named.update(text.encode("utf-8", "surrogatepass"))
        named.update(b"%d %d %d %d " % (at, piece.offset, piece.size, len(piece.name)) + piece.name)
    return named.hexdigest()


async def _ahead(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Have the next of `body` made while what came before is being written."""
    coming = asyncio.ensure_future(anext(body, None))
    try:
        while (chunk := await coming) is not None:
            coming = asyncio.ensure_future(anext(body, None))
            yield chunk
    finally:
        coming.cancel()
        await asyncio.wait([coming])
        await body.aclose()


async def _ended(body: AsyncIterator[bytes], stored: int) -> AsyncIterator[bytes]:
    """Yield the members, which take `stored` bytes, and the end mark. Raises Reject if they are of another size."""
    size = 0
    async for chunk in body:
        size += len(chunk)
        yield chunk
    if size != stored:
        raise Reject(f"the shard's members took {size} bytes, not {stored} as planned: sort again")
    yield end_mark(stored)
