"""Runs over a store in memory: joined, kept, abandoned, timed out, crashed; and nothing passes for whole that isn't."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from transom_test_transformers import grow_bytes

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord
from transom.plugins.manager import Transformers
from transom.target.errors import (
    EtlCrashed,
    EtlFailed,
    EtlInputRejected,
    EtlOutputTooLarge,
    EtlSkipped,
    EtlTimeout,
    EtlUnavailable,
    SlowDown,
    SourceChanged,
    TargetError,
)
from transom.target.etl.limits import Limits
from transom.target.etl.outputs import HEAD_SIZE, DirectRun
from transom.target.etl.plan import identify
from transom.target.etl.runs import Wanted
from transom.target.service import ResultSettings, Target
from transom.target.store.base import Attributes
from transom.target.store.memory import MemoryStore

MIB = 1024 * 1024
WAIT_S = 20.0


@dataclass
class Log:
    """What transformers note of their runs."""

    path: Path

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    path = tmp_path / "runs.log"
    path.touch()
    return Log(path)


@pytest.fixture
def limits() -> Limits:
    return Limits(max_output=64 * MIB, wait_s=WAIT_S)


@pytest.fixture
async def target(tmp_path: Path, transformers: Transformers, catalog: Catalog, limits: Limits) -> AsyncIterator[Target]:
    made = Target(
        MemoryStore(), transformers, catalog, tmp_path, limits=limits, results=ResultSettings(max_bytes=256 * MIB)
    )
    await made.store.create_bucket("b", owner="o")
    yield made
    await made.close()


async def put(target: Target, key: str, data: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield data

    await target.store.put("b", key, body(), Attributes())


async def wanted(target: Target, etl: str, args: str | None = None, *, data: bytes = b"data") -> Wanted:
    await put(target, "k", data)
    source = await target.store.head("b", "k")
    plan = target.registry.plan(etl.split(">>"), args)
    return Wanted(plan, source, identify(plan, source))


async def made(target: Target, etl: str, args: str | None = None, *, data: bytes = b"data") -> bytes:
    opened = await target.materialise(await wanted(target, etl, args, data=data))
    found = opened.read(0, opened.size)
    opened.close()
    return found


def left_behind(target: Target) -> list[Path]:
    return list(target._results.scratch_folder.glob("[0-9a-f]*"))


async def eventually(check: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110 - what is waited for happens in another thread or process
            await asyncio.sleep(0.01)


async def all_of(run: DirectRun) -> bytes:
    pieces = []
    while (piece := await run.next()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


# --- what comes out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100 * 1024, 3 * MIB + 1], ids=["empty", "one", "worker", "pieces"])
@pytest.mark.parametrize("etl", ["upper", "reverse>>upper>>reverse", "sleep>>upper"])
async def test_pipelines_make_the_same_bytes_wherever_their_stages_run(target: Target, etl: str, size: int) -> None:
    data = grow_bytes(size)
    assert await made(target, etl, data=data) == data.upper()
    run = await target.direct(await wanted(target, etl, data=data), time.monotonic() + WAIT_S)
    assert await all_of(run) == data.upper()


async def test_first_piece_of_a_direct_run_is_more_than_the_head_or_all(target: Target) -> None:
    for size in (0, 1, HEAD_SIZE, HEAD_SIZE + 1, 5 * MIB):
        run = await target.direct(await wanted(target, "grow", str(size)), time.monotonic() + WAIT_S)
        first = await run.next() or b""
        assert len(first) > HEAD_SIZE or len(first) == size
        assert first + await all_of(run) == grow_bytes(size)


@pytest.mark.parametrize(
    ("etl", "args", "error", "text"),
    [
        ("fail", None, EtlFailed, "'fail' failed: RuntimeError: as asked"),
        ("fail", '{"error": "EOFError"}', EtlFailed, "'fail' failed: EOFError: as asked"),
        ("fail", '{"error": "ConnectionResetError"}', EtlFailed, "'fail' failed: ConnectionResetError: as asked"),
        ("upper>>fail>>md5", None, EtlFailed, "'fail'"),
        ("fail_late", str(3 * MIB), EtlFailed, "'fail_late'"),
        ("reject", '"no"', EtlInputRejected, "'reject' can't transform this object: no"),
        ("skip", None, EtlSkipped, "'skip' leaves this object out"),
        ("grow", str(64 * MIB + 1), EtlOutputTooLarge, "'grow'"),
    ],
)
@pytest.mark.parametrize("data", [b"data", b"data" * MIB], ids=["here", "worker"])
async def test_what_a_transformer_raises_names_its_etl(
    target: Target, etl: str, args: str | None, error: type[TargetError], text: str, data: bytes
) -> None:
    with pytest.raises(error, match=text):
        await made(target, etl, args, data=data)
    with pytest.raises(error, match=text):
        await all_of(await target.direct(await wanted(target, etl, args, data=data), time.monotonic() + WAIT_S))
    assert left_behind(target) == []


async def test_an_input_that_breaks_is_no_short_result_whatever_becomes_of_its_error(target: Target) -> None:
    asked = await wanted(target, "fail_late>>swallow", "[300000, null]")
    with pytest.raises(EtlFailed, match="'fail_late' failed"):
        await all_of(await target.direct(asked, time.monotonic() + WAIT_S))
    with pytest.raises(EtlFailed, match="'fail_late' failed"):
        await made(target, "fail_late>>swallow", "[300000, null]")


async def test_refusals_are_known_without_another_run(target: Target, log: Log) -> None:
    asked = await wanted(target, "count>>reject", f'["{log.path}", null]')
    for _ in range(3):
        with pytest.raises(EtlInputRejected):
            await target.materialise(asked)
    with pytest.raises(EtlInputRejected):
        target.cached(asked)
    assert log.lines().count("run b/k") == 1


async def test_source_replaced_before_the_run_is_noticed(target: Target) -> None:
    asked = await wanted(target, "upper", data=b"old")
    await put(target, "k", b"new")
    with pytest.raises(SourceChanged):
        await target.materialise(asked)
    with pytest.raises(SourceChanged):
        await target.direct(asked, time.monotonic() + WAIT_S)


async def test_store_that_breaks_is_an_error_and_no_endless_run(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await wanted(target, "upper")

    async def broken(*_: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(target.store, "open", broken)
    with pytest.raises(EtlFailed, match="'upper' failed: OSError") as failed:
        await target.materialise(asked)
    assert "fire" not in failed.value.message


# --- who waits for it -----------------------------------------------------------------------------------


async def test_one_run_for_all_who_wait(target: Target, log: Log, tmp_path: Path) -> None:
    args = f'{{"log": "{log.path}", "before": {2 * MIB}, "gate": "{tmp_path / "gate"}", "after": 1}}'
    asked = await wanted(target, "tap", args)
    waiting = [asyncio.ensure_future(target.materialise(asked)) for _ in range(10)]
    run = target.start(asked)
    await run.wait(2 * MIB, WAIT_S)  # bytes are there before it ends
    assert not run.done and run.opened() is None and target.under_way(asked)
    follower = run.follow()
    assert await anext(follower) == b"b" * MIB
    (tmp_path / "gate").touch()
    opened = await asyncio.gather(*waiting)
    assert {each.read(2 * MIB - 1, each.size) for each in opened} == {b"ba"}
    assert b"".join([piece async for piece in follower]) == b"b" * MIB + b"a"
    assert log.lines() == ["start", "end"]
    assert not target.under_way(asked)
    for each in opened:
        each.close()


async def test_wait_budget_passes_the_run_goes_on_and_is_joined(target: Target, log: Log, tmp_path: Path) -> None:
    asked = await wanted(target, "tap", f'{{"log": "{log.path}", "gate": "{tmp_path / "gate"}", "after": 3}}')
    run = target.start(asked)
    with pytest.raises(SlowDown) as refused:
        await run.wait(None, 0.05)
    assert refused.value.retry_after_s
    (tmp_path / "gate").touch()
    opened = await target.materialise(asked)
    assert opened.read(0, 3) == b"aaa"
    opened.close()
    assert log.lines() == ["start", "end"]


async def test_a_failed_run_fails_all_its_waiters_and_is_not_kept(target: Target, log: Log) -> None:
    asked = await wanted(target, "count>>fail", f'["{log.path}", null]')
    outcomes = await asyncio.gather(*(target.materialise(asked) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, EtlFailed) for outcome in outcomes)
    assert target.cached(asked) is None


async def test_cancelled_direct_run_stops_and_gives_its_place_back(
    target: Target, catalog: Catalog, log: Log, tmp_path: Path
) -> None:
    args = {"log": str(log.path), "gate": str(tmp_path / "never"), "drip": 1}
    catalog.put_etl(EtlRecord("one", "tap", args=args, concurrency=1))
    for number in (1, 2):
        run = await target.direct(await wanted(target, "one"), time.monotonic() + WAIT_S)
        await eventually(lambda number=number: log.lines().count("start") == number)
        run.cancel()
        await eventually(lambda number=number: log.lines().count("left") == number)


async def test_time_that_a_slow_client_takes_is_not_the_transformers(target: Target, catalog: Catalog) -> None:
    catalog.put_etl(EtlRecord("brief", "grow", args={"size": 12 * MIB}, timeout_s=0.5))
    run = await target.direct(await wanted(target, "brief"), time.monotonic() + WAIT_S)
    first = await run.next()
    await asyncio.sleep(1.5)
    assert first is not None
    assert first + await all_of(run) == grow_bytes(12 * MIB)


# --- deadlines and crashes ------------------------------------------------------------------------------


async def test_deadline_in_a_thread_fails_the_run_and_its_late_end_changes_nothing(
    target: Target, catalog: Catalog, log: Log
) -> None:
    catalog.put_etl(
        EtlRecord("late", "count", args={"log": str(log.path), "seconds": 1.2}, timeout_s=0.1, concurrency=2)
    )
    asked = await wanted(target, "late")
    with pytest.raises(EtlTimeout, match="'late' passed its deadline"):
        await target.materialise(asked)
    with pytest.raises(EtlUnavailable, match="have not returned"):  # one of two places is lost
        await target.materialise(asked)
    assert log.lines().count("run b/k") == 1
    await asyncio.sleep(1.2)
    assert target.cached(asked) is None  # what came too late isn't kept: a retry may have begun


async def test_deadline_in_a_worker_kills_it(target: Target, catalog: Catalog) -> None:
    catalog.put_etl(EtlRecord("endless", "loop_forever", timeout_s=1.0))
    with pytest.raises(EtlTimeout, match="'endless' passed its deadline"):
        await made(target, "endless", data=b"x" * 100 * 1024)
    assert await made(target, "busy", "0", data=b"x" * 100 * 1024) == b"x" * 100 * 1024  # in another worker


async def test_crashes_open_the_circuit_of_their_own_stage(target: Target) -> None:
    data = b"x" * 100 * 1024
    for _ in range(5):
        with pytest.raises(EtlCrashed, match="'crash' crashed: its worker process ended with exit code 70"):
            await made(target, "reverse>>crash", data=data)
    with pytest.raises(EtlUnavailable, match="'crash'"):
        await made(target, "reverse>>crash", data=data)
    assert await made(target, "reverse", data=data) == data


async def test_closing_gives_up_what_is_under_way(target: Target, log: Log, tmp_path: Path) -> None:
    asked = await wanted(target, "tap", f'{{"log": "{log.path}", "gate": "{tmp_path / "gate"}", "after": 3}}')
    waiting = asyncio.ensure_future(target.materialise(asked))
    await eventually(log.lines)
    await target._runner.close()
    with pytest.raises(EtlFailed, match="the server stops"):
        await waiting
    (tmp_path / "gate").touch()  # for the thread, which nothing can stop
