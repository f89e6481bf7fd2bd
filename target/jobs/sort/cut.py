"""Where a row of records is cut into shards. Pure: sizes in, shard numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transom.target.jobs.order import Sorting


def cut(sizes: Iterable[int], sorting: Sorting, records: int, total: int) -> Iterator[int]:
    """Yield for each record, of `records` with `total` bytes, the number of its shard: 0, 1, 2 and so on."""
    if sorting.shard_size is not None:
        return _by_size(sizes, sorting.shard_size)
    if sorting.shard_records is not None:
        per_shard = sorting.shard_records
        return (n // per_shard for n, _ in enumerate(sizes))
    assert sorting.shard_count is not None
    return _by_count(sizes, sorting.shard_count, records, total)


def _by_size(sizes: Iterable[int], most: int) -> Iterator[int]:
    """Fill each shard up to `most` bytes; only a record that is longer alone has a longer shard, of its own."""
    shard, held = 0, 0
    for size in sizes:
        if held and held + size > most:
            shard, held = shard + 1, 0
        held += size
        yield shard


def _by_count(sizes: Iterable[int], shards: int, records: int, total: int) -> Iterator[int]:
    """Cut where so many equal shares of the bytes end, to the nearest record; no shard is empty unless records lack."""
    shard, begun, before = 0, 0, 0
    for n, size in enumerate(sizes):
        more = shards - shard - 1
        nearer_next = (2 * before + size) * shards > 2 * total * (shard + 1)
        if more and n > begun and (nearer_next or records - n <= more):
            shard, begun = shard + 1, n
        before += size
        yield shard
