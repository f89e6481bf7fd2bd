"""Runs on kept workers, from this side: finding one, waiting for one, losing one, and beginning again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.stub_workers import Request, Wire, echo, every_request, stub_worker
from transom.plugins.manager import Transformers
from transom.target.errors import (
    EtlChanged,
    EtlCrashed,
    EtlDisconnected,
    EtlFailed,
    EtlOutOfMemory,
    EtlTimeout,
    EtlUnavailable,
    TargetError,
)
from transom.target.etl.keeper.places import LOCAL, Places, pull_offset, use_offset
from transom.target.etl.limits import Limits
from transom.target.etl.locks import ByteHolds
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.runtimes.elsewhere import Elsewhere
from transom.target.etl.runtimes.served import ServedRuntime
from transom.target.etl.sandbox.ending import Bound
from transom.target.etl.transports.base import Address
from transom.target.etl.watch import AbandonedError, Watch
from transom.target.etl.workers import WorkerPool
from transom.target.etl.workers_status import EtlStatus, WorkerState, WorkerStatus, forget_status, write_status
from transom.target.store.base import ObjectInfo, ObjectReader

pytestmark = pytest.mark.usefixtures("either_way")

DATA = bytes(range(256)) * 8


class Reader(ObjectReader):
    """An object in memory; `file` where a file holds it too."""

    def __init__(self, file: Path | None = None) -> None:
        self.info = ObjectInfo("photos", "cat.jpg", len(DATA), "etag", 0)
        self.file = file
        self.reads = 0

    @property
    def path(self) -> Path | None:
        return self.file

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return DATA[offset : offset + length]

    def chunks(self, start: int = 0, stop: int | None = None) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class Runs:
    """Runs one ETL's plan; its keeper is the test."""

    pipelines: Pipelines
    places: Places

    def plan(self, revision: int = 1, etl: str = "far", **spec: Any) -> Plan:
        given = {"name": etl, "runtime": {"code": "x"}, "communication": "hpush://", "init_timeout": 5.0, **spec}
        stage = Stage(etl, "", "1", revision, "null", "null", 0, runtime="code", spec=json.dumps(given))
        return Plan((stage,))

    def run(self, plan: Plan, reader: Reader | None = None, timeout_s: float = 10.0) -> bytes:
        pieces = self.pipelines.produce(plan, reader or Reader(), Watch("far", timeout_s), self.places.folder)
        with closing(pieces):
            return b"".join(pieces)

    def say(self, state: WorkerState, address: Address | None = None, revision: int = 1, **more: Any) -> WorkerStatus:
        """Say how the ETL's worker is, as a keeper does."""
        status = WorkerStatus(revision, state, address=address, chunked=True, **more)
        write_status(self.places.folder, LOCAL, EtlStatus("far", (status,)))
        return status


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    places = Places(tmp_path)
    served = ServedRuntime(places, tmp_path)
    unused: Any = None
    elsewhere = Elsewhere(served, unused, unused)
    yield Runs(Pipelines(Transformers({}, {}, {}), WorkerPool(tmp_path), Limits(), EtlMetrics(), elsewhere), places)
    served.close()


def later(work: Callable[[], object], after_s: float = 0.2) -> threading.Timer:
    timer = threading.Timer(after_s, work)
    timer.start()
    return timer


# --- finding one --------------------------------------------------------------------------------


def test_a_run_waits_for_a_worker_that_starts_and_its_clock_stands_still_meanwhile(runs: Runs) -> None:
    with stub_worker(every_request(echo), unix=True) as worker:
        runs.say("initializing")
        timer = later(lambda: runs.say("running", worker.address), 0.6)
        assert runs.run(runs.plan(), timeout_s=0.5) == DATA
        timer.join()


def test_a_run_waits_for_a_keeper_that_is_not_there_yet(runs: Runs) -> None:
    with stub_worker(every_request(echo), unix=True) as worker:
        timer = later(lambda: runs.say("running", worker.address))
        assert runs.run(runs.plan()) == DATA
        timer.join()


def test_a_worker_that_does_not_come_in_time_makes_the_etl_unavailable(runs: Runs) -> None:
    with pytest.raises(EtlUnavailable, match="its worker is not up"):
        runs.run(runs.plan(init_timeout=0.1))


def test_one_that_has_failed_makes_it_unavailable_at_once_in_its_own_words(runs: Runs) -> None:
    runs.say("failed", message="no model")
    with pytest.raises(EtlUnavailable, match="no model") as caught:
        runs.run(runs.plan())
    assert caught.value.etl == "far"


