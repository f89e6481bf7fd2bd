"""Whole buckets through pipelines, over sockets: what is written, left alone, left out, refused, listed and removed."""

from __future__ import annotations

import gzip
import hashlib
import json
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.running import ACCESS, SECRET, RunningServer
from transom.client.admin import AdminClient, AdminError
from transom.client.records import Job

FIVE_HUNDRED = 512


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("jobs"), ("--processes", "2")).start()
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture(scope="module")
def admin(here: RunningServer) -> Iterator[AdminClient]:
    with AdminClient(here.endpoint, ACCESS, SECRET) as client:
        yield client


@pytest.fixture(scope="module")
def s3(here: RunningServer) -> Any:
    return here.client(max_pool_connections=16)


def read(s3: Any, bucket: str) -> dict[str, bytes]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda key: s3.get_object(Bucket=bucket, Key=key)["Body"].read(), keys))
    return dict(zip(keys, bodies, strict=True))


def ended(admin: AdminClient, job: Job) -> Job:
    return admin.wait_job(job.id, timeout_s=100)


@pytest.fixture(scope="module")
def thousand(here: RunningServer) -> dict[str, bytes]:
    objects = {f"object-{n:04}": bytes([97 + n % 26]) * FIVE_HUNDRED for n in range(1000)}
    here.fill("thousand", objects)
    return objects


# --- all of a bucket ----------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_a_thousand_objects_equal_the_function_by_hand(
    admin: AdminClient, s3: Any, thousand: dict[str, bytes], concurrency: int
) -> None:
    bucket = f"thousand-{concurrency}"
    job = ended(admin, admin.transform("s3://thousand", f"s3://{bucket}", "upper>>reverse", concurrency=concurrency))
    assert (job.state, job.total, job.written, job.failed) == ("done", 1000, 1000, 0)
    assert (job.bytes_in, job.bytes_out) == (1000 * FIVE_HUNDRED, 1000 * FIVE_HUNDRED)
    assert read(s3, bucket) == {key: data.upper()[::-1] for key, data in thousand.items()}


