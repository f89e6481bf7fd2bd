"""Runs `scripts/bench offline`: each case's contestants in turn, round after round, over the same objects.

The objects lie in Transom's store, and as files that rclone serves and the bare pool reads.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from transom.bench.data import photo_blobs
from transom.bench.mix import Workload
from transom.bench.objects import EXTENSIONS, blobs, parse_kind
from transom.bench.peers import Peer, PeerError, rclone, transom
from transom.bench.run import Bench, BenchError
from transom.bench.sign import Credentials, Endpoint
from transom.bench.suite.compare import Say, add
from transom.bench.suite.offline_baselines import keys, pool_over_files, s3, sort_files, threads_over_s3
from transom.bench.suite.offline_cases import LOCAL, MIB, OWN, POOL, QUICK, RAY, RCLONE, OfflineCase
from transom.bench.suite.ratios import Figures
from transom.bench.worker import Pace
from transom.client.admin import AdminClient, AdminError

SHARD_SIZE = 32 * MIB
INLINE = "get 100KiB"
ALONE, BESIDE = "alone", "beside a job"
_PUT_AT_ONCE = 16
Results = dict[tuple[str, str], Figures]


@dataclass(slots=True)
class _Field:
    """The servers and how jobs are asked for, where the files are, and how many workers everybody has."""

    own: Peer
    admin: AdminClient
    rclone: Peer | None
    files: Path
    work: Path
    workers: int
    seed: int
    absent: dict[str, str] = field(default_factory=dict)
    _number: int = 0

    def fresh(self, what: str) -> str:
        """A name that nobody has had."""
        self._number += 1
        return f"made-{what}-{self._number}"


@contextmanager
def field_of(work: Path, cases: Sequence[str], *, ray: str, workers: int, say: Say) -> Iterator[_Field]:
    """Start the servers for some cases, by name. `ray` is a cluster's address; empty leaves Ray out."""
    with ExitStack() as stack:
        absent: dict[str, str] = {}
        options: tuple[str, ...] = ()
        if ray:
            config = work / "transom.toml"
            config.write_text(f'[jobs]\nray_address = "{ray}"\n')
            options = ("--config", str(config))
        else:
            absent[RAY] = "no --ray ADDRESS was given"
        own = stack.enter_context(transom(work / "transom", processes=workers, options=options))
        other: Peer | None = None
        try:
            files = work / "rclone" / "files"
            for name in cases:  # rclone remembers which folders there are
                (files / name).mkdir(parents=True)
            other = stack.enter_context(rclone(work / "rclone"))
        except PeerError as error:
            absent[RCLONE] = str(error)
        for name, reason in absent.items():
            say(f"{name} is not part of this run: {reason}")
        admin = stack.enter_context(AdminClient(own.endpoint, own.access_key, own.secret_key))
        yield _Field(own, admin, other, work / "rclone" / "files", work, workers, 0, absent)


