"""The threads of runs: what work comes to is told once, on the event loop, and a late thread takes nobody's place."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from transom.cluster.catalog import Catalog
from transom.target.errors import EtlFailed, EtlInputRejected, EtlTimeout, TargetError
from transom.target.etl.limits import Gate, Limits, Slot
from transom.target.etl.locks import ByteLocks
from transom.target.etl.threads import RunThreads
from transom.target.etl.waiting import LoopWork, on_loop, sleep
from transom.target.etl.watch import AbandonedError, Watch

_LONG_S = 20.0


@dataclass
class Desk:
    """Starts work and keeps what is told of it."""

    gate: Gate
    threads: RunThreads
    told: list[TargetError | None] = field(default_factory=list)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, work: Callable[[], None], timeout_s: float = _LONG_S, watch: Watch | None = None) -> Slot:
        slot = await self.gate.enter([("a", 2)], time.monotonic() + _LONG_S)
        self.threads.start(work, watch or Watch("a", timeout_s), slot, ["a"], self._tell)
        return slot

    def _tell(self, error: TargetError | None) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.told.append(error)
        self._heard.set()

    async def heard(self, times: int) -> None:
        async with asyncio.timeout(_LONG_S):
            while len(self.told) < times:
                self._heard.clear()
                await self._heard.wait()


@pytest.fixture
def desk(tmp_path: Path, catalog: Catalog) -> Iterator[Desk]:
    gate = Gate(ByteLocks(tmp_path / "slots"), Limits(), catalog)
    made = Desk(gate, RunThreads(gate))
    yield made
    made.threads.close()


def raises(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


async def test_work_runs_in_a_thread_and_gives_its_place_back(desk: Desk) -> None:
    seen: list[threading.Thread] = []
    for number in range(1, 6):  # more than there are places
        await desk.start(lambda: seen.append(threading.current_thread()))
        await desk.heard(number)
    assert desk.told == [None] * 5
    assert threading.main_thread() not in seen


async def test_threads_are_used_again(desk: Desk) -> None:
    seen: set[int] = set()
    for number in range(1, 6):
        await desk.start(lambda: seen.add(threading.get_ident()))
        await desk.heard(number)
    assert len(seen) == 1


async def test_greenlets_serve_again_and_those_of_a_crowd_are_freed(desk: Desk) -> None:
    made: weakref.WeakSet[LoopWork] = weakref.WeakSet()
    fresh: list[bool] = []

    def work() -> None:
        here = on_loop()
        assert here is not None
        fresh.append(here not in made)
        made.add(here)
        del here
        sleep(0.05)

    def start(count: int) -> None:
        for _ in range(count):
            desk.threads.start(work, Watch("a", _LONG_S), Slot(desk.gate.locks, []), ["a"], desk._tell, on_loop=True)

    start(200)
    await desk.heard(200)
    gc.collect()
    assert len(made) == 64
    start(60)
    await desk.heard(260)
    assert sum(fresh) == 200
    desk.threads.close()
    gc.collect()
    assert not made


async def test_two_at_once_have_a_thread_each(desk: Desk) -> None:
    both = threading.Barrier(2)

    def work() -> None:
        both.wait(_LONG_S)

    await desk.start(work)
    await desk.start(work)
    await desk.heard(2)
    assert desk.told == [None, None]


async def test_where_no_thread_can_be_had_the_place_is_given_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):  # more than there are places
            with pytest.raises(RuntimeError, match="new thread"):
                await desk.start(lambda: None)
    await desk.start(lambda: None)
    await desk.heard(1)
    assert desk.told == [None]


@pytest.mark.parametrize(
    ("raised", "told", "text"),
    [
        (EtlInputRejected("no"), EtlInputRejected, "no"),
        (AbandonedError(), EtlFailed, "nobody read what ETL 'a' made"),
        (ValueError("secret"), EtlFailed, "the run of ETL 'a' failed: ValueError$"),
        (KeyboardInterrupt(), EtlFailed, "the run of ETL 'a' failed: KeyboardInterrupt$"),
    ],
)
async def test_what_work_raises_is_told(desk: Desk, raised: BaseException, told: type[TargetError], text: str) -> None:
    await desk.start(raises(raised))
    await desk.heard(1)
    with pytest.raises(told, match=text):
        raise desk.told[0]  # type: ignore[misc]


async def test_past_its_deadline_work_is_late_and_its_place_is_lost_until_it_returns(desk: Desk) -> None:
    gate = threading.Event()
    await desk.start(lambda: gate.wait(_LONG_S) and None, timeout_s=0.05)
    await desk.heard(1)
    assert isinstance(desk.told[0], EtlTimeout)
    with pytest.raises(TargetError, match="have not returned"):
        desk.gate.check("a", 2)
    gate.set()
    async with asyncio.timeout(_LONG_S):
        while desk.gate._lost["a"]:  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)
    desk.gate.check("a", 2)
    assert len(desk.told) == 1


async def test_a_clock_that_stands_still_puts_the_deadline_off(desk: Desk) -> None:
    watch, gate = Watch("a", 0.05), threading.Event()

    def work() -> None:
        watch.pause()
        gate.wait(_LONG_S)
        watch.resume()

    await desk.start(work, watch=watch)
    await asyncio.sleep(1.2)  # two looks at the clock, and nothing else to wait for
    assert desk.told == []
    gate.set()
    await desk.heard(1)
    assert desk.told == [None]


async def test_whoever_decided_the_outcome_first_is_waited_for(desk: Desk) -> None:
    watch, gate = Watch("a", 0.05), threading.Event()

    def work() -> None:
        assert watch.settle()
        gate.wait(_LONG_S)

    await desk.start(work, watch=watch)
    await asyncio.sleep(1.2)
    assert desk.told == []
    gate.set()
    await desk.heard(1)
    assert desk.told == [None]


async def test_nothing_begins_once_it_is_closed(desk: Desk) -> None:
    begun, gate = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        gate.wait(_LONG_S)
        done.append("first")

    slot = await desk.start(work)
    await asyncio.to_thread(begun.wait, _LONG_S)
    desk.threads.close()
    with pytest.raises(RuntimeError, match="the server stops"):
        desk.threads.start(lambda: done.append("second"), Watch("a", 1.0), slot, ["a"], lambda _: None)
    gate.set()
    await desk.heard(1)
    assert done == ["first"]


async def test_what_waits_for_a_thread_gives_its_place_back_when_all_is_closed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transom.target.etl.threads._THREADS", 1)
    begun, gate = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        gate.wait(_LONG_S)
        done.append("first")

    await desk.start(work)
    await asyncio.to_thread(begun.wait, _LONG_S)
    await desk.start(lambda: done.append("second"))  # no place is left
    desk.threads.close()
    await desk.gate.enter([("a", 2)], time.monotonic())
    gate.set()
    await desk.heard(1)
    assert done == ["first"]
