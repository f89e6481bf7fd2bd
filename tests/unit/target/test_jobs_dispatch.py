from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.jobs.dispatch import Dispatch
from transom.target.jobs.engines.base import Finished
from transom.target.jobs.perform import Batch, Done
from transom.target.jobs.records import Outcome, Selected
from transom.target.jobs.worklist import Worklist

MIB = 1024**2


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    with Worklist.open(tmp_path) as worklist:
        yield worklist


def fill(worklist: Worklist, count: int, size: int = 10) -> None:
    worklist.add(Selected(f"k{n}", size, "e", f"d{n}") for n in range(1, count + 1))


def numbers(batch: Batch) -> list[int]:
    return [item.n for item in batch.items]


def written(batch: Batch) -> Finished[Batch, Done]:
    return Finished(batch, Done(tuple(Outcome(item.n, "written") for item in batch.items)))


def lost(batch: Batch) -> Finished[Batch, Done]:
    return Finished(batch, None, lost="signal 9")


def test_every_object_is_given_out_once_in_order_and_in_growing_batches(worklist: Worklist) -> None:
    fill(worklist, 5000)
    dispatch = Dispatch(worklist, 5000, 2)
    given: list[int] = []
    sizes = []
    for batch in dispatch:
        given += numbers(batch)
        sizes.append(len(batch.items))
        assert len(dispatch.take(written(batch))) == len(batch.items)
    assert given == list(range(1, 5001))
    assert sizes[0] == 8
    assert max(sizes) == 128
    assert sizes[-1] == 1  # towards the end nobody has much left while others wait
    assert next(dispatch, None) is None


def test_a_batch_has_few_large_objects(worklist: Worklist) -> None:
    fill(worklist, 100, 5 * MIB)
    assert len(next(Dispatch(worklist, 100, 1)).items) == 3
    fill_one = Dispatch(worklist, 100, 1)
    assert sum(item.size for item in next(fill_one).items) <= 16 * MIB


def test_an_object_of_any_size_is_a_batch_of_its_own_at_least(worklist: Worklist) -> None:
    fill(worklist, 4, 100 * MIB)
    dispatch = Dispatch(worklist, 4, 1)
    assert [numbers(batch) for batch in dispatch] == [[1], [2], [3], [4]]


def test_what_came_back_unfinished_is_given_out_again_even_after_the_end(worklist: Worklist) -> None:
    fill(worklist, 3)
    dispatch = Dispatch(worklist, 1000, 1)
    batch = next(dispatch)
    assert next(dispatch, None) is None
    done = Done((Outcome(1, "failed", code="EtlTimeout"),), unfinished=batch.items[1:], worn_out=True)
    assert [outcome.n for outcome in dispatch.take(Finished(batch, done))] == [1]
    again = [next(dispatch)]
    again += list(dispatch)
    assert [n for each in again for n in numbers(each)] == [2, 3]


def test_what_came_back_unfinished_is_given_out_with_the_next_ones(worklist: Worklist) -> None:
    fill(worklist, 100)
    dispatch = Dispatch(worklist, 100, 1)
    batch = next(dispatch)
    done = Done(tuple(Outcome(item.n, "written") for item in batch.items[:5]), unfinished=batch.items[5:])
    dispatch.take(Finished(batch, done))
    assert numbers(next(dispatch))[:4] == [6, 7, 8, 9]


def test_batches_are_as_large_as_half_a_second_allows(worklist: Worklist) -> None:
    fill(worklist, 5000)
    dispatch = Dispatch(worklist, 5000, 2)
    for _ in range(5):
        batch = next(dispatch)
        outcomes = tuple(Outcome(item.n, "written") for item in batch.items)
        dispatch.take(Finished(batch, Done(outcomes, took_s=len(outcomes) / 50)))
    assert len(next(dispatch).items) == 25


def test_the_objects_of_a_lost_batch_are_tried_alone_and_the_one_to_blame_fails(worklist: Worklist) -> None:
    fill(worklist, 3)
    dispatch = Dispatch(worklist, 1000, 1, stage_of=lambda n: f"stage of {n}")
    assert dispatch.take(lost(next(dispatch))) == []
    outcomes: list[Outcome] = []
    for batch in dispatch:
        assert (len(batch.items), batch.alone) == (1, True)
        outcomes += dispatch.take(lost(batch) if batch.items[0].n == 2 else written(batch))
    assert {outcome.n: outcome.state for outcome in outcomes} == {1: "written", 2: "failed", 3: "written"}
    (failed,) = (outcome for outcome in outcomes if outcome.state == "failed")
    assert (failed.stage, failed.code) == ("stage of 2", "EtlCrashed")
    assert "signal 9" in failed.message