def test_a_revision_that_has_no_worker_any_more_is_to_be_asked_for_again(runs: Runs) -> None:
    runs.say("running", Address(unix="/nowhere"), revision=2)
    with pytest.raises(EtlChanged, match="was changed just now") as caught:
        runs.run(runs.plan(revision=1))
    assert caught.value.retry_after_s == 1


def test_nobody_waits_for_a_run_that_is_abandoned(runs: Runs) -> None:
    watch = Watch("far", 10.0)
    timer = later(watch.abandon)
    with pytest.raises(AbandonedError):
        list(runs.pipelines.produce(runs.plan(), Reader(), watch, runs.places.folder))
    timer.join()


# --- what is held meanwhile ---------------------------------------------------------------------


def test_the_worker_and_what_it_may_fetch_are_held_while_the_run_is_on_and_no_longer(runs: Runs) -> None:
    uses, pulls = ByteHolds(runs.places.uses), ByteHolds(runs.places.pulls)
    held: list[bool] = []

    def look() -> bool:
        pulled = pulls.held_elsewhere(pull_offset("far", "photos", "cat.jpg", "etag"))
        assert pulled == uses.held_elsewhere(use_offset("far", 1))
        return pulled

    def answer(wire: Wire, request: Request) -> None:
        assert request.method == "GET"
        held.append(look())
        wire.answer(b"fetched")

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        plan = runs.plan(communication="hpull://")
        reader = Reader()
        with runs.pipelines.holding(plan):
            assert runs.run(plan, reader) == b"fetched"
    assert held == [True]
    assert not look()
    assert reader.reads == 0
    uses.close()
    pulls.close()


def test_an_objects_own_file_is_shown_for_as_long_as_it_is_wanted(runs: Runs) -> None:
    blob = runs.places.folder / "blob"
    blob.write_bytes(DATA)
    blob.chmod(0o600)
    files = runs.places.files("far", 1)
    files.mkdir(parents=True)
    seen: list[tuple[str, bytes, int]] = []

    def answer(wire: Wire, request: Request) -> None:
        (file,) = files.iterdir()
        seen.append((file.suffix, file.read_bytes(), file.stat().st_mode & 0o777))
        assert request.body == b""
        assert file.name in request.target
        wire.answer(b"read")

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        assert runs.run(runs.plan(direct_file=True), Reader(blob)) == b"read"
        assert seen == [(".jpg", DATA, 0o444)]
        assert list(files.iterdir()) == []


