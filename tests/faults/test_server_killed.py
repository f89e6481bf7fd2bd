"""Processes of the all-in-one server are killed with SIGKILL: one of several, and all of them at once."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from transom_test_transformers import grow_bytes

from tests.processes import (
    NO_RETRIES,
    children,
    gone,
    kill,
    md5,
    restarted,
    runs_under_way,
    serving,
    timed,
    workers,
)
from tests.running import RunningServer
from tests.wire import Exchange, Raw, Wire, at, eventually

MIB = 1024 * 1024
BUCKET = "killed"
PUTS = 200
NOISE = random.Random(1).randbytes(4 * MIB)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Four server processes."""
    running = RunningServer(tmp_path_factory.mktemp("four"), ("--processes", "4")).start()
    s3 = running.client()
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"source")
    s3.put_object(Bucket=BUCKET, Key="large", Body=NOISE[:200_000])
    yield running
    assert running.stop() == 0, "".join(running.log)


# --- one process of several ----------------------------------------------------------------------


def _waiters(
    server: RunningServer, target: str, runner: int, count: int, stack: ExitStack
) -> list[tuple[int, Exchange]]:
    """Requests for one result, `count` of them at processes that don't run it; with the pids that hold them."""
    opened: list[tuple[int, Exchange]] = []
    while sum(pid != runner for pid, _ in opened) < count:
        assert len(opened) < 300, "every connection went to one process"
        exchange = stack.enter_context(Wire(server).open("GET", target))
        opened.append((eventually(lambda e=exchange: serving(server, e.sock)), exchange))
    return opened


def _end(exchange: Exchange) -> Raw | None:
    try:
        return exchange.whole()
    except (AssertionError, OSError):  # cut before it said anything
        return None


def test_the_waiters_of_other_processes_take_a_killed_run_over(four: RunningServer) -> None:
    target = at(BUCKET, "source", etl="slow_start", etl_args="1.5")
    with ExitStack() as stack:
        first = stack.enter_context(Wire(four).open("GET", target))
        runner = eventually(lambda: next(iter(runs_under_way(four)), None))
        waiters = _waiters(four, target, runner, 3, stack)
        kill(runner)
        answers = [(pid, _end(exchange)) for pid, exchange in [(runner, first), *waiters]]
    for pid, answer in answers:
        if pid == runner:
            assert answer is None or not answer.ended
        else:
            assert answer is not None
            assert (answer.status, answer.body, answer.ended) == (200, b"source", True)
    restarted(four, runner, 4)
    eventually(lambda: not runs_under_way(four))
    answer = Wire(four).get(target)
    assert (answer.status, answer.body) == (200, b"source")


def test_new_connections_pass_by_a_process_that_keeps_dying(tmp_path: Path) -> None:
    server = RunningServer(tmp_path, ("--processes", "2")).start()
    try:
        for times in range(1, 5):  # the pause before the next start doubles, to most of a second
            victim = max(server.children())  # the one that was started last: the other lives through it all
            kill(victim)
            eventually(lambda times=times: sum("a process ended" in line for line in server.log) == times)
            if times == 4:
                break
            restarted(server, victim, 2)
        os.kill(server.pid, signal.SIGSTOP)  # nobody starts a successor
        assert {Wire(server).get("/").status for _ in range(30)} == {200}
        assert len([pid for pid in server.children() if not gone(pid)]) == 1
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


def test_the_slots_of_a_killed_process_are_free_again(four: RunningServer) -> None:
    """Eight runs at once are all that an ETL may have: none may be lost with the process that had it."""
    with ExitStack() as stack:
        for i in range(8):
            stack.enter_context(Wire(four).open("GET", at(BUCKET, "source", etl="sleep", etl_args=f"30.{i}")))
        scratch = four.folder / "results" / "tmp"
        eventually(lambda: sum(path.is_file() for path in scratch.iterdir()) == 8)
        victims = list(runs_under_way(four))
        for victim in victims:
            kill(victim)
    for victim in victims:
        restarted(four, victim, 4)
    with ThreadPoolExecutor(8) as pool:
        targets = [at(BUCKET, "source", etl="sleep", etl_args=f"0.3{i}") for i in range(8)]
        answers, took_s = timed(lambda: list(pool.map(Wire(four).get, targets)))
    assert [answer.body for answer in answers] == [b"source"] * 8
    assert took_s < 18  # the wait budget is 20 s: nobody waited for a place that a dead process has


def test_a_killed_worker_process_is_500_and_the_next_request_works(four: RunningServer) -> None:
    wire = Wire(four)
    target = at(BUCKET, "large", etl="busy", etl_args="2")
    with wire.open("GET", target) as exchange:
        eventually(lambda: runs_under_way(four))
        for worker in eventually(lambda: workers(four)):
            kill(worker)
        answer = exchange.whole()
    assert (answer.status, answer.code) == (500, "EtlCrashed")
    assert "'busy' crashed" in answer.message
    assert wire.get(target).body == NOISE[:200_000]


def test_a_worker_process_that_dies_idle_costs_nobody_anything(four: RunningServer) -> None:
    wire = Wire(four)
    assert wire.get(at(BUCKET, "large", etl="busy", etl_args="0.01")).status == 200
    idle = eventually(lambda: workers(four))
    for worker in idle:
        kill(worker)
    eventually(lambda: all(gone(worker) for worker in idle), within_s=5)
    for i in range(8):  # some of them at the process that had it
        assert wire.get(at(BUCKET, "large", etl="busy", etl_args=f"0.00{i}")).body == NOISE[:200_000]


