"""WebDatasets sorted and resharded over sockets, and read again by the `webdataset` package."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import webdataset

from tests.ray_cluster import RAY, ray_cluster
from tests.running import ACCESS, SECRET, RunningServer
from transom.client.admin import AdminClient
from transom.client.records import Job

RECORDS = 300
SHARDS = 4
Sample = tuple[str, bytes, bytes]
READER = """
import json, sys, webdataset
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
    print(json.dumps([sample["__key__"], sample["jpg"].hex(), sample["cls"].hex()]))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("sort"), ("--processes", "1")).start()
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture(scope="module")
def admin(here: RunningServer) -> Iterator[AdminClient]:
    with AdminClient(here.endpoint, ACCESS, SECRET) as client:
        yield client


@pytest.fixture(scope="module")
def s3(here: RunningServer) -> Any:
    return here.client()


def samples() -> list[Sample]:
    """Records as WebDataset has them: a key, an image and a class."""
    chance = random.Random(7)
    return [
        (f"{n // 100}/{n:06d}", chance.randbytes(chance.randrange(20_000)), b"%d" % (n * 37 % 100))
        for n in range(RECORDS)
    ]


def upload(s3: Any, bucket: str) -> list[Sample]:
    """Write the records in no order, by `webdataset`, as shards in a bucket; return them in order."""
    made = samples()
    mixed = random.Random(8).sample(made, len(made))
    s3.create_bucket(Bucket=bucket)
    for shard in range(SHARDS):
        output = io.BytesIO()
        with webdataset.TarWriter(output) as sink:
            for key, image, label in mixed[shard::SHARDS]:
                sink.write({"__key__": key, "jpg": image, "cls": label})
        s3.put_object(Bucket=bucket, Key=f"in/{shard}.tar", Body=output.getvalue())
    return made


def download(s3: Any, bucket: str, folder: Path) -> list[str]:
    """Fetch a bucket's shards; return their paths in order."""
    folder.mkdir()
    paths = []
    for each in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        path = folder / each["Key"]
        path.write_bytes(s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read())
        paths.append(str(path))
    return paths


def read(paths: Sequence[str]) -> list[Sample]:
    """The records of shards, as `webdataset` sees them: in a process of its own, since it leaves files open."""
    done = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=True)
    return [
        (key, bytes.fromhex(image), bytes.fromhex(label))
        for key, image, label in map(json.loads, done.stdout.splitlines())
    ]


def digests(s3: Any, bucket: str) -> dict[str, str]:
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    return {
        each["Key"]: hashlib.sha256(s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()).hexdigest()
        for each in listed
    }


def ended(admin: AdminClient, job: Job) -> Job:
    return admin.wait_job(job.id, timeout_s=100)


def test_a_sorted_webdataset_is_complete_and_in_order_and_the_same_twice(
    admin: AdminClient, s3: Any, tmp_path: Path
) -> None:
    made = upload(s3, "wds")
    first = ended(admin, admin.sort("s3://wds/in/", "s3://wds-sorted", shard_count=5))
    assert (first.state, first.total, first.written, first.failed) == ("done", 5, 5, 0)
    assert first.message == f"{RECORDS} records of {SHARDS} objects are in 5 shards"
    assert read(download(s3, "wds-sorted", tmp_path / "sorted")) == made
    twice = ended(admin, admin.sort("s3://wds/in/", "s3://wds-twice", shard_count=5))
    assert twice.written == 5
    assert digests(s3, "wds-twice") == digests(s3, "wds-sorted")
    again = ended(admin, admin.sort("s3://wds/in/", "s3://wds-sorted", shard_count=5))
    assert (again.written, again.unchanged) == (0, 5)


def test_shards_of_an_earlier_sort_are_told_of_and_go_with_sync(admin: AdminClient, s3: Any) -> None:
    made = {f"k{n:02}": b"x" for n in range(12)}
    s3.create_bucket(Bucket="fewer")
    for key, data in made.items():
        s3.put_object(Bucket="fewer", Key=key, Body=data)
    assert ended(admin, admin.sort("s3://fewer", "s3://fewer-made/", shard_records=4)).written == 3
    s3.copy_object(Bucket="fewer-made", Key="kept.tar", CopySource="fewer-made/shard-000002.tar")
    dry = ended(admin, admin.sort("s3://fewer", "s3://fewer-made/", shard_records=6, sync=True, dry_run=True))
    assert (dry.written, dry.deleted) == (2, 1)
    told = ended(admin, admin.sort("s3://fewer", "s3://fewer-made/", shard_records=6))
    assert told.message.endswith(
        "; 1 of an earlier sort of this source, such as 'shard-000002.tar', are there still: sync deletes them"
    )
    assert set(digests(s3, "fewer-made")) == {f"shard-00000{n}.tar" for n in range(3)} | {"kept.tar"}
    rest = ended(admin, admin.sort("s3://fewer", "s3://fewer-made/", shard_records=6, sync=True))
    assert (rest.written, rest.unchanged, rest.deleted) == (0, 2, 1)
    assert set(digests(s3, "fewer-made")) == {"shard-000000.tar", "shard-000001.tar", "kept.tar"}  # a copy is nobody's


