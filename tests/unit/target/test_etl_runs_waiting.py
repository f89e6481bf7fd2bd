"""Runs that do little but wait for a worker need no thread: many at once, slow ones, and some that break."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.stub_workers import Request, Wire, echo, every_request, stub_worker
from transom.cluster.catalog import Catalog
from transom.plugins.manager import Transformers
from transom.target.errors import EtlFailed, EtlTimeout
from transom.target.etl.error_log import ErrorLog
from transom.target.etl.keeper.places import LOCAL, Places
from transom.target.etl.limits import Limits
from transom.target.etl.outputs import DirectRun
from transom.target.etl.plan import Plan, Stage, identify
from transom.target.etl.runs import Wanted
from transom.target.etl.runtimes.elsewhere import Elsewhere
from transom.target.etl.runtimes.served import ServedRuntime
from transom.target.etl.workers_status import EtlStatus, WorkerStatus, write_status
from transom.target.service import ResultSettings, Target
from transom.target.store.base import Attributes
from transom.target.store.local import LocalStore

MIB = 1024 * 1024
WAIT_S = 20.0


class Unused:
    def close(self) -> None:
        """Nothing to let go of."""


class Desk:
    """A target with one ETL, whose worker is the test's."""

    def __init__(self, target: Target, places: Places, stack: ExitStack) -> None:
        self.target = target
        self._places = places
        self._stack = stack
        self._closed = False

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.target.close()

    def worker(self, serve: Callable[[Wire], object]) -> None:
        stub = self._stack.enter_context(stub_worker(serve))
        status = WorkerStatus(1, "running", address=stub.address, chunked=True)
        write_status(self._places.folder, LOCAL, EtlStatus("far", (status,)))

    async def start(self, data: bytes = b"data", timeout_s: float = WAIT_S, **spec: Any) -> DirectRun:
        async def body() -> AsyncIterator[bytes]:
            yield data

        await self.target.store.put("b", "k", body(), Attributes())
        source = await self.target.store.head("b", "k")
        given = {"name": "far", "runtime": {"code": "x"}, "communication": "hpush://", **spec}
        stage = Stage("far", "", "1", 1, "null", "null", 0, timeout_s=timeout_s, runtime="code", spec=json.dumps(given))
        plan = Plan((stage,))
        return await self.target.direct(Wanted(plan, source, identify(plan, source)), time.monotonic() + WAIT_S)

    async def started_and_asked(self) -> tuple[DirectRun, threading.Event]:
        """A run whose worker was asked and never answers, and what is set once the worker has been left."""
        asked, left = threading.Event(), threading.Event()

        def serve(wire: Wire) -> None:
            wire.request()
            asked.set()
            if wire.is_left():
                left.set()

        self.worker(serve)
        run = await self.start()
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        return run, left


@pytest.fixture
async def desk(tmp_path: Path, transformers: Transformers, catalog: Catalog) -> AsyncIterator[Desk]:
    unused: Any = Unused()
    places = Places(tmp_path)
    target = Target(
        LocalStore.at(tmp_path / "store", threads=4),
        transformers,
        catalog,
        tmp_path,
        limits=Limits(concurrency=32, max_output=64 * MIB),
        results=ResultSettings(),
        elsewhere=lambda scratch: Elsewhere(ServedRuntime(places, scratch), unused, unused),
    )
    await target.store.create_bucket("b", owner="o")
    with ExitStack() as stack:
        made = Desk(target, places, stack)
        yield made
        await made.close()
    await target.store.close()


async def all_of(run: DirectRun) -> bytes:
    pieces = []
    async with asyncio.timeout(WAIT_S):
        while (piece := await run.next()) is not None:
            pieces.append(piece)
    return b"".join(pieces)


def run_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("etl-")]


async def test_as_many_as_there_are_places_are_under_way_at_once_with_no_thread_of_their_own(desk: Desk) -> None:
    together, before = threading.Barrier(32), run_threads()

    def serve(wire: Wire, request: Request) -> None:
        together.wait(WAIT_S)
        echo(wire, request)

    desk.worker(every_request(serve))
    runs = [await desk.start() for _ in range(32)]
    assert await asyncio.gather(*map(all_of, runs)) == [b"data"] * 32
    assert run_threads() == before


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1], ids=["empty", "one", "small", "large"])
async def test_objects_of_any_size_come_back_whole(desk: Desk, size: int) -> None:
    desk.worker(every_request(echo))
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await all_of(await desk.start(data)) == data


async def test_a_slow_client_holds_the_worker_back_and_its_time_is_not_the_transformers(desk: Desk) -> None:
    sent: list[int] = []

    def serve(wire: Wire, _: Request) -> None:
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {48 * MIB}\r\n\r\n".encode())
        for number in range(48):
            wire.send(bytes([number]) * MIB)
            sent.append(number)

    desk.worker(every_request(serve))
    run = await desk.start(timeout_s=0.5)
    first = await run.next()
    await asyncio.sleep(1.5)
    assert len(sent) < 24  # what the sockets hold, and a few pieces
    assert first is not None
    assert first + await all_of(run) == b"".join(bytes([number]) * MIB for number in range(48))


async def test_a_client_that_leaves_ends_the_call(desk: Desk) -> None:
    run, left = await desk.started_and_asked()
    run.cancel()
    assert await asyncio.to_thread(left.wait, WAIT_S)
    with pytest.raises(EtlFailed, match="nobody read"):
        await all_of(run)


async def test_a_worker_that_never_answers_is_left_at_the_deadline(desk: Desk) -> None:
    desk.worker(lambda wire: wire.is_left())
    with pytest.raises(EtlTimeout, match="'far' passed its deadline") as caught:
        await all_of(await desk.start(timeout_s=0.4))
    assert caught.value.etl == "far"
    desk.worker(every_request(echo))
    assert await all_of(await desk.start()) == b"data"


async def test_a_worker_that_goes_away_is_asked_again_and_others_go_on_meanwhile(desk: Desk) -> None:
    times: list[float] = []

    def serve(wire: Wire, request: Request) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise EOFError  # it closes the connection
        echo(wire, request)

    desk.worker(every_request(serve))
    first = await desk.start()
    while not times:  # noqa: ASYNC110 - what is waited for happens in another thread
        await asyncio.sleep(0.005)
    assert await all_of(await desk.start()) == b"data"  # while the other pauses before it tries again
    assert await all_of(first) == b"data"
    assert times[2] - times[0] > times[1] - times[0]


async def test_closing_ends_what_is_under_way(desk: Desk, tmp_path: Path) -> None:
    run, left = await desk.started_and_asked()
    await desk.close()
    with pytest.raises(EtlFailed, match="the server stops"):
        await all_of(run)
    assert await asyncio.to_thread(left.wait, WAIT_S)
    log = ErrorLog(tmp_path / "errors.sqlite")
    assert log.of_etl("far") == []  # it isn't the ETL's
    log.close()
