"""Batches are of one place each, so that an engine can do them near the target that owns their objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from transom.target.jobs.dispatch import Dispatch
from transom.target.jobs.engines.base import Finished
from transom.target.jobs.perform import Batch, Done
from transom.target.jobs.records import Outcome
from transom.target.jobs.worklist import Selected, Worklist

KEYS = [f"{n:03}" for n in range(100)]


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    with closing(Worklist.open(tmp_path)) as worklist:
        worklist.add(Selected(key, 1, "etag", key) for key in KEYS)
        worklist.seal()
        yield worklist


def place_of(key: str) -> str:
    return f"t{int(key) % 3}"


def done(batch: Batch, unfinished: int = 0) -> Finished[Batch, Done]:
    kept = len(batch.items) - unfinished
    outcomes = tuple(Outcome(item.n, "written") for item in batch.items[:kept])
    return Finished(batch, Done(outcomes, batch.items[kept:]))


def test_a_batch_is_of_one_place_and_places_take_turns(worklist: Worklist) -> None:
    dispatch = Dispatch(worklist, len(KEYS), 2, place_of)
    batches = []
    for batch in dispatch:
        batches.append(batch)
        dispatch.take(done(batch))
    assert sorted(item.key for batch in batches for item in batch.items) == KEYS
    assert all(place_of(item.key) == batch.place for batch in batches for item in batch.items)
    assert [batch.place for batch in batches[:6]] == ["t0", "t1", "t2"] * 2


def test_what_comes_back_keeps_its_place(worklist: Worklist) -> None:
    dispatch = Dispatch(worklist, len(KEYS), 2, place_of)
    first, second = islice(dispatch, 2)
    dispatch.take(done(first, unfinished=2))
    dispatch.take(Finished(second, None, lost="signal 9"))
    alone, *others = dispatch
    assert (alone.items, alone.place) == (second.items[:1], second.place)
    (again,) = (batch for batch in others if first.items[-1] in batch.items)
    assert again.items[:2] == first.items[-2:]
    assert again.place == first.place


def test_without_places_batches_are_in_order(worklist: Worklist) -> None:
    batches = list(Dispatch(worklist, len(KEYS), 2))
    assert [item.key for batch in batches for item in batch.items] == KEYS
    assert {batch.place for batch in batches} == {""}
