"""The result cache: what is kept, for how long, and what a generation is."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.etl import results as results_module
from transom.target.etl.results import Refusal, Result, Results, sweep


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    made = Results(tmp_path / "results", max_bytes=1000)
    yield made
    made.close()


def an_id(number: int) -> str:
    return f"{number:032x}"


def add(results: Results, number: int, size: int = 10, *, base: str = "", generation: int = 0) -> None:
    path = results.scratch(an_id(number))
    path.write_bytes(bytes([number]) * size)
    results.add(an_id(number), path, base=base or an_id(number), generation=generation, content_type="text/plain")


def test_a_result_is_there_once_it_was_added_and_gone_once_forgotten(results: Results) -> None:
    assert results.get(an_id(1)) is None
    add(results, 1)
    found = results.get(an_id(1))
    assert isinstance(found, Result)
    assert (found.size, found.content_type, found.path.read_bytes()) == (10, "text/plain", b"\1" * 10)
    results.forget(an_id(1))
    assert results.get(an_id(1)) is None and not found.path.exists()
    results.forget(an_id(1))  # it may be


def test_closing_waits_for_whoever_is_writing(tmp_path: Path) -> None:
    # SQLite takes a connection away under a statement of another thread, and the process with it
    for attempt in range(20):
        results = Results(tmp_path / str(attempt), max_bytes=1000)
        begun, ends = threading.Event(), []

        def write_on(results: Results = results, begun: threading.Event = begun, ends: list[str] = ends) -> None:
            try:
                for number in range(1, 100_000):
                    results.refuse(an_id(number), Refusal("skip", ""), 60.0)
                    begun.set()
            except sqlite3.ProgrammingError as error:
                ends.append(str(error))

        writer = threading.Thread(target=write_on)
        writer.start()
        assert begun.wait(30)
        results.close()
        writer.join(30)
        assert ends == ["Cannot operate on a closed database."]


def test_what_was_not_there_is_remembered_as_absent_for_a_moment(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not results.is_absent(an_id(1))  # nobody has looked
    assert results.get(an_id(1)) is None
    assert results.is_absent(an_id(1)) and not results.is_absent(an_id(2))
    later = time.monotonic() + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not results.is_absent(an_id(1))  # whoever added it may have been killed before it told
    assert results.get(an_id(1)) is None
    assert results.is_absent(an_id(1))


def test_absent_is_nothing_more_once_something_was_added_or_refused(results: Results) -> None:
    assert results.get(an_id(1)) is None and results.get(an_id(2)) is None
    add(results, 1)
    assert not results.is_absent(an_id(1)) and not results.is_absent(an_id(2))
    assert results.get(an_id(1)) is not None and results.get(an_id(2)) is None
    assert results.is_absent(an_id(2)) and not results.is_absent(an_id(1))


def test_another_process_sees_it(results: Results, tmp_path: Path) -> None:
    other = Results(tmp_path / "results", max_bytes=1000)
    add(results, 1)
    assert other.get(an_id(1)) is not None
    other.close()


def test_what_another_process_adds_or_refuses_is_seen_at_once(results: Results, tmp_path: Path) -> None:
    other = Results(tmp_path / "results", max_bytes=1000)
    assert other.get(an_id(1)) is None and other.get(an_id(2)) is None
    add(results, 1)
    assert not other.is_absent(an_id(1)) and not other.is_absent(an_id(2))
    assert other.get(an_id(2)) is None
    results.refuse(an_id(2), Refusal("skip", "not this"), 60.0)
    assert not other.is_absent(an_id(2))
    assert isinstance(other.get(an_id(1)), Result)
    assert other.get(an_id(2)) == Refusal("skip", "not this")
    other.close()


def test_the_files_never_stay_above_the_bound_and_the_least_recently_used_goes_first(
    results: Results, tmp_path: Path
) -> None:
    for number in range(1, 8):
        add(results, number, 140)
    results.get(an_id(1))  # used just now
    add(results, 8, 140)
    kept = sorted(path.name for path in (tmp_path / "results").glob("??/*"))
    assert an_id(1) in kept and an_id(8) in kept and an_id(2) not in kept
    assert sum(path.stat().st_size for path in (tmp_path / "results").glob("??/*")) <= 1000
    assert {name for name in map(an_id, range(1, 9)) if results.get(name)} == set(kept)


def test_one_larger_than_the_bound_is_not_kept_and_keeps_nothing_from_working(results: Results) -> None:
    add(results, 1, 5000)
    assert results.get(an_id(1)) is None
    add(results, 2, 500)
    assert results.get(an_id(2)) is not None


def test_adding_again_replaces_and_counts_once(results: Results) -> None:
    for _ in range(20):
        add(results, 1, 400)
    add(results, 2, 400)
    assert results.get(an_id(1)) is not None and results.get(an_id(2)) is not None


def test_concurrent_adds_stay_within_the_bound(results: Results, tmp_path: Path) -> None:
    def many(start: int) -> None:
        for number in range(start, start + 20):
            add(results, number, 100)

    threads = [threading.Thread(target=many, args=(start,)) for start in (1, 30, 60, 90)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = list((tmp_path / "results").glob("??/*"))
    assert sum(path.stat().st_size for path in files) <= 1000
    assert files and all(results.get(path.name) is not None for path in files)


def test_refusals_are_remembered_for_a_while(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(results_module.time, "time", lambda: clock)
    assert results.get(an_id(1)) is None
    results.refuse(an_id(1), Refusal("reject", "no picture"), 60.0)
    assert results.get(an_id(1)) == Refusal("reject", "no picture")
    clock += 61
    assert results.get(an_id(1)) is None


def test_a_generation_begins_at_0_and_needs_no_row(results: Results) -> None:
    assert results.generation("base") == 0
    assert results.next_generation("base") == 0  # nobody has made it yet
    assert results.next_generation("base") == 0


def test_a_plain_read_turns_a_made_generation_unless_it_is_named(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(results_module.time, "time", lambda: clock)
    assert results.next_generation("base") == 0
    add(results, 1, base="base", generation=0)
    assert results.generation("base") == 0
    assert results.next_generation("base") == 1
    add(results, 2, base="base", generation=1)
    assert results.name_generation("base") == 1
    assert results.next_generation("base") == 1  # pinned
    clock += results_module.NAMED_FOR_S - 1
    assert results.next_generation("base") == 1
    clock += 2
    assert results.next_generation("base") == 2


def test_naming_keeps_it_named(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(results_module.time, "time", lambda: clock)
    add(results, 1, base="base", generation=0)
    for _ in range(3):
        assert results.name_generation("base") == 0
        clock += results_module.NAMED_FOR_S - 1
    assert results.next_generation("base") == 0


def test_a_generation_that_was_evicted_is_over_though_named(results: Results) -> None:
    results.name_generation("base")
    add(results, 1, base="base", generation=0)
    assert results.generation_of("base", frozenset({an_id(1)})) == 0
    results.forget(an_id(1))
    assert results.generation("base") == 1
    assert results.name_generation("base") == 1
    assert results.generation_of("base", frozenset({an_id(1)})) is None


def test_a_generation_is_found_by_its_id(results: Results) -> None:
    for generation in range(3):
        add(results, generation + 1, base="base", generation=generation)
    assert results.generation_of("base", frozenset({an_id(2), an_id(9)})) == 1
    assert results.generation_of("other", frozenset({an_id(2)})) is None


def test_what_was_written_before_the_machine_restarted_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    boot.write_text("first")
    monkeypatch.setattr(results_module, "_BOOT_ID", boot)
    before = Results(tmp_path / "results", max_bytes=1000)
    add(before, 1)
    path = before.path(an_id(1))
    before.close()
    same = Results(tmp_path / "results", max_bytes=1000)
    assert same.get(an_id(1)) is not None
    same.close()
    boot.write_text("second")
    after = Results(tmp_path / "results", max_bytes=1000)
    assert after.get(an_id(1)) is None and not path.exists()
    for number in range(1, 12):
        add(after, number, 100)
    assert sum(each.stat().st_size for each in (tmp_path / "results").glob("??/*")) <= 1000
    after.close()


def test_sweep_removes_what_killed_runs_left(results: Results, tmp_path: Path) -> None:
    add(results, 1)
    results.scratch(an_id(2)).write_bytes(b"half")
    sweep(tmp_path / "results")
    assert not list((tmp_path / "results").glob("tmp/*"))
    assert results.get(an_id(1)) is not None