def test_a_second_run_does_nothing_and_a_changed_source_is_done_again(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    here.fill("again", {f"k{n}": b"abc" for n in range(20)})
    first = ended(admin, admin.transform("s3://again", "s3://again-made", "upper"))
    assert first.written == 20
    second = ended(admin, admin.transform("s3://again", "s3://again-made", "upper"))
    assert (second.written, second.unchanged) == (0, 20)
    s3.put_object(Bucket="again", Key="k7", Body=b"new")
    s3.delete_object(Bucket="again-made", Key="k8")
    third = ended(admin, admin.transform("s3://again", "s3://again-made", "upper"))
    assert (third.written, third.unchanged) == (2, 18)
    assert s3.get_object(Bucket="again-made", Key="k7")["Body"].read() == b"NEW"
    other = ended(admin, admin.transform("s3://again", "s3://again-made", "append", args="!"))
    assert (other.written, other.unchanged) == (20, 0)
    forced = ended(admin, admin.transform("s3://again", "s3://again-made", "append", args="!", force=True))
    assert forced.written == 20


def test_a_destination_says_what_it_was_made_of(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("told", {"ü/a": b"abc"})
    s3.put_object(Bucket="told", Key="ü/a", Body=b"abc", Metadata={"mine": "yes"}, Tagging="colour=red")
    ended(admin, admin.transform("s3://told", "s3://told-made", "upper>>reverse"))
    head = s3.head_object(Bucket="told-made", Key="ü/a")
    assert head["Metadata"]["mine"] == "yes"
    assert head["Metadata"]["transom-source"] == "told/%C3%BC/a"
    assert head["Metadata"]["transom-source-etag"] == s3.head_object(Bucket="told", Key="ü/a")["ETag"].strip('"')
    assert head["Metadata"]["transom-pipeline"] == "upper>>reverse"
    tags = s3.get_object_tagging(Bucket="told-made", Key="ü/a")["TagSet"]
    assert tags == [{"Key": "colour", "Value": "red"}]


# --- some of it -----------------------------------------------------------------------------------


def test_twenty_of_a_hundred_by_list_and_by_template(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("hundred", {f"shard-{n:04}.tar": str(n).encode() for n in range(100)})
    wanted = [f"shard-{n:04}.tar" for n in range(1, 41, 2)]
    by_list = ended(admin, admin.transform("s3://hundred", "s3://by-list", "upper", keys=wanted))
    by_template = ended(
        admin, admin.transform("s3://hundred", "s3://by-it", "upper", template="shard-{0001..0039..2}.tar")
    )
    assert (by_list.written, by_template.written) == (20, 20)
    assert sorted(read(s3, "by-list")) == sorted(read(s3, "by-it")) == wanted


def test_match_limit_prefix_and_where_leave_the_rest_out(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("some", {f"{folder}/{n}.{ext}": b"x" * n for folder in "ab" for n in range(5) for ext in ("txt", "bin")})

    def made(**options: Any) -> list[str]:
        bucket = f"some-{len(admin.jobs())}"
        job = ended(admin, admin.transform("s3://some", f"s3://{bucket}", "echo", **options))
        assert job.state == "done", job
        return sorted(read(s3, bucket)) if job.written else []

    assert made(match="a/*.txt") == [f"a/{n}.txt" for n in range(5)]
    assert len(made(limit=3)) == 3
    assert made(prefix="b/4") == ["b/4.bin", "b/4.txt"]
    assert made(where='size >= 3 && key.endsWith(".bin")') == ["a/3.bin", "a/4.bin", "b/3.bin", "b/4.bin"]
    assert made(where="size > 100") == []
    digest = hashlib.md5(b"xx").hexdigest()
    assert made(where=f'output == "{digest}"', where_etl="md5") == ["a/2.bin", "a/2.txt", "b/2.bin", "b/2.txt"]


def test_one_object_and_a_prefix_of_them(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("one", {"in/a.txt": b"a", "in/b.txt": b"b", "other": b"c"})
    assert ended(admin, admin.transform("s3://one/in/a.txt", "s3://one-made/x/y.txt", "upper")).written == 1
    assert read(s3, "one-made") == {"x/y.txt": b"A"}
    job = ended(
        admin,
        admin.transform("s3://one/in/", "s3://one-made/out/", "upper", ext={"txt": "up"}, prepend="p-"),
    )
    assert job.written == 2
    assert read(s3, "one-made") == {"x/y.txt": b"A", "out/p-a.up": b"A", "out/p-b.up": b"B"}


def test_what_is_gone_from_the_source_is_deleted_and_what_no_job_made_stays(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    here.fill("mirror", {f"k{n}": b"x" for n in range(5)})
    ended(admin, admin.transform("s3://mirror", "s3://mirrored", "upper"))
    s3.put_object(Bucket="mirrored", Key="mine", Body=b"mine")
    s3.delete_object(Bucket="mirror", Key="k3")
    kept = ended(admin, admin.transform("s3://mirror", "s3://mirrored", "upper"))
    assert kept.deleted == 0
    synced = ended(admin, admin.transform("s3://mirror", "s3://mirrored", "upper", sync=True))
    assert (synced.deleted, synced.unchanged, synced.written) == (1, 4, 0)
    assert sorted(read(s3, "mirrored")) == ["k0", "k1", "k2", "k4", "mine"]


# --- nothing, or refused --------------------------------------------------------------------------


def test_a_dry_run_transforms_counts_and_writes_nothing(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("dry", {f"k{n}": b"x" * 100 for n in range(10)})
    job = ended(admin, admin.transform("s3://dry", "s3://dry-made", "md5", dry_run=True))
    assert (job.state, job.written, job.bytes_in, job.bytes_out) == ("done", 10, 1000, 320)
    assert "dry-made" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def test_two_names_for_one_key_are_refused_before_anything_is_written(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    here.fill("clash", {"a.jpg": b"1", "a.png": b"2", "b.jpg": b"3"})
    s3.create_bucket(Bucket="clashed")
    job = ended(admin, admin.transform("s3://clash", "s3://clashed", "echo", ext={"jpg": "webp", "png": "webp"}))
    assert (job.state, job.written) == ("failed", 0)
    for name in ("a.jpg", "a.png", "a.webp"):
        assert name in job.message
    assert read(s3, "clashed") == {}


def test_a_bucket_onto_itself_needs_force_and_other_names(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("self", {"a.txt": b"a"})
    with pytest.raises(AdminError, match="force"):
        admin.transform("s3://self", "s3://self", "upper", prepend="made-")
    with suppress(AdminError):  # refused at once, or once the names are known
        assert ended(admin, admin.transform("s3://self", "s3://self", "upper", force=True)).state == "failed"
    assert read(s3, "self") == {"a.txt": b"a"}
    job = ended(admin, admin.transform("s3://self", "s3://self", "upper", force=True, prepend="made-"))
    assert (job.state, job.written) == ("done", 1)
    assert read(s3, "self") == {"a.txt": b"a", "made-a.txt": b"A"}


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"etl": "no_such"}, "no_such"),
        ({"etl": "upper", "source": "s3://no-such-bucket"}, "no-such-bucket"),
        ({"etl": "upper", "destination": "s3://thousand--etl--md5"}, "view"),
        ({"etl": "upper", "source": "s3://thousand--etl--md5"}, "view"),
        ({"etl": "upper", "where": "size >"}, "where"),
        ({"etl": "upper", "where": "colour == 'red'"}, "colour"),
        ({"etl": "upper", "template": "a-{3..1"}, "template"),
        ({"etl": "upper", "args": {"no": "such"}}, "no"),
        ({"etl": "upper", "sync": True, "limit": 3}, "sync"),
        ({"etl": "upper", "concurrency": 0}, "concurrency"),
        ({"etl": "upper", "destination": "s3://No_Such"}, "No_Such.*3 to 63"),
        ({"etl": "upper", "colour": "red"}, "colour"),
        ({"kind": "sort", "sorting": {"shard_records": 9}, "object_timeout_s": 1}, "object_timeout_s"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_refused_at_once(
    admin: AdminClient, thousand: dict[str, bytes], order: dict[str, Any], says: str
) -> None:
    before = len(admin.jobs())
    with pytest.raises(AdminError, match=says) as refused:
        admin.start_job({"source": "s3://thousand", "destination": "s3://refused-made", **order})
    assert 400 <= refused.value.status < 500
    assert len(admin.jobs()) == before


# --- failures -------------------------------------------------------------------------------------


def test_three_of_nine_fail_and_are_listed_the_other_six_are_there(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    good = {f"good-{n}": gzip.compress(b"x" * n, mtime=0) for n in range(6)}
    here.fill("nine", {**good, **{f"bad-{n}": b"no gzip" for n in range(3)}})
    job = ended(admin, admin.transform("s3://nine", "s3://nine-made", "decompress"))
    assert (job.state, job.written, job.failed) == ("done", 6, 3)
    errors = list(admin.job_errors(job.id))
    assert sorted(error.key for error in errors) == ["bad-0", "bad-1", "bad-2"]
    assert {(error.stage, error.code) for error in errors} == {("decompress", "EtlInputRejected")}
    assert all(error.message for error in errors)
    assert read(s3, "nine-made") == {f"good-{n}": b"x" * n for n in range(6)}
    assert {error.key for error in admin.etl_errors("decompress")} >= {"bad-0", "bad-1", "bad-2"}

    s3.put_object(Bucket="nine", Key="bad-1", Body=gzip.compress(b"mended", mtime=0))
    again = ended(admin, admin.retry_job(job.id))
    assert (again.written, again.failed) == (7, 2)
    assert sorted(error.key for error in admin.job_errors(job.id)) == ["bad-0", "bad-2"]
    assert s3.get_object(Bucket="nine-made", Key="bad-1")["Body"].read() == b"mended"


def test_the_first_failure_ends_a_job_that_fails_fast(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("fast", {f"bad-{n:03}": b"no gzip" for n in range(300)})
    job = ended(
        admin, admin.transform("s3://fast", "s3://fast-made", "decompress", continue_on_error=False, concurrency=1)
    )
    assert job.state == "failed"
    assert 1 <= job.failed < 300


def test_a_retry_says_how_many_objects_were_never_begun(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    good = {f"good-{n:03}": gzip.compress(b"x", mtime=0) for n in range(200)}
    here.fill("stopped", {"bad": b"no gzip", **good})
    order: dict[str, Any] = {"continue_on_error": False, "concurrency": 1}
    job = ended(admin, admin.transform("s3://stopped", "s3://stopped-made", "decompress", **order))
    assert job.state == "failed"
    left = 201 - job.done
    assert left > 0
    s3.put_object(Bucket="stopped", Key="bad", Body=gzip.compress(b"mended", mtime=0))
    again = ended(admin, admin.retry_job(job.id))
    assert (again.state, again.failed, again.total - again.done) == ("done", 0, left)
    assert f"{left} of its objects were never begun" in again.message
    rest = ended(admin, admin.transform("s3://stopped", "s3://stopped-made", "decompress", **order))
    assert (rest.written, rest.unchanged, rest.message) == (left, 201 - left, "")


def test_five_hundred_failures_are_all_listed(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("all-bad", {f"bad-{n:03}": b"no gzip" for n in range(500)})
    job = ended(admin, admin.transform("s3://all-bad", "s3://all-bad-made", "decompress"))
    assert (job.state, job.written, job.failed) == ("done", 0, 500)
    assert sorted(error.key for error in admin.job_errors(job.id)) == [f"bad-{n:03}" for n in range(500)]


def test_what_a_transformer_skips_is_left_out_and_no_failure(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("skips", {f"k{n}": b"x" for n in range(4)})
    job = ended(admin, admin.transform("s3://skips", "s3://skips-made", "skip"))
    assert (job.state, job.skipped, job.written, job.failed) == ("done", 4, 0, 0)


def test_an_object_that_kills_its_worker_fails_alone(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("kills", {f"k{n}": b"x" for n in range(6)})
    job = ended(admin, admin.transform("s3://kills", "s3://kills-made", "crash"))
    assert (job.state, job.failed) == ("done", 6)
    assert {(error.stage, error.code) for error in admin.job_errors(job.id)} == {("crash", "EtlCrashed")}
    assert {error.key for error in admin.etl_errors("crash")} == {f"k{n}" for n in range(6)}
    assert admin.etl_metrics("crash")["errors"] == {"EtlCrashed": 6}
    assert ended(admin, admin.transform("s3://kills", "s3://kills-fine", "upper")).written == 6


def test_an_object_that_kills_a_worker_that_others_share_fails_alone(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    code = """
        import os, time

        def transform(data):
            if data == b"die":
                os._exit(3)
            time.sleep(0.2)
            return data.upper()
    """
    admin.init_spec(json.dumps({"name": "shared", "runtime": {"code": textwrap.dedent(code)}}))
    here.fill("shared", {f"k{n:02}": b"die" if n == 7 else b"fine" for n in range(12)})
    job = ended(admin, admin.transform("s3://shared", "s3://shared-made", "shared", concurrency=4))
    assert (job.state, job.written, job.failed) == ("done", 11, 1)
    assert [(error.key, error.stage, error.code) for error in admin.job_errors(job.id)] == [
        ("k07", "shared", "EtlCrashed")
    ]
    assert admin.etl_metrics("shared")["errors"] == {"EtlCrashed": 1}


def test_the_stage_that_kills_its_worker_is_named_among_several(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    here.fill("kills-too", {f"k{n}": b"x" for n in range(4)})
    job = ended(admin, admin.transform("s3://kills-too", "s3://kills-too-made", "upper>>crash>>reverse"))
    assert (job.state, job.failed) == ("done", 4)
    assert {(error.stage, error.code) for error in admin.job_errors(job.id)} == {("crash", "EtlCrashed")}
    assert not list((here.folder / "jobs" / job.id).glob("stage-*"))


def test_an_object_past_its_time_fails_alone(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("slow", {"a": b"x", "b": b"y"})
    job = ended(admin, admin.transform("s3://slow", "s3://slow-made", "loop_forever", object_timeout_s=0.5))
    assert (job.state, job.failed) == ("done", 2)
    assert {error.code for error in admin.job_errors(job.id)} == {"EtlTimeout"}


def test_a_job_past_its_time_fails_and_says_so(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("late", {f"k{n}": b"x" for n in range(50)})
    job = ended(admin, admin.transform("s3://late", "s3://late-made", "sleep", args=1, timeout_s=1.5))
    assert job.state == "failed"
    assert "1.5" in job.message


# --- many -----------------------------------------------------------------------------------------


def test_an_aborted_job_stops_and_leaves_the_etl_and_other_jobs_alone(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    here.fill("long", {f"k{n:03}": str(n).encode() for n in range(200)})
    long = admin.transform("s3://long", "s3://long-made", "sleep", args=0.2, concurrency=2)
    other = admin.transform("s3://long", "s3://long-other", "sleep", args=0.01, concurrency=2)
    for job in admin.watch_job(long.id):
        if job.written or job.ended:
            break
    assert job.state == "running"
    admin.abort_job(long.id)
    aborted = admin.wait_job(long.id, timeout_s=20)
    assert aborted.state == "aborted"
    assert 0 < aborted.written < 200
    assert ended(admin, other).written == 200
    assert s3.get_object(Bucket="long--etl--sleep", Key="k001")["Body"].read() == b"1"
    admin.remove_job(long.id)
    with pytest.raises(AdminError) as missing:
        admin.job(long.id)
    assert missing.value.status == 404


def test_three_jobs_at_once_on_one_etl_don_t_mix(admin: AdminClient, s3: Any, thousand: dict[str, bytes]) -> None:
    jobs = [admin.transform("s3://thousand", f"s3://three-{n}", "append", args=f"-{n}") for n in range(3)]
    for n, job in enumerate(jobs):
        assert ended(admin, job).written == 1000
        assert read(s3, f"three-{n}") == {key: data + f"-{n}".encode() for key, data in thousand.items()}


def test_a_job_that_runs_can_t_be_removed(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("busy", {f"k{n}": b"x" for n in range(20)})
    job = admin.transform("s3://busy", "s3://busy-made", "sleep", args=0.5)
    with pytest.raises(AdminError) as refused:
        admin.remove_job(job.id)
    assert refused.value.status == 409
    admin.abort_job(job.id)
    assert admin.wait_job(job.id, timeout_s=20).state == "aborted"


def test_copy_object_from_a_view_is_the_job_of_one_object(s3: Any, thousand: dict[str, bytes]) -> None:
    s3.create_bucket(Bucket="copied")
    s3.copy_object(Bucket="copied", Key="made", CopySource="thousand--etl--upper/object-0001")
    assert s3.get_object(Bucket="copied", Key="made")["Body"].read() == thousand["object-0001"].upper()


def test_inspecting_finds_what_can_t_be_transformed_and_writes_nothing(
    here: RunningServer, admin: AdminClient, s3: Any
) -> None:
    here.fill("look", {"good": gzip.compress(b"x", mtime=0), "bad": b"no gzip"})
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    job = ended(admin, admin.inspect("s3://look", "decompress"))
    assert (job.state, job.failed, job.done) == ("done", 1, 2)
    assert [error.key for error in admin.job_errors(job.id)] == ["bad"]
    assert ended(admin, admin.inspect("s3://look")).failed == 0
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == buckets


def test_etls_of_other_runtimes_run_offline_too(here: RunningServer, admin: AdminClient, s3: Any) -> None:
    here.fill("kinds", {f"k{n}": f"text {n}".encode() for n in range(12)})
    admin.init_code("shout", "def transform(data, context):\n    return data.upper() + b'!'\n")
    admin.init_spec(json.dumps({"name": "flip", "runtime": {"command": ["rev"]}}))
    job = ended(admin, admin.transform("s3://kinds", "s3://kinds-made", "shout>>flip>>md5"))
    assert (job.state, job.written, job.failed) == ("done", 12, 0), list(admin.job_errors(job.id))
    for key, made in read(s3, "kinds-made").items():
        text = f"TEXT {key[1:].removesuffix('.txt')}!"[::-1].encode()
        assert made in {hashlib.md5(text).hexdigest().encode(), hashlib.md5(text + b"\n").hexdigest().encode()}


def test_what_a_sort_does_not_hold_in_memory_is_beside_the_jobs(here: RunningServer) -> None:
    """SQLite takes the folder from what its process began with."""
    environ = Path(f"/proc/{here.desk()}/environ").read_bytes().split(b"\0")
    assert f"SQLITE_TMPDIR={here.folder / 'jobs'}".encode() in environ
    assert (here.folder / "jobs").is_dir()


def test_what_jobs_run_is_counted_with_what_is_asked_inline(here: RunningServer, s3: Any, admin: AdminClient) -> None:
    """Objects, bytes and errors by code, over the jobs' processes that are long gone; and they leave few files."""
    here.fill("counted", {f"k{n:02}": b"x" * 100 for n in range(20)})
    admin.init_etl("counted-md5", "md5")
    admin.init_etl("counted-fail", "fail")
    files = []
    for n in range(5):
        job = ended(admin, admin.transform("s3://counted", f"s3://counted-{n}", "counted-md5", concurrency=1))
        assert job.written == 20
        files.append(len(list((here.folder / "run" / "metrics").glob("*turn-*.db"))))
    assert 2 <= files[-1] <= files[0] + 2  # a job before may still be closing, as one more at once
    s3.get_object(Bucket="counted--etl--counted-md5", Key="k00")["Body"].read()
    found = admin.etl_metrics("counted-md5")
    assert (found["objects"], found["bytes_in"], found["bytes_out"]) == (101, 10_100, 101 * 32)
    assert (found["errors"], found["p50_s"] > 0) == ({}, True)
    assert ended(admin, admin.transform("s3://counted", "s3://not-counted", "counted-fail")).failed == 20
    assert admin.etl_metrics("counted-fail")["errors"] == {"EtlFailed": 20}
