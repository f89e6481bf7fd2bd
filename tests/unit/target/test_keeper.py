"""The keeper over real processes: what it starts, watches, restarts, and ends; its logs, and what a killed one left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import wire
from tests.processes import gone
from tests.unit.target import keeper_worker
from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord
from transom.target.etl.keeper.desk import PullDesk
from transom.target.etl.keeper.keeper import Keeper
from transom.target.etl.keeper.logs import Captured, LogFile
from transom.target.etl.keeper.places import LOCAL, Places, use_offset
from transom.target.etl.keeper.processes import reap, tree_usage
from transom.target.etl.keeper.restarts import MOST, Restarts
from transom.target.etl.keeper.workshop import Workshop
from transom.target.etl.limits import Limits
from transom.target.etl.locks import ByteHolds
from transom.target.etl.runtimes.base import MARK, Ended, Order, StartError, Usage
from transom.target.etl.spec import Spec
from transom.target.etl.transports.base import Address
from transom.target.etl.workers_status import WorkerStatus, read_target
from transom.target.store.memory import MemoryStore

MIB = 1024 * 1024
PATIENCE_S = 15.0


class Plain:
    """A process without a sandbox."""

    container = ""
    confinement = "nothing"
    hint = "it may be out of reach"

    def __init__(self, order: Order, words: list[str]) -> None:
        self.addresses = (Address(unix=order.env["TRANSOM_SOCKET"]),)
        command = [sys.executable, "-I", "-S", keeper_worker.__file__, *words]
        self.process = subprocess.Popen(command, env=dict(order.env), stdout=order.log_fd, stderr=order.log_fd)
        self.pid = self.process.pid

    def ended(self, words: str = "") -> Ended | None:
        code = self.process.poll()
        return None if code is None else Ended(f"exit code {code}", "memory" if code == -signal.SIGKILL else "")

    def usage(self) -> Usage | None:
        return None

    def stop(self, grace_s: float) -> None:
        self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Launcher:
    """Starts plain processes; `words` makes the next ones say them and die, `refusal` refuses at once."""

    words: list[str] = field(default_factory=list)
    refusal: StartError | None = None
    orders: list[Order] = field(default_factory=list)

    def own_network(self, spec: Spec) -> bool:
        return True

    def start(self, order: Order) -> Plain:
        self.orders.append(order)
        if self.refusal is not None:
            raise self.refusal
        return Plain(order, self.words)

    def reap(self, mark: str) -> None:
        """It leaves nothing."""


@dataclass
class Kept:
    """A running keeper, its catalog and its launcher."""

    catalog: Catalog
    places: Places
    launcher: Launcher

    def init(self, name: str, **spec: Any) -> EtlRecord:
        whole = {"name": name, "runtime": {"code": "x"}, "communication": "hpush://", "init_timeout": 10.0, **spec}
        return self.catalog.propose(EtlRecord(name, runtime="code", spec=whole))[0]

    def workers(self, name: str) -> tuple[WorkerStatus, ...]:
        status = read_target(self.places.folder, LOCAL, name)
        return () if status is None else status.revisions

    def worker(self, name: str) -> WorkerStatus:
        return self.workers(name)[-1]

    async def running(self, name: str) -> WorkerStatus:
        """Wait until the catalog says so too."""
        await eventually(lambda: self.catalog.etl(name).state == "running" and self.worker(name).state == "running")
        return self.worker(name)


async def eventually(found: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)
    return value


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
async def kept(tmp_path: Path, places: Places) -> AsyncIterator[Kept]:
    catalog, launcher = Catalog.open(tmp_path / "catalog.sqlite"), Launcher()
    uses, pulls = ByteHolds(places.uses), ByteHolds(places.pulls)
    desk = await PullDesk.open(MemoryStore(), pulls)
    sockets = tmp_path / "s"
    sockets.mkdir()
    shop = Workshop(places, Limits(), {"code": launcher}, uses, desk, sockets, False, lambda _: "", lambda _: "")
    stop = asyncio.Event()
    running = asyncio.create_task(Keeper(catalog, shop, [LOCAL], linger_s=0.1).run(stop))
    yield Kept(catalog, places, launcher)
    stop.set()
    await running
    await desk.close()
    uses.close()
    pulls.close()
    catalog.close()
    assert not list(places.status.glob("*.json"))
    assert not [order for order in launcher.orders if order.folder.exists()]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# --- starting -----------------------------------------------------------------------------------


async def test_an_etl_that_is_wanted_gets_a_worker_and_runs(kept: Kept) -> None:
    record = kept.init("upper", idle_timeout=600)
    worker = await kept.running("upper")
    assert worker.address is not None
    assert worker.address.unix == kept.launcher.orders[0].env["TRANSOM_SOCKET"]
    assert (worker.revision, worker.launch_ns, worker.restarts) == (record.revision, record.launch_ns, 0)
    env = kept.launcher.orders[0].env
    assert (env["TRANSOM_ETL"], env["TRANSOM_PORT"], env[MARK]) == ("upper", "8000", kept.places.mark)
    assert env["AIS_TARGET_URL"].startswith("http+unix://")


async def test_one_that_is_stopped_ends_alone(kept: Kept) -> None:
    kept.init("upper")
    kept.init("other")
    upper, other = await kept.running("upper"), await kept.running("other")
    kept.catalog.put_state("upper", "stopped")
    await eventually(lambda: not is_alive(upper.pid))
    assert kept.workers("upper") == ()
    assert kept.worker("other").pid == other.pid
    assert is_alive(other.pid)


async def test_one_that_a_run_holds_goes_on_until_the_run_ends(kept: Kept) -> None:
    record = kept.init("upper")
    worker = await kept.running("upper")
    runs = ByteHolds(kept.places.uses)
    with runs.holding(use_offset("upper", record.revision)):
        kept.catalog.remove_etl("upper")
        await asyncio.sleep(0.4)  # many ticks, in which it might be ended
        assert is_alive(worker.pid)
        assert kept.worker("upper").pid == worker.pid
    await eventually(lambda: not is_alive(worker.pid))
    runs.close()


async def test_a_new_revision_starts_beside_the_old_and_takes_over(kept: Kept) -> None:
    kept.init("upper")
    old = await kept.running("upper")
    new = kept.init("upper", max_output=5)
    await eventually(lambda: kept.catalog.etl("upper").revision == new.revision)
    await eventually(lambda: not is_alive(old.pid))
    worker = await kept.running("upper")
    assert (worker.revision, is_alive(worker.pid)) == (new.revision, True)


async def test_a_restart_replaces_the_worker_once_the_fresh_one_is_up(kept: Kept) -> None:
    kept.init("upper")
    old = await kept.running("upper")
    kept.catalog.restart("upper")
    seen: set[int] = set()

    def is_replaced() -> bool:
        workers = kept.workers("upper")
        seen.add(len([worker for worker in workers if worker.state == "running"]))
        return workers[-1].pid not in (0, old.pid) and not is_alive(old.pid)

    await eventually(is_replaced)
    assert 0 not in seen  # somebody served all the time


# --- dying --------------------------------------------------------------------------------------


async def test_a_worker_that_dies_is_started_again(kept: Kept) -> None:
    kept.init("upper")
    first = await kept.running("upper")
    os.kill(first.pid, signal.SIGKILL)
    second = await eventually(
        lambda: w if (w := kept.worker("upper")).state == "running" and w.pid != first.pid else None
    )
    assert second.restarts == 1
    assert "exit code -9" in second.message and second.bound == "memory"
    assert kept.catalog.etl("upper").state == "running"


async def test_one_that_fills_its_own_folder_is_started_again_with_an_empty_one(kept: Kept) -> None:
    kept.init("upper", resources={"memory": 4 * MIB})
    first = await kept.running("upper")
    folder = kept.launcher.orders[0].folder
    (folder / "deep").mkdir()
    (folder / "deep" / "much").write_bytes(bytes(5 * MIB))
    followed = Path(keeper_worker.__file__).parent
    (folder / "elsewhere").symlink_to(followed)
    second = await eventually(
        lambda: w if (w := kept.worker("upper")).state == "running" and w.pid != first.pid else None
    )
    assert (second.restarts, second.bound) == (1, "scratch")
    assert second.message.startswith("its worker put more into its own folder than its scratch limit of 4 MiB")
    assert {path.name for path in folder.iterdir()} <= {"worker.sock", "pull.sock"}
    assert keeper_worker.__file__ in map(str, followed.iterdir())


async def test_deaths_just_after_a_run_are_laid_to_its_object(kept: Kept) -> None:
    """However short the run was: else whoever puts a poisonous object could end an ETL for everybody."""
    record = kept.init("upper")
    for _ in range(MOST):
        worker = await kept.running("upper")
        kept.places.wanted("upper", record.revision).touch()
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda pid=worker.pid: kept.worker("upper").pid not in (0, pid))
    assert (await kept.running("upper")).restarts == MOST


async def test_one_that_can_not_start_has_failed_with_its_own_last_words(kept: Kept) -> None:
    kept.launcher.words = ["no such model: resnet-9000"]
    kept.init("upper")
    await eventually(lambda: kept.catalog.etl("upper").state == "failed")
    assert len(kept.launcher.orders) == MOST
    assert kept.catalog.etl("upper").message == "its worker ended with exit code 1: no such model: resnet-9000"
    log = (kept.places.logs / "upper.log").read_text()
    assert log.count("no such model: resnet-9000\n") >= MOST
    await eventually(lambda: kept.workers("upper") == ())


async def test_one_that_hangs_has_failed_with_its_last_words_and_what_may_be_in_the_way(kept: Kept) -> None:
    """Whoever looks first decides that it took too long: it need not be its keeper."""
    kept.launcher.words = ["hang", "loading the weights"]
    kept.init("upper", init_timeout=1.5)
    await eventually(lambda: kept.catalog.etl("upper").state == "failed")
    message = kept.catalog.etl("upper").message
    assert "init_timeout, 1.5 s" in message
    assert message.endswith(": loading the weights. it may be out of reach")


async def test_what_was_said_of_a_start_is_not_said_of_one_that_runs(kept: Kept) -> None:
    kept.init("upper")
    assert (await kept.running("upper")).message == ""


async def test_a_start_that_is_refused_for_good_is_not_tried_again(kept: Kept) -> None:
    kept.launcher.refusal = StartError("there is no engine", final=True)
    kept.init("upper")
    await eventually(lambda: kept.catalog.etl("upper").state == "failed")
    assert kept.catalog.etl("upper").message == "there is no engine"
    assert len(kept.launcher.orders) == 1


async def test_a_failed_update_leaves_the_old_revision_serving(kept: Kept) -> None:
    kept.init("upper")
    old = await kept.running("upper")
    kept.launcher.refusal = StartError("it does not fit", final=True)
    kept.init("upper", max_output=5)
    await eventually(lambda: not kept.catalog.snapshot().pending)
    assert kept.catalog.etl("upper").state == "running"
    assert "it does not fit" in kept.catalog.etl("upper").message
    await eventually(lambda: len(kept.workers("upper")) == 1)
    assert kept.worker("upper").pid == old.pid


def test_deaths_are_waited_out_longer_each_time_and_then_are_too_many() -> None:
    restarts = Restarts()
    pauses = [restarts.died(now, 1.0, at_work=False) for now in range(MOST)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, None]


def test_deaths_far_apart_or_at_work_are_never_too_many() -> None:
    restarts = Restarts()
    assert [restarts.died(now * 20.0, 15.0, at_work=False) for now in range(9)] == [0.1] * 9
    at_work = [restarts.died(1000.0, 0.0, at_work=True) for _ in range(20)]
    assert None not in at_work
    assert at_work[-1] == 10.0


# --- resting ------------------------------------------------------------------------------------


async def test_a_worker_without_work_is_stopped_and_started_for_the_next_run(kept: Kept) -> None:
    record = kept.init("upper", idle_timeout=0.2)
    first = await kept.running("upper")
    await eventually(lambda: kept.worker("upper").state == "idle" and not is_alive(first.pid))
    assert kept.catalog.etl("upper").state == "running"
    runs = ByteHolds(kept.places.uses)
    with runs.holding(use_offset("upper", record.revision)):
        second = await eventually(lambda: w if (w := kept.worker("upper")).state == "running" else None)
        assert second.pid != first.pid
        await asyncio.sleep(0.5)
        assert kept.worker("upper").pid == second.pid  # it doesn't rest while it is held
    runs.close()


# --- logs ---------------------------------------------------------------------------------------


def test_a_log_is_bounded_and_keeps_what_was_before(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "upper.log", max_bytes=100)
    for i in range(30):
        log.write(b"line %02d\n" % i)
    log.close()
    text = (tmp_path / "upper.log.1").read_text() + (tmp_path / "upper.log").read_text()
    assert text.endswith("line 28\nline 29\n")
    assert 100 < len(text) <= 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["upper.log", "upper.log.1"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", ""),
        (
            b"Traceback\n  File x\nModuleNotFoundError: No module named 'foo'\n\n",
            "ModuleNotFoundError: No module named 'foo'",
        ),
        (b"could not load the model\nKilled\n", "could not load the model / Killed"),
        (b"x" * 10_000, "x" * 500),
    ],
)
async def test_last_words(tmp_path: Path, said: bytes, words: str) -> None:
    log = LogFile(tmp_path / "upper.log")
    captured = Captured(log)
    os.write(captured.write_fd, said)
    assert captured.last_words == words
    captured.close()
    assert captured.last_words == words
    log.close()


# --- what a killed one left ---------------------------------------------------------------------


@pytest.fixture
def orphan(places: Places) -> Iterator[int]:
    """A process with the mark whose parent is gone."""
    code = (
        "import subprocess, sys; env = {sys.argv[1]: sys.argv[2]}; "
        "print(subprocess.Popen(['sleep', '60'], env=env, stdout=subprocess.DEVNULL).pid)"
    )
    command = [sys.executable, "-c", code, MARK, places.mark]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    pid = int(answer.stdout)
    yield pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_reaping_ends_orphans_and_leaves_what_somebody_runs(places: Places, orphan: int) -> None:
    # as a pool's worker is: below a process of the supervisor's, which is this one
    parent = "import subprocess, sys; subprocess.run(['sleep', '60'], env={sys.argv[1]: sys.argv[2]})"
    server = subprocess.Popen([sys.executable, "-c", parent, MARK, places.mark])
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    give_up = time.monotonic() + PATIENCE_S
    while (
        not (pooled := children.read_text().split()) or b"sleep" not in Path(f"/proc/{pooled[0]}/cmdline").read_bytes()
    ):
        assert time.monotonic() < give_up
    try:
        assert reap(Places(places.folder, "target-1").mark, os.getpid()) == 0
        assert reap(places.mark, os.getpid()) == 1
        wire.eventually(lambda: gone(orphan))
        assert is_alive(int(pooled[0]))
    finally:
        os.kill(int(pooled[0]), signal.SIGKILL)
        server.wait()


def test_usage_is_of_a_process_and_all_below_it() -> None:
    work = "import subprocess, sys; x = bytearray(30_000_000); print('ready', flush=True); sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    process = subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = tree_usage(process.pid)
        assert usage is not None
        assert usage.memory > 40_000_000
        assert usage.cpu_s > 0
    assert tree_usage(process.pid) is None