def test_files_that_are_not_the_servers_own_are_sent_and_left_as_they_are(runs: Runs, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "cat.jpg"
    outside.write_bytes(DATA)
    outside.chmod(0o600)
    runs.places.files("far", 1).mkdir(parents=True)
    with stub_worker(every_request(echo), unix=True) as worker:
        runs.say("running", worker.address)
        assert runs.run(runs.plan(direct_file=True), Reader(outside)) == DATA
    assert outside.stat().st_mode & 0o777 == 0o600


# --- losing one ---------------------------------------------------------------------------------


def dying(times: int, served: list[float]) -> Callable[[Wire], None]:
    """Break off so many requests, then echo."""

    def answer(wire: Wire, request: Request) -> None:
        served.append(time.monotonic())
        if len(served) <= times:
            raise EOFError
        echo(wire, request)

    return every_request(answer)


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_lost_its_worker_begins_again_from_the_source(runs: Runs, times: int) -> None:
    served: list[float] = []
    with stub_worker(dying(times, served), unix=True) as worker:
        runs.say("running", worker.address)
        reader = Reader()
        assert runs.run(runs.plan(), reader) == DATA
    assert len(served) == reader.reads == times + 1


@pytest.mark.parametrize(("bound", "kind"), [("", EtlCrashed), ("memory", EtlOutOfMemory)])
def test_three_times_lost_is_a_crash_that_tells_what_the_keeper_saw(
    runs: Runs, bound: Bound, kind: type[TargetError]
) -> None:
    served: list[float] = []
    over = threading.Event()

    def notice(status: WorkerStatus) -> None:
        while not over.wait(0.01):
            said = "its worker ended with exit code 7: boom"
            told = replace(status, restarts=len(served), message=said, bound=bound)
            write_status(runs.places.folder, LOCAL, EtlStatus("far", (told,)))

    with stub_worker(dying(9, served), unix=True) as worker:
        keeper = threading.Thread(target=notice, args=[runs.say("running", worker.address)])
        keeper.start()
        with pytest.raises(TargetError) as caught:
            runs.run(runs.plan())
        over.set()
        keeper.join()
    assert (caught.type, caught.value.breaks) == (kind, True)
    assert caught.value.message == "ETL 'far' crashed: its worker ended with exit code 7: boom"
    assert (caught.value.etl, len(served)) == ("far", 3)


def test_three_times_lost_without_a_death_is_a_broken_connection(runs: Runs) -> None:
    with stub_worker(dying(9, []), unix=True) as worker:
        runs.say("running", worker.address)
        with pytest.raises(EtlDisconnected, match="ETL 'far' lost its worker: the connection broke") as caught:
            runs.run(runs.plan())
    assert caught.value.etl == "far"


def test_a_worker_that_asks_for_patience_thrice_is_no_crash(runs: Runs) -> None:
    def answer(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nfull")

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        with pytest.raises(EtlUnavailable, match="ETL 'far' is unavailable for the moment: full") as caught:
            runs.run(runs.plan())
    assert (caught.value.retry_after_s, caught.value.etl) == (7, "far")


def test_a_worker_that_lives_on_and_complains_of_a_limit_has_failed_and_no_more(runs: Runs) -> None:
    """Its words may be an object's name: they are no reason to close the ETL to everybody."""

    def answer(wire: Wire, request: Request) -> None:
        wire.answer(b"ValueError: can't read ENOMEM.jpg", "500 Oops")

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        with pytest.raises(EtlFailed, match=r"ENOMEM\.jpg \(having reached its memory limit of 1 GiB\)$") as caught:
            runs.run(runs.plan())
    assert (caught.type, caught.value.breaks) == (EtlFailed, False)


def test_a_worker_lost_in_the_middle_of_its_result_is_an_error_at_once(runs: Runs) -> None:
    def answer(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        raise EOFError

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        with pytest.raises(EtlDisconnected, match="in the middle of the result"):
            runs.run(runs.plan())
        assert worker.served == 1


def test_a_run_that_lost_its_keeper_waits_for_the_next_one(runs: Runs) -> None:
    with stub_worker(every_request(echo), unix=True) as worker:
        runs.say("running", Address(unix=str(runs.places.folder / "gone.sock")))
        timers = [
            later(lambda: forget_status(runs.places.folder, LOCAL, "far"), 0.05),
            later(lambda: runs.say("running", worker.address), 0.9),
        ]
        assert runs.run(runs.plan()) == DATA
        for timer in timers:
            timer.join()


def test_a_run_that_reaches_nobody_waits_for_the_keeper_to_notice_and_its_clock_stands_still(runs: Runs) -> None:
    with stub_worker(every_request(echo), unix=True) as worker:
        runs.say("running", Address(unix=str(runs.places.folder / "dead.sock")))
        timer = later(lambda: runs.say("running", worker.address, restarts=1, message="its worker ended"), 1.5)
        assert runs.run(runs.plan(), timeout_s=1.0) == DATA
        timer.join()


def test_no_run_begins_again_past_its_deadline(runs: Runs) -> None:
    served: list[float] = []
    with stub_worker(dying(9, served), unix=True) as worker:
        runs.say("running", worker.address)
        with pytest.raises((EtlTimeout, EtlCrashed)):
            runs.run(runs.plan(), timeout_s=0.3)
    assert len(served) < 3


@pytest.mark.parametrize(("status", "error"), [("500 Oops", EtlFailed), ("204 Delivered", EtlFailed)])
def test_a_worker_that_says_no_is_not_asked_again(runs: Runs, status: str, error: type[TargetError]) -> None:
    def answer(wire: Wire, request: Request) -> None:
        wire.answer(b"", status)

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        with pytest.raises(error):
            runs.run(runs.plan())
        assert worker.served == 1


def test_a_stage_before_it_that_fails_is_to_blame_alone(runs: Runs) -> None:
    def answer(wire: Wire, request: Request) -> None:
        wire.answer(b"no such colour", "422 No")

    with stub_worker(every_request(answer), unix=True) as worker:
        runs.say("running", worker.address)
        near = EtlStatus("near", (WorkerStatus(1, "running", address=worker.address),))
        write_status(runs.places.folder, LOCAL, near)
        with pytest.raises(TargetError, match="ETL 'far' can't transform this object: no such colour") as caught:
            runs.run(runs.plan() + runs.plan(etl="near"))
    assert caught.value.etl == "far"
