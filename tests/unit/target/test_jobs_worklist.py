from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.jobs.records import Counts, Item, JobError, Outcome, Selected
from transom.target.jobs.worklist import Collision, Worklist


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    with Worklist.open(tmp_path / "job") as worklist:
        yield worklist


def chosen(count: int, *, first: int = 0) -> list[Selected]:
    return [Selected(f"k{n}", n, f"e{n}", f"d{n}") for n in range(first, first + count)]


def test_objects_are_numbered_as_they_were_added_and_given_out_page_by_page(worklist: Worklist) -> None:
    worklist.add(chosen(5000))
    assert worklist.pending(0, 2) == [Item(1, "k0", 0, "e0", "d0"), Item(2, "k1", 1, "e1", "d1")]
    assert [item.n for item in worklist.pending(4998)] == [4999, 5000]
    assert worklist.pending(5000) == []
    assert worklist.counts() == Counts(total=5000)


def test_a_list_outlives_its_process_and_says_whether_it_is_whole(tmp_path: Path) -> None:
    with Worklist.open(tmp_path) as worklist:
        worklist.add(chosen(2))
        assert not worklist.sealed
        worklist.seal()
    with Worklist.open(tmp_path) as worklist:
        assert worklist.sealed
        worklist.clear()
        assert not worklist.sealed
        assert worklist.counts() == Counts()
        worklist.add(chosen(1))
        assert [item.n for item in worklist.pending()] == [1]


@pytest.mark.parametrize("apart", [1, 3000])
def test_two_objects_with_one_destination_are_refused_by_name(worklist: Worklist, apart: int) -> None:
    clash = [*chosen(apart), Selected("other", 1, "e", "d0")]
    with pytest.raises(Collision, match="'k0' and 'other' would both become 'd0'") as caught:
        worklist.add(clash)
    assert (caught.value.first_key, caught.value.second_key, caught.value.destination) == ("k0", "other", "d0")


def test_a_clash_with_what_was_added_before_is_found_too(worklist: Worklist) -> None:
    worklist.add(chosen(3))
    with pytest.raises(Collision, match="'k1' and 'k1'"):
        worklist.add(chosen(1, first=1))
    assert worklist.counts().total == 3


def test_objects_without_a_destination_never_clash(worklist: Worklist) -> None:
    worklist.add(Selected(f"k{n}", 1, "e", "") for n in range(3))
    assert [item.destination for item in worklist.pending()] == ["", "", ""]


def test_outcomes_are_counted_and_what_is_decided_stays(worklist: Worklist) -> None:
    worklist.add(chosen(6))
    worklist.note(
        [
            Outcome(1, "written", 10, 5),
            Outcome(2, "unchanged"),
            Outcome(3, "skipped", 7),
            Outcome(4, "failed", 3, 0, "a", "EtlFailed", "no"),
        ]
    )
    worklist.note([Outcome(1, "failed", stage="a", code="EtlCrashed", message="late")])
    worklist.deleted(2)
    counts = worklist.counts()
    assert counts == Counts(6, written=1, unchanged=1, skipped=1, failed=1, deleted=2, bytes_in=20, bytes_out=5)
    assert counts.done == 4
    assert [item.n for item in worklist.pending()] == [5, 6]


def test_no_error_is_lost(worklist: Worklist) -> None:
    worklist.add(chosen(3000))
    worklist.note(Outcome(n, "failed", stage="a", code="EtlFailed", message=f"m{n}") for n in range(1, 3001))
    errors = worklist.errors()
    assert len(errors) == 3000
    assert errors[0] == JobError("k0", "a", "EtlFailed", "m1", 1)
    assert [error.n for error in worklist.errors(2998)] == [2999, 3000]
    assert [error.n for error in worklist.errors(10, 2)] == [11, 12]


def test_an_object_can_have_failed_before_it_was_begun(worklist: Worklist) -> None:
    worklist.add([Selected("gone", 0, "", "d", "NoSuchKey", "there is none"), *chosen(1)])
    assert [item.key for item in worklist.pending()] == ["k0"]
    assert worklist.errors() == [JobError("gone", "", "NoSuchKey", "there is none", 1)]


def test_a_retry_does_the_failed_ones_and_none_else_and_is_done_once(worklist: Worklist) -> None:
    worklist.add(chosen(4))
    worklist.note([Outcome(1, "written"), Outcome(2, "failed", 3, 0, "a", "EtlFailed", "no")])
    worklist.retry_failed(1)
    assert [item.n for item in worklist.pending()] == [2]
    assert worklist.errors() == []
    worklist.note([Outcome(2, "failed", stage="a", code="EtlFailed", message="again")])
    worklist.retry_failed(1)
    assert worklist.pending() == []
    worklist.retry_failed(2)
    assert [item.n for item in worklist.pending()] == [2]
    assert worklist.counts() == Counts(4, written=1, bytes_in=0)


def test_it_knows_what_will_be_at_the_destination(worklist: Worklist) -> None:
    worklist.add(chosen(1))
    assert worklist.has_destination("d0")
    assert not worklist.has_destination("k0")
