"""Batches of a job over a real store, by real transformers: what is written, what is left alone, what fails and how."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transom_test_transformers import grow_bytes

from tests.unit.target.job_site import LIMITS, PLAIN, Rig, open_rig, with_concurrency
from transom.plugins.contract import Context
from transom.plugins.manager import Transformers
from transom.target.errors import EtlUnavailable, SlowDown, SourceChanged
from transom.target.etl.limits import SLOTS, offset_of
from transom.target.etl.locks import ByteLocks
from transom.target.etl.registry import Registry
from transom.target.jobs import doing, making, truth
from transom.target.jobs.engines.base import Later
from transom.target.jobs.perform import Batch
from transom.target.jobs.records import Item, Outcome
from transom.target.store.base import Attributes, ObjectInfo, ObjectReader, Store, Whole
from transom.target.store.folder import FolderStore
from transom.target.store.router import StoreRouter

MIB = 1024 * 1024
ODD_KEYS = ("a/b/../c", "é ü", "line\nbreak", "nul\0", "\U0001f600", "-", "x" * 900, "//", "a%2Fb", "a>>b")


@pytest.fixture
def rig(tmp_path: Path, transformers: Transformers, registry: Registry) -> Iterator[Rig]:
    made = open_rig(tmp_path, transformers, registry)
    yield made
    made.site.close()


def states(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.state for outcome in sorted(outcomes, key=lambda outcome: outcome.n)]


# --- what is written ------------------------------------------------------------------------------


def test_each_object_becomes_what_the_pipeline_makes_of_it(rig: Rig) -> None:
    for n in range(20):
        rig.put(f"{n}", b"data %d" % n, replace(PLAIN, metadata={"n": str(n)}, tags={"t": str(n)}))
    done = rig.do(
        pickle.loads(pickle.dumps(rig.work("upper>>append", args_json='[null, "!"]', args=[None, "!"]))),
        map(str, range(20)),
    )
    assert states(done.outcomes) == ["written"] * 20
    assert (done.unfinished, done.worn_out) == ((), False)
    for n, outcome in enumerate(sorted(done.outcomes, key=lambda outcome: outcome.n)):
        made = b"DATA %d!" % n
        info = rig.head(f"{n}")
        assert rig.read(f"{n}") == made
        assert info.etag == hashlib.md5(made).hexdigest()
        assert info.attributes.metadata["n"] == str(n)
        assert info.attributes.tags == {"t": str(n)}
        assert info.attributes.metadata[truth.ARGS] == '[null,"!"]'
        assert (info.content_type, info.attributes.owner) == ("text/plain", "owner")
        assert truth.source_of(info) == ("src", str(n))
        assert (outcome.bytes_in, outcome.bytes_out) == (len(b"data %d" % n), len(made))
    assert not rig.left_over()


def test_the_last_write_is_left_for_later_but_where_an_object_is_suspected(rig: Rig) -> None:
    rig.put("a", b"data")
    rig.put("b", b"data")
    work = rig.work("echo")
    begun = work.begin(rig.site, Batch((Item(1, "a", 4, "", "a"),)))
    assert isinstance(begun, Later)
    assert rig.keys() == []
    alone = work.begin(rig.site, Batch((Item(2, "b", 4, "", "b"),), alone=True))
    assert not isinstance(alone, Later)
    assert (states(alone.outcomes), rig.keys()) == (["written"], ["b"])
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(begun.wait).result()
    assert ([outcome.n for outcome in done.outcomes], rig.keys()) == ([1], ["a", "b"])


def test_the_content_type_is_the_pipelines(rig: Rig) -> None:
    rig.put(
        "k", b"data", Attributes(content={"content-type": "text/plain", "content-encoding": "x", "cache-control": "c"})
    )
    assert rig.one(rig.work("md5"), "k").state == "written"
    plan = rig.registry.plan(["md5"])
    content_type, _ = rig.site.pipelines.describe(plan, rig.head("k", bucket="src"))
    assert rig.head("k").attributes.content == {"content-type": content_type, "cache-control": "c"}


def test_empty_objects_and_empty_outputs(rig: Rig) -> None:
    rig.put("empty", b"")
    rig.put("full", b"data")
    assert states(rig.do(rig.work("echo"), ["empty", "full"]).outcomes) == ["written", "written"]
    assert rig.read("empty") == b""
    assert rig.one(rig.work("empty"), "full").bytes_out == 0
    assert rig.read("full") == b""


def test_odd_keys(rig: Rig) -> None:
    for key in ODD_KEYS:
        rig.put(key, key.encode())
    assert states(rig.do(rig.work("echo"), ODD_KEYS).outcomes) == ["written"] * len(ODD_KEYS)
    for key in ODD_KEYS:
        assert rig.read(key) == key.encode()
        assert truth.source_of(rig.head(key)) == ("src", key)


def test_outputs_on_either_side_of_what_is_held(rig: Rig) -> None:
    rig.put("k", b"")
    for size in (making.SMALL - 1, making.SMALL, making.SMALL + 1, 3 * making.SMALL):
        outcome = rig.one(rig.work("grow", args_json=str(size)), "k")
        assert (outcome.state, outcome.bytes_out) == ("written", size)
        assert rig.read("k") == grow_bytes(size)
    assert rig.blobs() == 2


def test_a_large_output_is_streamed_in_little_memory(rig: Rig) -> None:
    rig.put("k", b"")
    size = 64 * MIB
    work = rig.work("grow", args_json=str(size))
    rig.one(rig.work("grow", args_json=str(5 * MIB)), "k")
    tracemalloc.start()
    try:
        assert rig.one(work, "k").state == "written"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MIB
    assert hashlib.md5(rig.read("k")).hexdigest() == rig.head("k").etag == hashlib.md5(grow_bytes(size)).hexdigest()


def test_a_batch_ends_before_much_is_held_and_what_was_not_begun_is_given_out_again(rig: Rig) -> None:
    sizes: list[int] = []

    class Counting(StoreRouter):
        async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
            sizes.append(sum(len(whole.data) for whole in objects))
            return await super().put_many(bucket, objects)

    rig.site.store = Counting(rig.site.store, {})
    for n in range(12):
        rig.put(f"{n}", b"")
    work = rig.work("grow", args_json=str(3 * MIB))
    items = tuple(Item(n, str(n), 0, "", str(n)) for n in range(12))
    later = work.begin(rig.site, Batch(items))
    assert isinstance(later, Later) and not rig.keys()  # nobody who makes waited for the disk
    done = later.wait()
    assert [outcome.n for outcome in done.outcomes] == [0, 1, 2, 3, 4, 5]
    assert (done.unfinished, done.worn_out) == (items[6:], False)
    last = work(rig.site, Batch(done.unfinished))
    assert [outcome.n for outcome in last.outcomes] == [6, 7, 8, 9, 10, 11] and not last.unfinished
    assert states([*done.outcomes, *last.outcomes]) == ["written"] * 12
    assert sizes == [18 * MIB, 18 * MIB]


# --- what is left alone ---------------------------------------------------------------------------


def test_what_is_up_to_date_is_left_alone_and_what_is_stale_is_not(rig: Rig) -> None:
    for key in ("same", "changed", "retold", "overwritten"):
        rig.put(key, b"old")
    work, keys = rig.work("upper"), ["same", "changed", "retold", "overwritten"]
    assert states(rig.do(work, keys).outcomes) == ["written"] * 4
    before = rig.head("same")
    rig.put("changed", b"new")
    rig.put("retold", b"old", replace(PLAIN, metadata={"a": "b"}))
    rig.put("overwritten", b"by hand", bucket="dst")
    assert states(rig.do(work, keys).outcomes) == ["unchanged", "written", "written", "written"]
    assert rig.head("same") == before
    assert (rig.read("changed"), rig.read("overwritten")) == (b"NEW", b"OLD")
    assert states(rig.do(work, keys).outcomes) == ["unchanged"] * 4
    assert states(rig.do(rig.work("upper>>echo"), keys).outcomes) == ["written"] * 4


def test_force_makes_all_anew(rig: Rig) -> None:
    rig.put("k", b"data")
    assert rig.one(rig.work("upper"), "k").state == "written"
    first = rig.head("k")
    assert rig.one(rig.work("upper", force=True), "k").state == "written"
    assert rig.head("k").modified_ns > first.modified_ns


def test_a_dry_run_runs_and_writes_nothing(rig: Rig) -> None:
    for key in ("a", "b"):
        rig.put(key, b"data")
    rig.one(rig.work("upper"), "b")
    before = rig.blobs()
    done = rig.do(rig.work("upper", dry_run=True), ["a", "b", "missing"])
    assert states(done.outcomes) == ["written", "unchanged", "failed"]
    nowhere = rig.work("grow", args_json=str(9 * MIB), dry_run=True, destination="s3://not-there")
    outcome = rig.one(nowhere, "a")
    assert (outcome.state, outcome.bytes_out) == ("written", 9 * MIB)
    assert (rig.keys(), rig.blobs()) == (["b"], before)


def test_an_object_that_a_transformer_leaves_out(rig: Rig) -> None:
    rig.put("k", b"data")
    outcome = rig.one(rig.work("skip", args_json='"not this one"'), "k")
    assert (outcome.state, outcome.stage, outcome.code) == ("skipped", "skip", "")
    assert "not this one" in outcome.message
    assert rig.keys() == []


def test_a_predicate_over_the_jobs_own_output(rig: Rig) -> None:
    rig.put("yes", b"keep")
    rig.put("no", b"drop")
    work = rig.work("upper", where='output == "KEEP"')
    assert states(rig.do(work, ["yes", "no"]).outcomes) == ["written", "skipped"]
    assert rig.keys() == ["yes"]


def test_a_predicate_over_another_pipelines_output(rig: Rig) -> None:
    rig.put("yes", b"1")
    rig.put("no", b"2")
    work = rig.work("echo", where_etl="md5", where=f'output == "{hashlib.md5(b"1").hexdigest()}"')
    assert states(rig.do(work, ["yes", "no"]).outcomes) == ["written", "skipped"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_large_output_is_judged_by_its_size_before_it_is_there(rig: Rig, dry_run: bool) -> None:
    rig.put("k", b"")
    asked = {"where": f"output_size < {9 * MIB}", "dry_run": dry_run}
    assert rig.one(rig.work("grow", args_json=str(9 * MIB), **asked), "k").state == "skipped"
    assert rig.keys() == []
    assert rig.blobs() == 1
    assert rig.one(rig.work("grow", args_json=str(8 * MIB), **asked), "k").state == "written"


def test_a_predicate_that_fails_is_the_objects_failure(rig: Rig) -> None:
    rig.put("k", b"no number")
    outcome = rig.one(rig.work("echo", where="output.size > 3"), "k")
    assert (outcome.state, outcome.code) == ("failed", "WhereFailed")


# --- inspection -----------------------------------------------------------------------------------


def damage(rig: Rig, key: str) -> None:
    row = rig.site.store._index.object_row("src", key)  # type: ignore[attr-defined]
    path = next((rig.root / "store" / "blobs").glob(f"*/*/{row[6].hex()}"))
    path.chmod(0o600)
    path.write_bytes(b"X" + path.read_bytes()[1:])


def test_inspecting_reads_every_byte_and_writes_none(rig: Rig) -> None:
    rig.put("sound", b"x" * (2 * MIB + 1))
    rig.put("empty", b"")
    rig.put("damaged", b"data")
    damage(rig, "damaged")
    work = rig.work("", kind="inspect")
    outcomes = sorted(rig.do(work, ["sound", "empty", "damaged", "missing"]).outcomes, key=lambda each: each.n)
    assert states(outcomes) == ["unchanged", "unchanged", "failed", "failed"]
    assert [each.code for each in outcomes] == ["", "", "Damaged", "NoSuchKey"]
    assert hashlib.md5(b"data").hexdigest() in outcomes[2].message
    assert outcomes[0].bytes_in == 2 * MIB + 1
    assert rig.keys() == []


def test_inspecting_an_object_of_parts(rig: Rig) -> None:
    store, wait = rig.site.store, rig.site.wait
    upload = wait(store.create_upload("src", "k", PLAIN))

    async def body(data: bytes) -> object:
        yield data

    sent = [
        (n, wait(store.put_part("src", "k", upload.upload_id, n, body(b"%d" % n * size))).etag)
        for n, size in ((1, 5 * MIB), (2, 9))
    ]  # type: ignore[arg-type]
    wait(store.complete_upload("src", "k", upload.upload_id, sent))
    assert rig.one(rig.work("", kind="inspect"), "k").state == "unchanged"


def test_inspecting_by_a_pipeline(rig: Rig) -> None:
    rig.put("k", b"data")
    good = rig.one(rig.work("upper", kind="inspect"), "k")
    assert (good.state, good.bytes_out) == ("unchanged", 4)
    assert rig.one(rig.work("fail", kind="inspect"), "k").code == "EtlFailed"
    assert rig.keys() == []


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("etl", "args_json", "code"),
    [
        ("fail", '"because"', "EtlFailed"),
        ("reject", '"because"', "EtlInputRejected"),
        ("fail_late", '{"n": 9000000, "message": "because"}', "EtlFailed"),
        ("fail_late", '{"n": 100, "message": "because"}', "EtlFailed"),
    ],
)
def test_a_failure_names_its_stage_and_leaves_what_was_there(rig: Rig, etl: str, args_json: str, code: str) -> None:
    rig.put("k", b"data")
    rig.put("other", b"data")
    rig.put("k", b"old", bucket="dst")
    before = rig.head("k")
    work = rig.work(f"upper>>{etl}", args_json=f"[null, {args_json}]")
    outcome = rig.one(work, "k")
    assert (outcome.state, outcome.stage, outcome.code) == ("failed", etl, code)
    assert "because" in outcome.message
    assert rig.head("k") == before
    assert not rig.left_over()


def test_one_failure_is_not_the_others(rig: Rig) -> None:
    for n in range(9):
        rig.put(f"{n}", b"data" if n % 3 else b"")
    rig.site.wait(rig.site.store.delete("src", "4"))
    done = rig.do(rig.work("upper"), map(str, range(9)))
    assert [outcome.n for outcome in done.outcomes if outcome.state == "failed"] == [4]
    assert rig.keys() == ["0", "1", "2", "3", "5", "6", "7", "8"]


def test_a_worker_that_crashes_is_a_failure(rig: Rig) -> None:
    rig.site.pipelines = replace(rig.site.pipelines, limits=replace(LIMITS, gil_inline_size=0))
    rig.put("k", b"data")
    rig.put("l", b"data")
    done = rig.do(rig.work("crash"), ["k", "l"])
    assert [outcome.code for outcome in done.suspects] == ["EtlCrashed", "EtlCrashed"]  # one may be the other's
    assert not (done.outcomes or done.worn_out)


def test_an_output_beyond_the_bound(rig: Rig) -> None:
    rig.site.pipelines = replace(rig.site.pipelines, limits=replace(LIMITS, max_output=6 * MIB))
    rig.put("k", b"")
    for size in (7, 60):
        assert rig.one(rig.work("grow", args_json=str(size * MIB)), "k").code == "EtlOutputTooLarge"
    assert (rig.keys(), rig.blobs()) == ([], 1)


def test_an_unforeseen_error_in_a_transformers_description(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put("k", b"data")

    def broken(_: object) -> str:
        raise ZeroDivisionError("in content_type")

    monkeypatch.setattr(
        type(rig.site.pipelines.transformers["upper"]), "content_type", lambda self, context: broken(context)
    )
    outcome = rig.one(rig.work("upper"), "k")
    assert (outcome.state, outcome.code) == ("failed", "EtlFailed")
    assert "ZeroDivisionError" in outcome.message


# --- time -----------------------------------------------------------------------------------------


class Hanging:
    """Transformers that wait on one key until they are let go."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        self._rig = rig
        hanging = self

        def transform(_: object, data: bytes, context: Context) -> bytes:
            hanging.wait(context)
            return data[::-1]

        def transform_stream(_: object, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
            yield b"x" * (making.SMALL + 1)
            hanging.wait(context)
            yield from chunks

        monkeypatch.setattr(type(rig.site.pipelines.transformers["reverse"]), "transform", transform)
        monkeypatch.setattr(type(rig.site.pipelines.transformers["upper"]), "transform_stream", transform_stream)

    def wait(self, context: Context) -> None:
        """Hang, if this is the key."""
        if context.key == "hangs":
            assert self.let_go.wait(30)

    def end(self) -> None:
        """Let the thread that was given up come back to nothing."""
        self.let_go.set()
        hands, give_up = self._rig.site.hands, time.monotonic() + 20
        while not hands._idle:
            assert time.monotonic() < give_up
            time.sleep(0.01)


@pytest.fixture
def hanging(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    made = Hanging(rig, monkeypatch)
    yield made
    made.let_go.set()


@pytest.mark.parametrize("etl", ["reverse", "upper"])
def test_a_transformer_that_hangs_costs_one_object_and_the_worker(rig: Rig, hanging: Hanging, etl: str) -> None:
    for key in ("a", "b", "hangs", "d", "e"):
        rig.put(key, b"abc")
    started = time.monotonic()
    done = rig.do(rig.work(etl, object_timeout_s=0.3), ["a", "b", "hangs", "d", "e"])
    assert time.monotonic() - started < 10
    assert done.worn_out
    assert {(outcome.n, outcome.state) for outcome in done.outcomes} == {(0, "written"), (1, "written"), (2, "failed")}
    (failed,) = (outcome for outcome in done.outcomes if outcome.n == 2)
    assert (failed.stage, failed.code) == (etl, "EtlTimeout")
    assert [item.key for item in done.unfinished] == ["d", "e"]
    outcomes = done.outcomes
    hanging.end()
    assert rig.keys() == ["a", "b"]
    assert done.outcomes == outcomes
    assert not rig.left_over()


def test_only_an_object_that_is_late_is_given_up(rig: Rig) -> None:
    work = rig.work("upper")
    batch = doing.Doing(making.Task(work.order, work.plan, None, "owner"), rig.site, (Item(0, "k", 0, "", "k"),))
    assert not batch.give_up(0)  # nothing is under way
    batch._begun = 1
    late, in_time = batch._begin("upper", -1), batch._begin("upper", 30)
    assert late.settle()  # it ended just when somebody found it late
    assert not batch.give_up(0.5)
    assert in_time.settle()
    batch._begin("upper", -1)
    assert not batch.give_up(5)
    assert batch.give_up(0.5)
    assert not batch.give_up(0.5)
    assert [outcome.code for outcome in batch.outcomes] == ["EtlTimeout"]


def test_a_transformer_that_is_late_but_comes_back_costs_only_its_object(rig: Rig) -> None:
    for key in ("a", "b"):
        rig.put(key, b"abc")
    done = rig.do(rig.work("sleep", args_json="0.4", object_timeout_s=0.2), ["a", "b"])
    assert [outcome.code for outcome in done.outcomes] == ["EtlTimeout", "EtlTimeout"]
    assert not done.worn_out


def test_writing_is_not_the_transformers_time(rig: Rig) -> None:
    class Slow(StoreRouter):
        async def put(self, *args: Any, **kwargs: Any) -> ObjectInfo:
            pieces = args[2]

            async def slowly() -> AsyncIterator[bytes]:
                async for piece in pieces:
                    time.sleep(0.2)  # noqa: ASYNC251 - as a store that is busy
                    yield piece

            return await super().put(args[0], args[1], slowly(), args[3], **kwargs)

    rig.put("k", b"")
    rig.site.store = Slow(rig.site.store, {})
    work = rig.work("grow", args_json=str(9 * MIB), object_timeout_s=0.5)
    assert rig.one(work, "k").state == "written"


def test_the_time_of_a_pipeline_is_that_of_its_stages(rig: Rig) -> None:
    rig.put("k", b"data")
    work = rig.work("sleep>>sleep", args_json="[0.4, 0.4]")
    assert work.plan is not None
    stages = tuple(replace(stage, timeout_s=0.6) for stage in work.plan.stages)
    assert rig.one(replace(work, plan=replace(work.plan, stages=stages)), "k").state == "written"


# --- what changes, what is full, what is shared -----------------------------------------------------


class Scripted(StoreRouter):
    """A store that raises what it is told, one error for each opening, before it does what it is asked."""

    def __init__(self, inner: Store, errors: Sequence[Exception]) -> None:
        super().__init__(inner, {})
        self.errors = list(errors)

    async def open(self, bucket: str, key: str) -> ObjectReader:
        if self.errors:
            raise self.errors.pop(0)
        return await super().open(bucket, key)


def test_what_may_pass_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doing, "_PAUSES_S", (0.01, 0.01, 0.01))
    rig.put("k", b"data")
    rig.site.store = store = Scripted(
        rig.site.store, [SourceChanged("changed"), EtlUnavailable("soon"), SlowDown("busy")]
    )
    assert rig.one(rig.work("upper"), "k").state == "written"
    rig.put("k", b"other")
    store.errors = [SlowDown(f"busy {n}") for n in range(9)]
    outcome = rig.one(rig.work("upper"), "k")
    assert (outcome.state, outcome.code, outcome.message) == ("failed", "SlowDown", "busy 3")
    assert len(store.errors) == 5


def test_a_source_that_changes_under_the_run_is_read_anew(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "k"
    path.write_bytes(b"old")

    class Changing(StoreRouter):
        opened = 0

        async def open(self, bucket: str, key: str) -> ObjectReader:
            reader = await super().open(bucket, key)
            self.opened += 1
            if self.opened == 1:
                path.write_bytes(b"newer")
            return reader

    rig.site.store = store = Changing(rig.site.store, {"src": FolderStore("src", folder, "owner")})
    assert rig.one(rig.work("upper"), "k").state == "written"
    assert store.opened == 2
    assert rig.read("k") == b"NEWER"
    assert rig.head("k").attributes.metadata[truth.SOURCE_ETAG] == rig.head("k", bucket="src").etag


def test_what_is_there_now_is_used_whatever_was_listed(rig: Rig) -> None:
    rig.put("k", b"new")
    done = rig.work("upper")(rig.site, Batch((Item(0, "k", 3, "the etag of another", "k"),)))
    assert states(done.outcomes) == ["written"]
    assert rig.read("k") == b"NEW"


def test_a_full_store_fails_each_object_and_leaves_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        rig.put(f"{n}", b"data")
    before, write = rig.blobs(), os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    small = rig.do(rig.work("upper"), map(str, range(5)))
    large = rig.one(rig.work("grow", args_json=str(9 * MIB)), "0")
    monkeypatch.setattr(os, "write", write)
    assert [outcome.code for outcome in (*small.outcomes, large)] == ["StoreFull"] * 6
    assert (rig.keys(), rig.blobs()) == ([], before)
    assert not rig.left_over()
    assert states(rig.do(rig.work("upper"), map(str, range(5))).outcomes) == ["written"] * 5


def test_a_destination_that_is_gone_fails_each_object(rig: Rig) -> None:
    rig.put("k", b"data")
    rig.site.wait(rig.site.store.delete_bucket("dst"))
    outcome = rig.one(rig.work("upper"), "k")
    assert (outcome.state, outcome.code) == ("failed", "NoSuchBucket")


def test_runs_of_a_bounded_etl_take_only_the_upper_half_of_its_places(rig: Rig) -> None:
    rig.put("k", b"data")
    work = with_concurrency(rig.work("sleep", args_json="0.5"), 5)
    base, locks = offset_of("sleep"), ByteLocks(rig.root / SLOTS)
    try:
        assert all(locks.try_lock(base + n) for n in (3, 4))  # the job's share: it has to wait
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(rig.one, work, "k")
            time.sleep(0.2)
            assert not running.done()
            locks.unlock(base + 3)
            give_up = time.monotonic() + 10
            while not locks.held_elsewhere(base + 3):
                assert time.monotonic() < give_up
                time.sleep(0.005)
            assert not any(locks.held_elsewhere(base + n) for n in (0, 1, 2))
            assert running.result(20).state == "written"
        assert not locks.held_elsewhere(base + 3)
    finally:
        locks.close()


def test_several_batches_at_once_in_one_site(rig: Rig) -> None:
    for n in range(200):
        rig.put(f"{n:03}", b"%d" % n)
    work = rig.work("reverse")
    with ThreadPoolExecutor(4) as threads:
        batches = [[f"{n:03}" for n in range(start, start + 10)] for start in range(0, 200, 10)]
        results = list(threads.map(lambda keys: rig.do(work, keys), batches))
    assert sum(len(done.outcomes) for done in results) == 200
    assert all(state == "written" for done in results for state in states(done.outcomes))
    assert [rig.read(f"{n:03}") for n in range(200)] == [str(n).encode()[::-1] for n in range(200)]


def test_a_destination_that_takes_no_writes(rig: Rig, tmp_path: Path) -> None:
    rig.put("k", b"data")
    folder = tmp_path / "folder"
    folder.mkdir()
    rig.site.store = StoreRouter(rig.site.store, {"dst": FolderStore("dst", folder, "owner")})
    small = rig.one(rig.work("upper"), "k")
    large = rig.one(rig.work("grow", args_json=str(9 * MIB)), "k")
    assert [(each.state, each.code) for each in (small, large)] == [("failed", "ReadOnlyStore")] * 2