def test_a_batch_is_of_one_place_and_places_take_turns(worklist: Worklist) -> None:
    fill(worklist, 100)
    dispatch = Dispatch(worklist, 100, 1, lambda key: "odd" if int(key[1:]) % 2 else "even")
    batches = list(dispatch)
    assert all({item.n % 2 for item in batch.items} == {int(batch.place == "odd")} for batch in batches)
    assert {batch.place for batch in batches[:2]} == {"odd", "even"}
    assert sorted(n for batch in batches for n in numbers(batch)) == list(range(1, 101))


def test_only_what_is_pending_is_given_out(worklist: Worklist) -> None:
    fill(worklist, 10)
    worklist.note(Outcome(n, "written") for n in range(1, 9))
    assert [n for batch in Dispatch(worklist, 2, 1) for n in numbers(batch)] == [9, 10]


# --- suspects ---------------------------------------------------------------------------------


def suspected(batch: Batch) -> Finished[Batch, Done]:
    """Every object of the batch failed with a worker that others shared."""
    outcomes = tuple(Outcome(item.n, "failed", stage="a", code="EtlCrashed") for item in batch.items)
    return Finished(batch, Done((), suspects=outcomes))


def failing(batch: Batch) -> Finished[Batch, Done]:
    return Finished(batch, Done(tuple(Outcome(item.n, "failed", code="EtlCrashed") for item in batch.items)))


def test_suspects_are_tried_at_the_end_with_nothing_beside_them(worklist: Worklist) -> None:
    fill(worklist, 3)
    dispatch = Dispatch(worklist, 3, 3)
    first, second, third = (next(dispatch) for _ in range(3))
    assert not dispatch.take(suspected(first))
    assert not dispatch.take(suspected(second))
    with pytest.raises(StopIteration):
        next(dispatch)  # the third is under way
    assert [each.n for each in dispatch.take(written(third))] == [3]
    alone = next(dispatch)
    assert (numbers(alone), alone.alone) == ([1], True)
    with pytest.raises(StopIteration):
        next(dispatch)
    assert [each.state for each in dispatch.take(written(alone))] == ["written"]
    assert [each.state for each in dispatch.take(failing(next(dispatch)))] == ["failed"]
    with pytest.raises(StopIteration):
        next(dispatch)


def test_where_one_suspect_after_the_other_fails_alone_too_the_rest_has_failed(worklist: Worklist) -> None:
    fill(worklist, 40)
    dispatch = Dispatch(worklist, 40, 1)
    for batch in dispatch:
        if batch.alone:
            break
        assert not dispatch.take(suspected(batch))
    outcomes, items = list(dispatch.take(failing(batch))), [*batch.items]
    for tried in range(1, 5):
        assert len(outcomes) == tried
        batch = next(dispatch)
        outcomes += dispatch.take(failing(batch))
        items += [*batch.items, *dispatch.convicted]
    assert sorted(each.n for each in outcomes) == sorted(item.n for item in items) == list(range(1, 41))
    with pytest.raises(StopIteration):
        next(dispatch)


def test_objects_that_fail_alone_for_other_reasons_convict_no_suspect(worklist: Worklist) -> None:
    fill(worklist, 20)
    dispatch = Dispatch(worklist, 20, 1)
    first = next(dispatch)
    assert not dispatch.take(lost(first))  # each is tried alone then, and fails of itself
    failed = [dispatch.take(failing(next(dispatch))) for _ in first.items]
    assert [len(each) for each in failed] == [1] * len(first.items) and len(failed) > 5
    second = next(dispatch)
    assert not dispatch.take(suspected(second))
    while (batch := next(dispatch)).items[0].n not in numbers(second):
        dispatch.take(written(batch))
    for _ in range(4):  # not even suspects do, that fail otherwise
        rejected = tuple(Outcome(item.n, "failed", code="EtlInputRejected") for item in batch.items)
        assert len(dispatch.take(Finished(batch, Done(rejected)))) == 1
        batch = next(dispatch, batch)
    assert not dispatch.convicted
