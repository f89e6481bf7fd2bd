"""Deletes from a job's destination what was made of objects that are gone from its source.

What no job made stays, and so does what was made of another source, or of objects that the order's prefix or glob
doesn't choose.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transom.target.errors import NoSuchBucket, NoSuchKey, PreconditionFailed
from transom.target.jobs.naming import Naming
from transom.target.jobs.order import Order, Place
from transom.target.jobs.select import PAGE
from transom.target.jobs.templates import Glob
from transom.target.jobs.truth import source_of
from transom.target.jobs.worklist import Worklist
from transom.target.store.base import ObjectInfo, Store, WriteCondition

_AT_ONCE = 64


async def delete_gone(store: Store, order: Order, worklist: Worklist, tell: Callable[[int], None]) -> None:
    """Delete what the source has no object for any more; after a run without failures. `tell`s how many so far.

    An object goes if a job made it of a key of this source which the order chooses, if nothing of the worklist becomes
    it, and if that key is gone now: a source that is only left out, by a predicate or by a transformer, keeps what was
    made of it. Each is deleted as it was seen: one that was written since stays. A dry run only counts.
    """
    if order.destination is None or not await _is_there(store, order.destination.bucket):
        return
    scope = _Scope.of(order)
    deleted = 0
    after: str | None = ""
    while after is not None:
        page = await store.list_objects(order.destination.bucket, prefix=scope.folder, after=after, limit=PAGE)
        made = [(info, key) for info in page.objects if (key := scope.source_key(info)) is not None]
        candidates = [(info, key) for info, key in made if not worklist.has_destination(info.key)]
        for some in _batches(candidates):
            gone = await asyncio.gather(*(_delete_if_gone(store, order, info, key) for info, key in some))
            deleted += sum(gone)
            tell(deleted)
        after = page.next_after


@dataclass(frozen=True, slots=True)
class _Scope:
    """What an order may delete: what is under `folder` and was made of keys under `prefix` that match."""

    folder: str
    source: Place
    prefix: str
    matches: Glob | None

    @classmethod
    def of(cls, order: Order) -> _Scope:
        glob = None if order.match is None else Glob(order.match)
        return cls(Naming.of(order).folder, order.source, order.source.path + order.prefix, glob)

    def source_key(self, info: ObjectInfo) -> str | None:
        """The key of this source that an object was made of, if the order chooses it; else None."""
        source = source_of(info)
        if source is None or source[0] != self.source.bucket or not source[1].startswith(self.prefix):
            return None
        name = source[1].removeprefix(self.source.path)
        return source[1] if name and (self.matches is None or self.matches(name)) else None


async def _is_there(store: Store, bucket: str) -> bool:
    """Whether a bucket exists: a dry run makes none."""
    try:
        await store.bucket(bucket)
    except NoSuchBucket:
        return False
    return True


async def _delete_if_gone(store: Store, order: Order, info: ObjectInfo, source_key: str) -> bool:
    try:
        await store.head(order.source.bucket, source_key)
    except NoSuchKey:
        if order.dry_run:
            return True
        try:
            return await store.delete(info.bucket, info.key, condition=WriteCondition(if_match=info.etag))
        except (NoSuchKey, PreconditionFailed):
            return False
    return False


def _batches(candidates: Sequence[tuple[ObjectInfo, str]]) -> Iterator[list[tuple[ObjectInfo, str]]]:
    rest = iter(candidates)
    while batch := list(itertools.islice(rest, _AT_ONCE)):
        yield batch
