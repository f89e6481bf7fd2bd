# ruff: noqa: D102, PLR2004 - tests: their names say what they do, and numbers are examples
"""What every engine must do, as a test class to subclass: give the fixture and pytest runs the rest.

    class TestMine(EngineConformance):
        @pytest.fixture
        def make(self): ...   # returns what makes an engine of an opener; the suite closes it

It knows nothing of how an engine gets at its workers, but that they see this machine's folders and processes.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from transom.target.errors import NoSuchKey
from transom.target.jobs.engines.base import Engine, Finished, Opener, WorkFailed
from transom.target.jobs.engines.chores import Act, Chore, Chores, Opening, Report, wait_until

MIB = 1024 * 1024
WIDTH = 2
Maker = Callable[[Opener], Engine]
Came = Finished[Chore, Report]


class Growing(Iterator[Chore]):
    """Tasks that may become more while they are performed."""

    def __init__(self, chores: Iterable[Chore]) -> None:
        self.chores = deque(chores)

    def __next__(self) -> Chore:
        if not self.chores:
            raise StopIteration
        return self.chores.popleft()


def numbers(came: Iterable[Came]) -> list[int]:
    """The tasks that came back, in order of number; each with its own result."""
    told = []
    for finished in came:
        assert finished.result is not None, finished.lost
        assert finished.result.n == finished.task.n
        told.append(finished.task.n)
    return sorted(told)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class EngineConformance:
    """The suite. `retries` says that the engine itself does what a lost worker did again."""

    retries = False

    @pytest.fixture
    def make(self) -> Maker:
        """What makes an engine: to be given by the subclass."""
        raise NotImplementedError("give the fixture 'make'")

    @pytest.fixture
    def chores(self, tmp_path: Path) -> Chores:
        """The work, over an empty folder."""
        return Chores(tmp_path)

    @pytest.fixture
    def engine(self, make: Maker, chores: Chores) -> Iterator[Engine]:
        """An engine whose workers open empty sites."""
        engine = make(Opening(chores.folder))
        yield engine
        chores.release()
        engine.close()

    # --- every task, once ---------------------------------------------------------------------------

    def test_every_task_comes_back_once(self, engine: Engine, chores: Chores) -> None:
        came = list(engine.run(chores, map(Chore, range(50)), width=WIDTH))
        assert numbers(came) == list(range(50))
        assert all(len(chores.begun(n)) == 1 for n in range(50))

    def test_no_tasks_are_no_results(self, engine: Engine, chores: Chores) -> None:
        assert list(engine.run(chores, [], width=WIDTH)) == []

    def test_it_runs_again(self, engine: Engine, chores: Chores) -> None:
        assert numbers(engine.run(chores, [Chore(1), Chore(2)], width=WIDTH)) == [1, 2]
        assert numbers(engine.run(chores, [Chore(3), Chore(4)], width=1)) == [3, 4]

    def test_tasks_may_become_more(self, engine: Engine, chores: Chores) -> None:
        tasks = Growing(map(Chore, range(3)))
        came = []
        for finished in engine.run(chores, tasks, width=WIDTH):
            came.append(finished)
            if finished.task.n < 3:
                tasks.chores.append(Chore(finished.task.n + 100))
        assert numbers(came) == [0, 1, 2, 100, 101, 102]

    def test_a_big_result_and_a_big_task_come_over_whole(self, engine: Engine, chores: Chores) -> None:
        big = Chore(1, size=10 * MIB)
        wide = Chore(2, place="p" * MIB)
        came = {finished.task.n: finished.result for finished in engine.run(chores, [big, wide, Chore(3)], width=1)}
        first = came[1]
        assert first is not None
        assert first.data == bytes(10 * MIB)
        assert set(came) == {1, 2, 3}

    def test_a_place_is_only_preferred(self, engine: Engine, chores: Chores) -> None:
        tasks = [Chore(n, place=place) for n, place in enumerate(["", "nowhere", *engine.places])]
        assert numbers(engine.run(chores, tasks, width=WIDTH)) == [task.n for task in tasks]

    # --- how many at a time -------------------------------------------------------------------------

    def test_so_many_are_performed_at_a_time(self, engine: Engine, chores: Chores) -> None:
        tasks: list[Chore] = [Chore(n, "meet", WIDTH) for n in range(WIDTH)]
        assert numbers(engine.run(chores, tasks, width=WIDTH)) == list(range(WIDTH))
        assert engine.cores >= 1

    @pytest.mark.parametrize("width", [1, WIDTH])
    def test_never_more_are_performed_at_a_time(self, engine: Engine, chores: Chores, width: int) -> None:
        came = list(engine.run(chores, map(Chore, range(30)), width=width))
        assert numbers(came) == list(range(30))
        assert max(finished.result.beside for finished in came if finished.result) <= width

    def test_tasks_are_taken_as_workers_come_free(self, engine: Engine, chores: Chores) -> None:
        taken: list[int] = []

        def endless() -> Iterator[Chore]:
            for n in itertools.count():
                taken.append(n)
                yield Chore(n)

        with closing(engine.run(chores, endless(), width=WIDTH)) as came:
            assert len(set(numbers(itertools.islice(came, 20)))) == 20
        assert len(taken) <= 20 + 3 * WIDTH

    # --- sites --------------------------------------------------------------------------------------

    def test_a_worker_keeps_its_site(self, engine: Engine, chores: Chores) -> None:
        came = list(engine.run(chores, map(Chore, range(20)), width=WIDTH))
        openings = Counter(path.name.split(".")[1] for path in chores.folder.glob("opened.*"))
        assert {str(finished.result.pid) for finished in came if finished.result} <= set(openings)
        assert set(openings.values()) == {1}

    def test_a_site_that_does_not_open_fails_the_run(self, make: Maker, chores: Chores) -> None:
        engine = make(Opening(chores.folder, fails=True))
        with closing(engine), pytest.raises(NoSuchKey, match="no site can be opened"):
            list(engine.run(chores, [Chore(1)], width=1))

    # --- work that raises -----------------------------------------------------------------------------

    def test_what_work_raises_is_raised_with_its_traceback(self, engine: Engine, chores: Chores) -> None:
        with pytest.raises(NoSuchKey, match="chore 5 raises") as caught:
            list(engine.run(chores, [*map(Chore, range(5)), Chore(5, "raise")], width=WIDTH))
        assert isinstance(caught.value.__cause__, WorkFailed)
        assert "in _act" in str(caught.value.__cause__)

    def test_an_error_that_can_not_be_brought_over_is_told(self, engine: Engine, chores: Chores) -> None:
        with pytest.raises(WorkFailed, match="OddError: oddly"):
            list(engine.run(chores, [Chore(1, "raise oddly")], width=WIDTH))

    # --- workers that are lost --------------------------------------------------------------------------

    def test_a_task_that_ends_its_worker_comes_back_as_lost(self, engine: Engine, chores: Chores) -> None:
        tasks = [Chore(n, "die" if n == 3 else "echo") for n in range(12)]
        came = list(engine.run(chores, tasks, width=WIDTH))
        assert [finished.task.n for finished in came if finished.lost] == [3]
        assert [finished.result for finished in came if finished.lost] == [None]
        assert numbers(finished for finished in came if not finished.lost) == [n for n in range(12) if n != 3]

    def test_a_worker_killed_from_outside_loses_at_most_what_it_did(self, engine: Engine, chores: Chores) -> None:
        came: list[Came] = []
        with closing(engine.run(chores, _holding(20, {0: "hold"}), width=WIDTH)) as coming:
            came.append(next(coming))
            wait_until(lambda: chores.begun(0))
            os.kill(chores.begun(0)[0], signal.SIGKILL)
            chores.release()
            came.extend(coming)
        assert sorted(finished.task.n for finished in came) == list(range(20))
        assert [finished.task.n for finished in came if finished.lost] == ([] if self.retries else [0])

    def test_a_worn_out_worker_is_not_used_again(self, engine: Engine, chores: Chores) -> None:
        tasks = _holding(24, {4: "wear out", 9: "wear out"})
        came = [finished.result for finished in engine.run(chores, tasks, width=WIDTH)]
        assert sorted(report.n for report in came if report) == list(range(24))
        for worn in [report for report in came if report and report.worn_out]:
            later = [path for path in chores.folder.glob(f"begun.*.{worn.pid}")]
            ended = (chores.folder / f"begun.{worn.n}.{worn.pid}").stat().st_mtime_ns
            assert max(path.stat().st_mtime_ns for path in later) == ended

    # --- stopping -------------------------------------------------------------------------------------

    def test_closing_the_run_stops_its_workers_at_once(self, engine: Engine, chores: Chores) -> None:
        tasks = [Chore(0), Chore(1, "hold"), Chore(2, "hold")]
        with closing(engine.run(chores, tasks, width=WIDTH)) as came:
            assert next(came).task.n == 0
            wait_until(lambda: chores.begun(1) and chores.begun(2))
        wait_until(lambda: is_gone(chores.begun(1)[0]) and is_gone(chores.begun(2)[0]))
        assert numbers(engine.run(chores, [Chore(3)], width=WIDTH)) == [3]

    def test_a_look_ends_a_run_in_which_nothing_comes(self, engine: Engine, chores: Chores) -> None:
        def look() -> None:
            if chores.begun(1):
                raise InterruptedError("that is enough")

        with pytest.raises(InterruptedError, match="that is enough"):
            list(engine.run(chores, [Chore(1, "hold")], width=WIDTH, look=look))
        wait_until(lambda: is_gone(chores.begun(1)[0]))

    def test_closing_the_engine_leaves_no_worker(self, make: Maker, chores: Chores) -> None:
        engine = make(Opening(chores.folder))
        pids = {finished.result.pid for finished in engine.run(chores, [Chore(1)], width=1) if finished.result}
        began = time.monotonic()
        engine.close()
        engine.close()
        assert time.monotonic() - began < 10
        self.check_closed(pids)

    def check_closed(self, pids: set[int]) -> None:
        """Look whether the workers of a closed engine have ended."""
        for pid in pids:
            wait_until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]


def _holding(count: int, acts: dict[int, Act]) -> list[Chore]:
    return [Chore(n, acts.get(n, "echo")) for n in range(count)]