def test_workers_die_with_their_server_process(four: RunningServer) -> None:
    wire = Wire(four)
    with wire.open("GET", at(BUCKET, "large", etl="busy", etl_args="8")):
        victim = eventually(lambda: next(iter(runs_under_way(four)), None))
        busy = eventually(lambda: [pid for pid in workers(four) if pid in children(victim)])
        kill(victim)
        eventually(lambda: all(gone(pid) for pid in busy), within_s=5)
    restarted(four, victim, 4)


# --- all at once ---------------------------------------------------------------------------------


@dataclass
class Puts:
    """What clients were putting when the server was killed, and what it had acknowledged."""

    s3: Any
    began: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)

    def put(self, number: int) -> None:
        size = (0, 1, 4_096, 70_000, 300_000, 1_000_000 if number % 4 else 3 * MIB)[number % 6] + number % 7
        key, body = f"put/{number}", NOISE[number : number + size]
        self.began[key] = md5(body)
        answer = self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        assert answer["ETag"] == f'"{md5(body)}"'
        self.acknowledged[key] = md5(body)

    def put_in_parts(self, number: int) -> None:
        key = f"parts/{number}"
        named = {"Bucket": BUCKET, "Key": key}
        upload = {**named, "UploadId": self.s3.create_multipart_upload(**named)["UploadId"]}
        pieces = [NOISE[number:] + NOISE[: 2 * MIB], NOISE[number : 10_000 + number]]
        parts = [
            {"PartNumber": i, "ETag": self.s3.upload_part(**upload, PartNumber=i, Body=piece)["ETag"]}
            for i, piece in enumerate(pieces, start=1)
        ]
        self.began[key] = md5(b"".join(pieces))
        self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        self.acknowledged[key] = self.began[key]


def _keys(s3: Any) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


def test_kill_9_of_the_server_during_200_concurrent_puts(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--processes", "2")
    s3 = server.client(max_pool_connections=PUTS, **NO_RETRIES)
    s3.create_bucket(Bucket=BUCKET)
    puts = Puts(s3)
    numbers, lock, stop = iter(range(10**9)), threading.Lock(), threading.Event()

    def keep_putting(in_parts: bool) -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers)
            try:
                (puts.put_in_parts if in_parts else puts.put)(number)
            except (BotoCoreError, ClientError):
                return  # the server is gone

    with ThreadPoolExecutor(PUTS) as pool:
        futures = [pool.submit(keep_putting, n % 25 == 0) for n in range(PUTS)]
        eventually(
            lambda: len(puts.acknowledged) > PUTS and any(key.startswith("parts/") for key in puts.acknowledged),
            within_s=60,
        )
        server.kill()
        stop.set()
        for future in futures:
            future.result()
    assert len(puts.began) > len(puts.acknowledged)  # it was killed in the middle of some
    server.start()
    _check_whole(server, puts)


def _check_whole(server: RunningServer, puts: Puts) -> None:
    assert not any((server.folder / "store" / "tmp").iterdir())
    s3 = server.client(max_pool_connections=16)
    listed = _keys(s3)
    assert set(puts.acknowledged) <= listed
    assert listed <= set(puts.began)  # one under way may have made it: then it is whole, as checked below

    def digest(key: str) -> str:
        found = hashlib.md5()
        for piece in s3.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(MIB):
            found.update(piece)
        return found.hexdigest()

    keys = sorted(listed)
    with ThreadPoolExecutor(8) as pool:
        assert dict(zip(keys, pool.map(digest, keys), strict=True)) == {key: puts.began[key] for key in keys}


def test_kill_9_while_results_are_made_serves_nothing_half(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--processes", "2")
    wire = Wire(server)
    wire.put(f"/{BUCKET}")
    wire.put(f"/{BUCKET}/source", b"source")
    size = 300 * MIB
    target = at(BUCKET, "source", etl="grow", etl_args=size)
    with wire.open("GET", target) as exchange:
        exchange.head().read(MIB)
        assert any(path.stat().st_size for path in runs_under_way(server).values())
        server.kill()
        assert not exchange.whole().ended
    tmp = server.folder / "results" / "tmp"
    assert any(tmp.iterdir())
    server.start()
    assert not any(tmp.iterdir())
    part = wire.get(target, {"range": f"bytes={size - 5}-"})
    assert (part.status, part.body) == (206, grow_bytes(size, size - 5))
    assert int(wire.head(target).headers["content-length"]) == size


def test_a_supervisor_that_dies_takes_every_process_and_worker_with_it(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server("--targets", "2")
    wire = Wire(server)
    wire.put(f"/{BUCKET}")
    wire.put(f"/{BUCKET}/large", NOISE[:200_000])
    assert wire.get(at(BUCKET, "large", etl="busy", etl_args="0.01")).status == 200
    found = [server.desk(), *server.children(), *eventually(lambda: workers(server))]
    assert len(found) == 5
    started = time.monotonic()
    server.kill()
    eventually(lambda: all(gone(pid) for pid in found), within_s=5)
    assert time.monotonic() - started < 5
    server.start()
    assert wire.get(at(BUCKET, "large", etl="md5")).body.decode() == md5(NOISE[:200_000])
