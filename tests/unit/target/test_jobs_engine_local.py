"""The local engine's executors: what they inherit, what they lose, and that none outlives the job's process."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from transom.target.errors import NoSuchKey
from transom.target.jobs.engines.base import EngineUnavailable, Later, StagedWork, WorkFailed
from transom.target.jobs.engines.chores import Chore, Chores, Opening, Report, wait_until
from transom.target.jobs.engines.conformance import is_gone
from transom.target.jobs.engines.local import MOST_EXECUTORS, LocalEngine
from transom.target.jobs.engines.spawner import Spawner
from transom.target.jobs.site import Site

RUNNER = """
import sys
from pathlib import Path
from transom.target.jobs.engines.chores import Chore, Chores, Opening
from transom.target.jobs.engines.local import LocalEngine

folder = Path(sys.argv[1])
list(LocalEngine(Opening(folder)).run(Chores(folder), [Chore(0, "hold"), Chore(1, "hold")], width=2))
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    with closing(LocalEngine(Opening(tmp_path))) as engine:
        yield engine


@dataclass(frozen=True)
class Told:
    """What an executor says of itself."""

    pid: int
    parent: int
    stdin: str
    oom_score: int
    ignores_interrupts: bool
    worn_out: bool = False


class Telling:
    """Work that asks an executor about itself."""

    def __call__(self, site: Site, task: Chore, /) -> Told:
        return Told(
            os.getpid(),
            os.getppid(),
            str(Path("/proc/self/fd/0").readlink()),
            int(Path("/proc/self/oom_score_adj").read_text()),
            signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        )


def test_an_executor_has_nothing_of_its_parents(engine: LocalEngine) -> None:
    (finished,) = engine.run(Telling(), [Chore(0)], width=1)
    told = finished.result
    assert told is not None
    assert (told.stdin, told.oom_score, told.ignores_interrupts) == ("/dev/null", 500, True)
    assert told.parent != os.getpid()  # it is forked from a process that holds nothing


def test_no_more_executors_are_started_than_there_are_tasks(engine: LocalEngine) -> None:
    came = list(engine.run(Telling(), [Chore(0), Chore(1)], width=MOST_EXECUTORS))
    assert len({finished.result.pid for finished in came if finished.result}) == 2


def test_a_lost_executor_loses_no_task_that_it_had_not_begun(engine: LocalEngine, tmp_path: Path) -> None:
    tasks = [Chore(n, "die" if n in (5, 6, 15) else "echo") for n in range(20)]
    came = list(engine.run(Chores(tmp_path), tasks, width=1))
    assert {finished.task.n: finished.lost for finished in came if finished.lost} == dict.fromkeys(
        (5, 6, 15), "signal 9"
    )
    assert sorted(finished.task.n for finished in came) == list(range(20))


@dataclass(frozen=True)
class Waiting(StagedWork[Chore, Report]):
    """Chores that end with a wait: those that "hold" for the next to begin, those that "die" or "raise" then do so."""

    folder: Path

    def begin(self, site: Site, chore: Chore, /) -> Report | Later[Report]:
        chores = Chores(self.folder)
        if chore.act == "echo":
            return chores(site, chore)
        begun = chores(site, Chore(chore.n))
        return Later(lambda: self._wait(chore, begun))

    def _wait(self, chore: Chore, begun: Report) -> Report:
        wait_until(lambda: Chores(self.folder).begun(chore.n + 1))
        assert not Chores(self.folder).begun(chore.n + 2)
        if chore.act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if chore.act == "raise":
            raise OSError("it is full")
        return begun


def test_the_next_task_is_done_while_one_waits_and_no_third(engine: LocalEngine, tmp_path: Path) -> None:
    tasks = [Chore(0), *(Chore(n, "hold") for n in range(1, 5)), Chore(5)]
    came = list(engine.run(Waiting(tmp_path), tasks, width=1))
    assert [finished.task.n for finished in came] == list(range(6))
    assert [finished.result.n for finished in came if finished.result] == list(range(6))


def test_the_next_task_is_begun_while_the_first_one_waits_however_long_it_took(
    engine: LocalEngine, tmp_path: Path
) -> None:
    tasks = [Chore(0, "hold"), Chore(1, "hold"), Chore(2)]  # each waits for the next to begin
    came = list(engine.run(Waiting(tmp_path), tasks, width=1))
    assert [finished.task.n for finished in came] == [0, 1, 2]