def measure(case: OfflineCase, on: _Field, *, rounds: int, quick: bool, say: Say) -> Results:
    """Every contestant's objects a second, a value a round."""
    count = max(1, case.count // QUICK) if quick else case.count
    results: Results = {(case.name, name): Figures() for name in case.contestants if name not in on.absent}
    total = _prepare(case, count, on)
    say(f"{case.name}: {count} objects, {total / MIB:.0f} MiB")
    try:
        for number in range(rounds):
            for (_, name), figures in results.items():
                if figures.error:
                    continue
                try:
                    taken_s = _timed(name, case, count, on)
                except (BenchError, AdminError, OSError, ClientError, BotoCoreError) as error:
                    figures.error = str(error)
                    say(f"{case.name}, {name}: {error}")
                    continue
                figures.ops_per_s.append(count / taken_s)
                figures.mib_per_s.append(total / MIB / taken_s)
                say(f"{case.name}, {name}, round {number + 1}: {count / taken_s:,.0f} objects/s")
    finally:
        _remove_bucket(on.own, case.name)
        shutil.rmtree(on.files / case.name, ignore_errors=True)
    return results


def _timed(name: str, case: OfflineCase, count: int, on: _Field) -> float:
    """Let one contestant do the case; return the seconds it took. What it made is counted and removed."""
    made = on.fresh(case.name)
    contestant, clean, left = _contestant(name, case, made, on)
    try:
        os.sync()  # or whoever makes its own files durable would write those of the one before, too
        begun = time.perf_counter()
        contestant()
        taken_s = time.perf_counter() - begun
        if case.etl and left() != count:
            raise BenchError(f"made {left()} of {count} objects")
    finally:
        clean()
    return taken_s


def _contestant(
    name: str, case: OfflineCase, made: str, on: _Field
) -> tuple[Callable[[], object], Callable[[], None], Callable[[], int]]:
    """What it does, what removes what it made, and how many objects it made."""
    if name in (LOCAL, RAY):
        engine: Literal["local", "ray"] = "ray" if name == RAY else "local"

        def forget() -> None:
            for job in on.admin.jobs():
                on.admin.remove_job(job.id)
            _remove_bucket(on.own, made)

        return lambda: _job(case, made, engine, on), forget, lambda: _count(on.own, made)
    if name == POOL:
        source, folder = on.files / case.name, on.work / made

        def run() -> object:
            if not case.etl:
                return sort_files(source, folder, SHARD_SIZE, on.workers)
            return pool_over_files(source, folder, case.etl, case.args, on.workers)

        return run, lambda: shutil.rmtree(folder, ignore_errors=True), lambda: len(list(folder.iterdir()))
    peer = on.own if name == OWN else on.rclone
    if peer is None:
        raise BenchError("rclone is not there")
    return (
        lambda: threads_over_s3(peer, case.name, made, case.etl, case.args, on.workers),
        lambda: _remove_bucket(peer, made),
        lambda: _count(peer, made),
    )


def _job(case: OfflineCase, made: str, engine: Literal["local", "ray"], on: _Field) -> None:
    source, destination, admin = f"s3://{case.name}", f"s3://{made}", on.admin
    if case.etl:
        args = json.loads(case.args) if case.args else None
        job = admin.transform(source, destination, case.etl, args=args, engine=engine, concurrency=on.workers)
    else:
        job = admin.sort(source, destination, shard_size=SHARD_SIZE, engine=engine, concurrency=on.workers)
    job = admin.wait_job(job.id)
    if job.state != "done" or job.failed:
        raise BenchError(f"the job ended {job.state}, {job.failed} failed: {job.message}")


# --- inline beside offline ----------------------------------------------------------------------


def inline_latency(on: _Field, *, rounds: int, seconds: float, say: Say) -> Results:
    """GETs of 100 KiB while the server has nothing else to do, and while a job without end resizes photos."""
    results: Results = {(INLINE, ALONE): Figures(), (INLINE, BESIDE): Figures()}
    case = OfflineCase("inline", "image", "photo", 400, (), pixels=(1600, 1200), args='{"width":224,"height":224}')
    _prepare(case, case.count, on)
    workload = Workload(
        endpoint=Endpoint.parse(on.own.endpoint),
        bucket="bench-inline",
        credentials=Credentials(on.own.access_key, on.own.secret_key),
        mix={"get": 1},
        size=100 * 1024,
        objects=64,
        seed=on.seed,
    )
    bench = Bench(workload, Pace(concurrency=4, duration_s=seconds, warmup_s=0.3, cores=()))
    try:
        with bench.prepared():
            bench.rehearse()
            for _ in range(rounds):
                add(results[INLINE, ALONE], bench.measure())
                with _busy(case, on):
                    add(results[INLINE, BESIDE], bench.measure())
    finally:
        _remove_bucket(on.own, case.name)
    for (_, name), figures in results.items():
        say(f"{INLINE} {name}: p99 {sorted(figures.p99_ms)[len(figures.p99_ms) // 2]:.1f} ms")
    return results


@contextmanager
def _busy(case: OfflineCase, on: _Field) -> Iterator[None]:
    """A job is under way inside; it is aborted afterwards."""
    made, admin = on.fresh(case.name), on.admin
    args = json.loads(case.args)
    job = admin.transform(f"s3://{case.name}", f"s3://{made}", case.etl, args=args, concurrency=on.workers)
    try:
        give_up = time.monotonic() + 30
        while not admin.job(job.id).written:
            if time.monotonic() > give_up:
                raise BenchError("the job beside which to measure did not begin")
            time.sleep(0.02)
        yield
        if admin.job(job.id).state != "running":
            raise BenchError("the job ended before the measurement: there was nothing beside it")
    finally:
        admin.abort_job(job.id)
        admin.wait_job(job.id)
        admin.remove_job(job.id)
        _remove_bucket(on.own, made)


# --- the objects --------------------------------------------------------------------------------


def _prepare(case: OfflineCase, count: int, on: _Field) -> int:
    """Put the objects at Transom and write them as files; return their bytes in all."""
    folder = on.files / case.name
    folder.mkdir(parents=True, exist_ok=True)
    if case.pixels is not None:
        made = photo_blobs(*case.pixels, count, on.seed)
    else:
        made = blobs(parse_kind(case.kind), case.size, count, on.seed)
    client = s3(on.own, _PUT_AT_ONCE)
    client.create_bucket(Bucket=case.name)

    def put(number: int) -> int:
        data, key = bytes(made[number].view()), f"object-{number:06}{EXTENSIONS[parse_kind(case.kind)]}"
        (folder / key).write_bytes(data)
        client.put_object(Bucket=case.name, Key=key, Body=data)
        return len(data)

    try:
        with ThreadPoolExecutor(_PUT_AT_ONCE) as pool:
            return sum(pool.map(put, range(count)))
    finally:
        client.close()


def _count(peer: Peer, bucket: str) -> int:
    client = s3(peer)
    try:
        return sum(1 for _ in keys(client, bucket))
    finally:
        client.close()


def _remove_bucket(peer: Peer, bucket: str) -> None:
    client = s3(peer)
    try:
        names: Sequence[str] = list(keys(client, bucket))
        for start in range(0, len(names), 1000):
            client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in names[start : start + 1000]]}
            )
        client.delete_bucket(Bucket=bucket)
    except client.exceptions.NoSuchBucket:
        pass
    finally:
        client.close()


def workers() -> int:
    """As many workers as this process may use cores."""
    return len(os.sched_getaffinity(0))