def test_a_shuffle_by_a_seed_and_a_sort_by_content(admin: AdminClient, s3: Any, tmp_path: Path) -> None:
    made = upload(s3, "mix")
    for bucket, seed in (("mix-1", 1), ("mix-1-too", 1), ("mix-2", 2)):
        ended(admin, admin.sort("s3://mix", f"s3://{bucket}", by="shuffle", seed=seed, shard_size=512 * 1024))
    found = read(download(s3, "mix-1", tmp_path / "shuffled"))
    assert found != made
    assert sorted(found) == made
    assert digests(s3, "mix-1") == digests(s3, "mix-1-too") != digests(s3, "mix-2")
    assert all(each["Size"] <= 512 * 1024 + 10240 for each in s3.list_objects_v2(Bucket="mix-1")["Contents"])
    ended(
        admin,
        admin.sort(
            "s3://mix", "s3://mix-cls", by="content", content="cls", values="int", descending=True, shard_records=64
        ),
    )
    by_class = read(download(s3, "mix-cls", tmp_path / "classes"))
    assert by_class == sorted(made, key=lambda sample: (-int(sample[2]), sample[0]))


def test_what_cannot_be_sorted_is_listed_and_can_be_tried_again(admin: AdminClient, s3: Any, tmp_path: Path) -> None:
    made = upload(s3, "torn")
    whole = s3.get_object(Bucket="torn", Key="in/2.tar")["Body"].read()
    s3.put_object(Bucket="torn", Key="in/2.tar", Body=whole[: len(whole) // 2])
    job = ended(admin, admin.sort("s3://torn/in/", "s3://torn-made", shard_records=100))
    assert (job.failed, job.written) == (1, 3)
    (error,) = admin.job_errors(job.id)
    assert (error.key, error.code) == ("in/2.tar", "DamagedArchive")
    assert f"of {len(whole) // 2}" in error.message
    s3.put_object(Bucket="torn", Key="in/2.tar", Body=whole)
    again = ended(admin, admin.retry_job(job.id))
    assert (again.state, again.failed, again.written + again.unchanged) == ("done", 0, 3)
    assert read(download(s3, "torn-made", tmp_path / "mended")) == made


def test_a_sort_that_is_refused_writes_nothing(admin: AdminClient, s3: Any) -> None:
    upload(s3, "double")
    s3.copy_object(Bucket="double", Key="in/copy.tar", CopySource="double/in/0.tar")
    job = ended(admin, admin.sort("s3://double", "s3://double-made", shard_count=2))
    assert job.state == "failed"
    assert "is both in s3://double/in/0.tar and in s3://double/in/copy.tar" in job.message
    assert "double-made" not in {each["Name"] for each in s3.list_buckets()["Buckets"]}


def test_a_dry_run_says_what_would_be_and_makes_no_bucket(admin: AdminClient, s3: Any) -> None:
    upload(s3, "dry")
    job = ended(admin, admin.sort("s3://dry", "s3://dry-made", shard_records=100, dry_run=True))
    assert (job.state, job.written) == ("done", 3)
    assert job.message == f"{RECORDS} records of {SHARDS} objects would be in 3 shards"
    assert "dry-made" not in {each["Name"] for each in s3.list_buckets()["Buckets"]}


def test_ray_makes_the_same_shards_as_this_machine(tmp_path: Path) -> None:
    if not RAY.exists():
        pytest.skip("ray is not installed")
    with ray_cluster() as address:
        config = tmp_path / "transom.toml"
        config.write_text(f'[jobs]\nray_address = "{address}"\n')
        server = RunningServer(tmp_path / "data", ("--processes", "1", "--config", str(config))).start()
        try:
            s3 = server.client()
            upload(s3, "wds")
            with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
                for engine in ("local", "ray"):
                    job = ended(
                        admin,
                        admin.sort(
                            "s3://wds", f"s3://wds-{engine}", by="shuffle", seed=3, shard_count=4, engine=engine
                        ),
                    )
                    assert job.state == "done", job.message
                    assert (job.state, job.written, job.message) == (
                        "done", 4, f"{RECORDS} records of {SHARDS} objects are in 4 shards",
                    )  # fmt: skip
            assert digests(s3, "wds-local") == digests(s3, "wds-ray")
        finally:
            assert server.stop() == 0, "".join(server.log)


def test_a_sort_goes_on_after_the_server_was_killed_in_the_middle(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", ("--processes", "1")).start()
    s3 = server.client()
    made = upload(s3, "wds")
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        job = admin.sort("s3://wds", "s3://wds-made", shard_records=1)
        for seen in admin.watch_job(job.id):
            assert not seen.ended
            if seen.phase == "writing" and seen.written >= 10:
                break
        server.kill()
        before = admin_view(server.start(), "wds-made")
        assert 10 <= len(before) < RECORDS
        ended_job = ended(admin, job)
    assert (ended_job.state, ended_job.failed, ended_job.written + ended_job.unchanged) == ("done", 0, RECORDS)
    assert ended_job.runs == 2
    after = admin_view(server, "wds-made")
    assert {key: after[key] for key in before} == before
    assert read(download(s3, "wds-made", tmp_path / "made")) == made
    assert server.stop() == 0, "".join(server.log)


def admin_view(server: RunningServer, bucket: str) -> dict[str, tuple[str, str]]:
    """What is in a bucket, and since when."""
    listed = server.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {each["Key"]: (each["ETag"], str(each["LastModified"])) for each in listed}
