"""Shards that an earlier sort of the same source made, and this one doesn't: there were more records, or other sizes.

A copy of such a shard, and what anybody else put there, is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from transom.target.errors import NoSuchBucket, NoSuchKey, PreconditionFailed
from transom.target.jobs.order import Place
from transom.target.jobs.select import PAGE
from transom.target.jobs.truth import PIPELINE, SHARD, SOURCE, place_of, source_text
from transom.target.jobs.worklist import Worklist
from transom.target.store.base import ObjectInfo, Store, WriteCondition


async def left_over(store: Store, source: Place, destination: Place, worklist: Worklist) -> Sequence[ObjectInfo]:
    """Find them; none where the bucket isn't there yet."""
    said = source_text(source.bucket, source.path)
    found: list[ObjectInfo] = []
    after: str | None = ""
    with suppress(NoSuchBucket):
        while after is not None:
            page = await store.list_objects(destination.bucket, prefix=destination.path, after=after, limit=PAGE)
            found += [info for info in page.objects if _is_of(info, said) and not worklist.has_destination(info.key)]
            after = page.next_after
    return found


async def delete(store: Store, shards: Sequence[ObjectInfo]) -> int:
    """Delete them as they were seen; return how many."""
    deleted = 0
    for info in shards:
        with suppress(NoSuchKey, PreconditionFailed):
            deleted += await store.delete(info.bucket, info.key, condition=WriteCondition(if_match=info.etag))
    return deleted


def _is_of(info: ObjectInfo, said: str) -> bool:
    metadata = info.attributes.metadata
    is_shard = metadata.get(PIPELINE) == "sort" and metadata.get(SHARD) == place_of(info.bucket, info.key)
    return is_shard and metadata.get(SOURCE) == said
