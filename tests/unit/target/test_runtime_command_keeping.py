"""Which programs of command ETLs are kept, and until when: programs that only note what is done with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.wire import eventually
from transom.cluster.catalog import Catalog
from transom.cluster.records import CatalogError, Snapshot
from transom.plugins.contract import Context
from transom.target.etl.registry import Registry
from transom.target.etl.runtimes.command_keeping import KeptPrograms
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.spec import Spec, from_json, normalised, record_of
from transom.target.etl.watch import Watch

WITHIN_S = 10.0


class Program:
    """One that hands its input on, and breaks at its end if told so."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.killed = threading.Event()
        self.breaks = False

    @property
    def idle(self) -> bool:
        return True

    @property
    def alive(self) -> bool:
        return not self.killed.is_set()

    def run(self, task: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        for piece in chunks:
            assert self.alive
            self.rig.last = self
            yield piece

    def kill(self) -> None:
        self.killed.set()
        if self.breaks:
            raise OSError("its cgroup can't be removed")


class Rig:
    """Programs kept for the ETLs of a catalog, and all that were started."""

    def __init__(self, catalog: Catalog, registry: Registry, unused_s: float = 300.0) -> None:
        self.catalog, self.registry = catalog, registry
        self.started: list[Program] = []
        self.last: Program | None = None
        self.kept = KeptPrograms(self._start, catalog, unused_s=unused_s)

    def init(self, etl: str, *command: str) -> None:
        runtime = {"command": list(command or ["cat"])}
        spec = normalised(Spec.model_validate({"name": etl, "runtime": runtime, "io": "persistent"}))
        self.catalog.propose(record_of(spec, "owner"))

    def job(self, etl: str) -> Job:
        (stage,) = self.registry.plan([etl]).stages
        return Job(stage, from_json(stage.spec), Context("b", "k", etl, content_type="text/plain", size=None))

    def begin(self, job: Job) -> Generator[bytes, None, None]:
        """A run of which the first piece has come."""
        run = self.kept.run(job, iter([b"first", b"last"]), Watch("e", 30))
        assert next(run) == b"first"
        return run

    def run(self, job: Job) -> Program:
        """Run an object; the program that did it."""
        assert list(self.begin(job)) == [b"last"]
        assert self.last is not None
        return self.last

    def _start(self, _: Job, __: Watch) -> Program:
        self.started.append(Program(self))
        return self.started[-1]


@pytest.fixture
def make(catalog: Catalog, registry: Registry) -> Iterator[Callable[..., Rig]]:
    """Make rigs that are closed before the catalog is."""
    made: list[Rig] = []

    def rig(unused_s: float = 300.0, of: Catalog = catalog) -> Rig:
        made.append(Rig(of, registry, unused_s))
        return made[-1]

    yield rig
    for each in made:
        each.kept.close()
        assert all(program.killed.is_set() for program in each.started)


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    made = make()
    made.init("a")
    made.init("b")
    return made


CHANGES: dict[str, Callable[[Rig], object]] = {
    "stop": lambda rig: rig.catalog.put_state("a", "stopped"),
    "rm": lambda rig: rig.catalog.remove_etl("a"),
    "change": lambda rig: rig.init("a", "tac"),
    "restart": lambda rig: rig.catalog.restart("a"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_program_ends_once_its_etl_is_not_what_it_was(rig: Rig, change: str) -> None:
    wanted, other = rig.run(rig.job("a")), rig.run(rig.job("b"))
    CHANGES[change](rig)
    assert wanted.killed.wait(WITHIN_S)
    assert not other.killed.is_set()
    assert rig.run(rig.job("b")) is other


@pytest.mark.parametrize("change", ["change", "restart"])
def test_the_next_object_has_a_fresh_program_at_once(rig: Rig, change: str) -> None:
    old = rig.run(rig.job("a"))
    CHANGES[change](rig)
    fresh = rig.run(rig.job("a"))
    assert fresh is not old
    assert old.killed.wait(WITHIN_S)
    assert rig.run(rig.job("a")) is fresh


def test_started_again_after_a_stop_it_is_a_fresh_program_too(rig: Rig) -> None:
    old = rig.run(rig.job("a"))
    rig.catalog.put_state("a", "stopped")
    rig.catalog.put_state("a", "running")
    assert rig.run(rig.job("a")) is not old
    assert old.killed.wait(WITHIN_S)


def test_what_changes_nothing_ends_nothing(rig: Rig) -> None:
    kept = rig.run(rig.job("a"))
    rig.catalog.put_state("a", "running")  # it does already
    rig.init("a")
    rig.init("c")
    gone = rig.run(rig.job("c"))
    rig.catalog.remove_etl("c")
    assert gone.killed.wait(WITHIN_S)  # so all were looked at
    assert rig.run(rig.job("a")) is kept


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_under_way_ends_on_the_program_that_it_has(rig: Rig, change: str) -> None:
    under_way, beside = rig.begin(rig.job("a")), rig.begin(rig.job("a"))
    at_work, idle = rig.started
    assert list(beside) == [b"last"]
    CHANGES[change](rig)
    assert idle.killed.wait(WITHIN_S)
    assert not at_work.killed.is_set()
    assert list(under_way) == [b"last"]
    assert at_work.killed.is_set()


def test_a_run_that_was_planned_before_a_stop_leaves_nothing(rig: Rig) -> None:
    planned, first = rig.job("a"), rig.run(rig.job("a"))
    rig.catalog.put_state("a", "stopped")
    assert first.killed.wait(WITHIN_S)
    late = rig.run(planned)
    assert late is not first
    assert late.killed.wait(WITHIN_S)


def test_a_program_that_nobody_uses_ends_and_those_in_use_stay(make: Callable[..., Rig]) -> None:
    rig = make(unused_s=0.0)
    rig.init("a")
    job = rig.job("a")
    under_way, beside = rig.begin(job), rig.begin(job)
    at_work, idle = rig.started
    assert list(beside) == [b"last"]
    assert idle.killed.wait(WITHIN_S)
    assert not at_work.killed.is_set()
    assert list(under_way) == [b"last"]
    assert at_work.killed.wait(WITHIN_S)


def test_one_that_can_not_be_ended_is_in_no_others_way(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    broken, other = rig.run(rig.job("a")), rig.run(rig.job("b"))
    broken.breaks = True
    for etl in ("a", "b"):
        rig.catalog.put_state(etl, "stopped")
    assert broken.killed.wait(WITHIN_S)
    assert other.killed.wait(WITHIN_S)
    assert "a program that was kept can't be ended" in caplog.text


def test_while_the_catalog_can_not_be_read_programs_stay(
    make: Callable[..., Rig], tmp_path: Path, registry: Registry
) -> None:
    class Unreadable(Catalog):
        looks, readable = 0, False

        def snapshot(self) -> Snapshot:
            self.looks += 1
            if not self.readable:
                raise CatalogError("the catalog can't be used: database is locked")
            return super().snapshot()

    unreadable = Unreadable.open(tmp_path / "catalog.sqlite")
    assert isinstance(unreadable, Unreadable)
    rig = make(of=unreadable)
    rig.init("a")
    program = rig.run(rig.job("a"))
    registry.catalog.remove_etl("a")
    eventually(lambda: unreadable.looks >= 2, within_s=WITHIN_S)
    assert not program.killed.is_set()
    unreadable.readable = True
    assert program.killed.wait(WITHIN_S)
    rig.kept.close()
    unreadable.close()


def test_once_closed_none_is_kept_and_nobody_looks(rig: Rig) -> None:
    first, at_work = rig.run(rig.job("a")), rig.begin(rig.job("b"))
    rig.kept.close()
    assert first.killed.is_set()
    assert not any(thread.name == "kept-programs" for thread in threading.enumerate())
    assert list(at_work) == [b"last"]
    assert rig.started[-1].killed.is_set()
    assert rig.run(rig.job("a")).killed.is_set()
