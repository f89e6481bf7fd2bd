"""Offline jobs through the REST and the Python client, against the real server in every way of running it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import OTHER_OWNER
from tests.running import RunningServer
from tests.wire import Wire, at
from transom.client.admin import API, AdminClient, AdminError
from transom.client.records import Job

WITHIN_S = 60.0


def put_all(wire: Wire, bucket: str, objects: dict[str, bytes]) -> None:
    for key, data in objects.items():
        assert wire.put(at(bucket, key), data).status == 200


def contents(server: RunningServer, bucket: str) -> dict[str, bytes]:
    s3 = server.client()
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def counts(job: Job) -> tuple[str, int, int, int, int, int]:
    return job.state, job.written, job.unchanged, job.skipped, job.failed, job.deleted


def test_a_prefix_is_transformed_once_and_again_only_where_stale(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl, made = name("tail"), name("made")
    admin.init_etl(etl, "append", {"text": "!"})
    put_all(wire, bucket, {"in/a.txt": b"a", "in/sub/b.txt": b"b", "in/ü c": b"c", "other": b"x"})
    source, destination = f"s3://{bucket}/in/", f"s3://{made}/out"
    ask: Any = {"args": [None, {"text": "?"}], "concurrency": 2}
    started = admin.transform(source, destination, [etl, "append"], **ask)
    assert (started.state, started.kind, started.order["etl"]) == ("queued", "transform", f"{etl}>>append")
    first = admin.wait_job(started.id, timeout_s=WITHIN_S)
    assert (counts(first), first.total, first.bytes_in, first.bytes_out) == (("done", 3, 0, 0, 0, 0), 3, 3, 9)
    assert first.well and first.created_s <= first.started_s <= first.ended_s and first.runs == 1
    assert contents(server, made) == {"out/a.txt": b"a!?", "out/sub/b.txt": b"b!?", "out/ü c": b"c!?"}
    assert made in [each["Name"] for each in server.client().list_buckets()["Buckets"]]

    wire.put(at(bucket, "in/a.txt"), b"A")
    again = admin.wait_job(admin.transform(source, destination, [etl, "append"], **ask).id)
    assert counts(again) == ("done", 1, 2, 0, 0, 0)
    admin.init_etl(etl, "append", {"text": ";"})  # another revision makes all of it stale
    anew = admin.wait_job(admin.transform(source, destination, [etl, "append"], **ask).id)
    assert counts(anew) == ("done", 3, 0, 0, 0, 0)
    server.client().delete_object(Bucket=bucket, Key="in/ü c")
    synced = admin.wait_job(admin.transform(source, destination, [etl, "append"], sync=True, **ask).id)
    assert counts(synced) == ("done", 0, 2, 0, 0, 1)
    assert contents(server, made) == {"out/a.txt": b"A;?", "out/sub/b.txt": b"b;?"}
    assert [job.id for job in admin.jobs()][:4] == [synced.id, anew.id, again.id, first.id]


def test_one_object_is_transformed_or_copied_from_a_view(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    put_all(wire, bucket, {"k.txt": b"one", "k.txt.more": b"no"})
    one = admin.wait_job(admin.transform(f"s3://{bucket}/k.txt", f"s3://{bucket}/made/k", "upper", force=True).id)
    assert counts(one) == ("done", 1, 0, 0, 0, 0)
    view, s3 = name("seen"), server.client()
    admin.create_view(view, bucket, "upper", ext={"txt": "up"})
    for key, source in (("implicit", (f"{bucket}--etl--upper", "k.txt")), ("view", (view, "k.up"))):
        s3.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": source[0], "Key": source[1]})
    found = contents(server, bucket)
    assert [found[key] for key in ("made/k", "implicit", "view")] == [b"ONE"] * 3
    admin.remove_view(view)


def test_what_failed_is_listed_and_tried_again_alone(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    made = name("unpacked")
    bad = {"2", "5", "8"}
    put_all(wire, bucket, {f"{i}": b"no gzip" if f"{i}" in bad else b"" for i in range(9)})
    for key in {f"{i}" for i in range(9)} - bad:
        packed = wire.get(at(bucket, key, etl="compress")).body
        wire.put(at(bucket, key), packed)
    job = admin.wait_job(admin.transform(f"s3://{bucket}", f"s3://{made}", "decompress").id, timeout_s=WITHIN_S)
    assert (counts(job), job.ended, job.well) == (("done", 6, 0, 0, 3, 0), True, False)
    errors = list(admin.job_errors(job.id))
    assert {error.key for error in errors} == bad
    assert {(error.stage, error.code) for error in errors} == {("decompress", "EtlInputRejected")}
    assert all(error.message for error in errors)
    assert set(contents(server, made)) == {f"{i}" for i in range(9)} - bad
    told = {(error.key, error.code) for error in admin.etl_errors("decompress") if error.bucket == bucket}
    assert told == {(key, "EtlInputRejected") for key in bad}

    wire.put(at(bucket, "2"), wire.get(at(bucket, "0")).body)
    assert admin.retry_job(job.id).state == "queued"
    job = admin.wait_job(job.id, timeout_s=WITHIN_S)
    assert (counts(job), job.runs) == (("done", 7, 0, 0, 2, 0), 2)
    assert {error.key for error in admin.job_errors(job.id)} == {"5", "8"}
    stopped = admin.transform(f"s3://{bucket}", f"s3://{made}", "decompress", continue_on_error=False)
    assert admin.wait_job(stopped.id).state == "failed"


def test_objects_are_left_out_and_two_of_one_name_are_refused(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    made = name("few")
    put_all(wire, bucket, {"a.jpg": b"12345", "a.png": b"1", "b.jpg": b"1"})
    source, destination = f"s3://{bucket}", f"s3://{made}"
    few = admin.wait_job(admin.transform(source, destination, "upper", where="size > 3", dry_run=True).id)
    assert (few.state, few.written, few.skipped, few.bytes_out) == ("done", 1, 2, 5)
    with pytest.raises(server.client().exceptions.NoSuchBucket):
        server.client().list_objects_v2(Bucket=made)
    clash = admin.wait_job(admin.transform(source, destination, "upper", ext={"jpg": "x", "png": "x"}).id)
    assert (clash.state, clash.written) == ("failed", 0)
    assert all(word in clash.message for word in ("'a.jpg'", "'a.png'", "a.x"))
    assert made not in [each["Name"] for each in server.client().list_buckets()["Buckets"]]
    skipped = admin.wait_job(admin.transform(source, destination, "skip").id)
    assert (skipped.state, skipped.written, skipped.skipped) == ("done", 0, 3)
    assert contents(server, made) == {}


def test_a_bucket_is_made_only_for_a_job_that_can_be_done(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    put_all(wire, bucket, {"a.txt": b"1", "no-archive": b"1"})
    made = name("never")
    bad_sort = admin.wait_job(admin.sort(f"s3://{bucket}", f"s3://{made}", shard_records=1, shards="s-{0..0}.tar").id)
    assert bad_sort.state == "failed"
    with pytest.raises(AdminError, match="at most 64") as refused:
        admin.transform(f"s3://{bucket}", f"s3://{made}", "upper", concurrency=65)
    assert refused.value.status == 400
    jobs = len(list(admin.jobs()))
    for asked in ({"timeout_s": math.inf}, {"object_timeout_s": math.inf}, {"args": math.nan}, {"args": [math.inf]}):
        with pytest.raises(AdminError) as refused:  # which is no JSON, but Python's own takes and makes it
            admin.transform(f"s3://{bucket}", f"s3://{made}", "upper", **asked)
        assert refused.value.status == 400
    assert len(list(admin.jobs())) == jobs
    assert made not in [each["Name"] for each in server.client().list_buckets()["Buckets"]]
    both = [admin.transform(f"s3://{bucket}", f"s3://{made}", "upper", prepend=each) for each in ("x", "y")]
    assert [admin.wait_job(job.id, timeout_s=WITHIN_S).written for job in both] == [2, 2]
    assert len(contents(server, made)) == 4


def test_jobs_are_listed_a_page_at_a_time(wire: Wire, bucket: str, admin: AdminClient) -> None:
    put_all(wire, bucket, {"k": b"x"})
    ids = [admin.wait_job(admin.inspect(f"s3://{bucket}").id, timeout_s=WITHIN_S).id for _ in range(3)][::-1]
    assert [job.id for job in admin.jobs(limit=2)] == ids[:2]
    assert [job.id for job in admin.jobs()][:3] == ids
    path = f"{API}/jobs"
    first = json.loads(wire.get(f"{path}?limit=2").body)
    second = json.loads(wire.get(f"{path}?before={first['next']}&limit=1").body)
    assert [job["id"] for job in (*first["jobs"], *second["jobs"])] == ids
    assert wire.get(f"{path}?limit=1001").status == 400
    assert wire.get(f"{path}/{ids[0]}/errors?after={2**63}").status == 400


def test_an_aborted_job_leaves_its_etl_and_other_jobs_alone(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl = name("slow")
    admin.init_etl(etl, "sleep", {"seconds": 0.2})
    put_all(wire, bucket, {f"{i:02}": b"x" for i in range(40)})
    endless = admin.transform(f"s3://{bucket}", f"s3://{name('endless')}", etl, args={"seconds": 5}, concurrency=2)
    short = admin.transform(f"s3://{bucket}", f"s3://{name('short')}", etl, limit=4, concurrency=2)
    for job in admin.watch_job(endless.id):
        if job.state == "running" and job.phase == "transforming":
            break
    with pytest.raises(AdminError, match="abort it"):
        admin.remove_job(endless.id)
    began = time.monotonic()
    admin.abort_job(endless.id)
    ended = admin.wait_job(endless.id, timeout_s=WITHIN_S)
    assert ended.state == "aborted" and not ended.well
    assert time.monotonic() - began < 4  # it doesn't wait for objects under way
    assert counts(admin.wait_job(short.id, timeout_s=WITHIN_S)) == ("done", 4, 0, 0, 0, 0)
    assert wire.get(at(bucket, "00", etl=etl)).status == 200
    assert admin.abort_job(endless.id).state == "aborted"
    admin.remove_job(endless.id)
    with pytest.raises(AdminError, match="no job"):
        admin.job(endless.id)


def test_waiting_can_be_bounded(wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]) -> None:
    put_all(wire, bucket, {"k": b"x"})
    job = admin.transform(f"s3://{bucket}", f"s3://{name('late')}", "sleep", args={"seconds": 30})
    with pytest.raises(TimeoutError, match=f"job {job.id} is still "):
        admin.wait_job(job.id, timeout_s=0.1)
    admin.abort_job(job.id)
    assert admin.wait_job(job.id, timeout_s=WITHIN_S).state == "aborted"


def test_an_inspection_finds_what_cannot_be_made(wire: Wire, bucket: str, admin: AdminClient) -> None:
    put_all(wire, bucket, {"a": b"1" * 1000, "b": b""})
    whole = admin.wait_job(admin.inspect(f"s3://{bucket}").id, timeout_s=WITHIN_S)
    assert (counts(whole), whole.bytes_in) == (("done", 0, 2, 0, 0, 0), 1000)
    tried = admin.wait_job(admin.inspect(f"s3://{bucket}", "reject").id, timeout_s=WITHIN_S)
    assert counts(tried) == ("done", 0, 0, 0, 2, 0)
    assert {error.stage for error in admin.job_errors(tried.id)} == {"reject"}


def test_somebody_elses_bucket_is_refused(tight: Wire, tight_bucket: str, tight_admin: AdminClient) -> None:
    theirs = f"{tight_bucket}-theirs"
    other = Wire(tight.server, *OTHER_OWNER)
    assert other.put(f"/{theirs}").status == 200
    for source, destination in ((theirs, tight_bucket), (tight_bucket, theirs)):
        with pytest.raises(AdminError, match="somebody else's"):
            tight_admin.transform(f"s3://{source}", f"s3://{destination}", "upper")


def test_a_key_that_is_no_admins_neither_starts_nor_sees_jobs(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient
) -> None:
    job = tight_admin.wait_job(tight_admin.inspect(f"s3://{tight_bucket}").id, timeout_s=WITHIN_S)
    with AdminClient(tight.server.endpoint, *OTHER_OWNER) as user:
        calls: list[Callable[[], object]] = [
            user.jobs,
            lambda: user.job(job.id),
            lambda: list(user.job_errors(job.id)),
            lambda: user.abort_job(job.id),
            lambda: user.retry_job(job.id),
            lambda: user.remove_job(job.id),
            lambda: user.inspect(f"s3://{tight_bucket}"),
        ]
        for call in calls:
            with pytest.raises(AdminError, match="not an admin's") as refused:
                call()
            assert refused.value.status == 403
    assert [each.id for each in tight_admin.jobs() if each.id == job.id] == [job.id]