def test_an_executor_that_dies_while_one_waits_loses_that_one_only(engine: LocalEngine, tmp_path: Path) -> None:
    came = list(engine.run(Waiting(tmp_path), [Chore(0), Chore(1, "die"), Chore(2), Chore(3)], width=1))
    assert [(finished.task.n, finished.lost) for finished in came] == [(0, ""), (1, "signal 9"), (2, ""), (3, "")]
    assert len(Chores(tmp_path).begun(2)) == 2  # of its second executor


def test_what_a_wait_raises_is_raised(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is full") as caught:
        list(engine.run(Waiting(tmp_path), [Chore(0), Chore(1, "raise"), Chore(2)], width=1))
    assert isinstance(caught.value.__cause__, WorkFailed)


def test_executors_can_be_ready_before_there_are_tasks(tmp_path: Path) -> None:
    with closing(LocalEngine(Opening(tmp_path), ready=1)) as engine:
        wait_until(lambda: list(tmp_path.glob("opened.*")))
        (finished,) = engine.run(Chores(tmp_path), [Chore(0)], width=1)
        assert finished.result is not None
        (opened,) = tmp_path.glob("opened.*")
        assert opened.name.split(".")[1] == str(finished.result.pid)


def test_a_site_that_cannot_be_opened_ahead_fails_the_first_task(tmp_path: Path) -> None:
    with closing(LocalEngine(Opening(tmp_path, fails=True), ready=1)) as engine, pytest.raises(NoSuchKey):
        list(engine.run(Chores(tmp_path), [Chore(0)], width=1))


def test_an_executor_that_ends_while_idle_loses_nothing(engine: LocalEngine, tmp_path: Path) -> None:
    chores = Chores(tmp_path)
    (first,) = engine.run(chores, [Chore(0)], width=1)
    assert first.result is not None
    os.kill(first.result.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(first.result.pid))
    (second,) = engine.run(chores, [Chore(1)], width=1)
    assert second.result is not None
    assert second.result.pid != first.result.pid


def test_executors_that_were_ready_and_never_needed_end_with_the_engine(tmp_path: Path) -> None:
    engine = LocalEngine(Opening(tmp_path), ready=1)
    wait_until(lambda: list(tmp_path.glob("opened.*")))
    (opened,) = tmp_path.glob("opened.*")
    engine.close()
    assert is_gone(int(opened.name.split(".")[1]))


def test_of_processes_that_cannot_all_be_started_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, calls = os.fork, itertools.count()

    def forks_at_times() -> int:  # its first call makes the spawner, which inherits it
        if next(calls) == 2:
            raise OSError(errno.EAGAIN, "for a test")
        return fork()

    monkeypatch.setattr(os, "fork", forks_at_times)
    with closing(Spawner(_wait_for_the_end)) as spawner:
        pid, sock = spawner.start()
        for _ in range(2):
            spawner.order()
        with pytest.raises(EngineUnavailable, match="temporarily unavailable"):
            spawner.started()
        sock.close()
        assert spawner.reap(pid) == "exit code 0"  # the second's answer was not left to be taken for this one


def _wait_for_the_end(sock: socket.socket) -> None:
    sock.recv(1)


def test_no_executor_outlives_a_runner_that_is_killed(tmp_path: Path) -> None:
    chores = Chores(tmp_path)
    with subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)]) as runner:
        wait_until(lambda: chores.begun(0) and chores.begun(1))
        spawner = int(Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text())
        pids = [spawner, *chores.begun(0), *chores.begun(1)]
        assert not any(map(is_gone, pids))
        runner.kill()
    wait_until(lambda: all(map(is_gone, pids)))


def test_a_lost_spawner_ends_the_run_and_its_executors(engine: LocalEngine, tmp_path: Path) -> None:
    chores = Chores(tmp_path)
    (told,) = engine.run(Telling(), [Chore(0)], width=1)
    assert told.result is not None
    os.kill(told.result.parent, signal.SIGKILL)
    wait_until(lambda: is_gone(told.result.pid))
    with pytest.raises(EngineUnavailable, match=r"no process|is gone"):
        list(engine.run(chores, [Chore(1), Chore(2)], width=2))
