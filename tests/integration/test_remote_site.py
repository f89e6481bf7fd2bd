"""A job's worker on a machine without the data folder does over S3 just what one beside it does."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.running import ACCESS, SECRET, RunningServer
from transom.client.admin import AdminClient
from transom.cluster.catalog import Catalog
from transom.gateway.config import Config
from transom.gateway.offline import open_site
from transom.gateway.parts import CATALOG
from transom.target.errors import EtlFailed, NoSuchBucket, NoSuchKey, SlowDown, SourceChanged
from transom.target.etl.limits import Limits
from transom.target.etl.registry import Registry
from transom.target.etl.watch import Watch
from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.jobs.order import Order
from transom.target.jobs.perform import Batch, TransformWork
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.remote_site import AnywhereOpener, Endpoint, query_of
from transom.target.jobs.site import Site
from transom.target.store.base import Attributes, Whole, WriteCondition

MIB = 1024 * 1024
OBJECTS = {"empty": b"", "a b/ü+&.txt": b"some words", "large": bytes(range(256)) * (6 * MIB // 256)}
CODE = """
from transom.worker import Reject, Skip

def transform(data, context):
    if not data:
        raise Skip("nothing in it")
    if len(data) > 1000000:
        raise Reject("too much")
    return data[::-1]
"""
LEAVING = """
import sys
from transom.target.etl.limits import Limits
from transom.target.jobs.remote_site import Endpoint, open_remote

site = open_remote(Endpoint(*sys.argv[1:]), Limits())
(site.scratch / "made").mkdir()
(site.scratch / "made" / "file").write_bytes(b"left")
print(site.scratch, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("remote"), ("--processes", "1")).start()
    client = server.client()
    client.create_bucket(Bucket="src")
    client.create_bucket(Bucket="dst")
    for key, data in OBJECTS.items():
        client.put_object(
            Bucket="src", Key=key, Body=data, Metadata={"note": "kept"}, ContentType="text/plain", Tagging="a=1&b=2"
        )
    admin = AdminClient(server.endpoint, ACCESS, SECRET)
    admin.init_spec(json.dumps({"name": "tr", "runtime": {"command": ["tr", "a-z", "A-Z"]}}))
    admin.init_spec(json.dumps({"name": "code", "runtime": {"code": CODE}}))
    yield server
    assert server.stop() == 0


def here(running: RunningServer, scratch: Path) -> Callable[[], Site]:
    """Opens the site of a worker beside the data folder."""
    return partial(open_site, running.folder, Config().model_dump(mode="json"), "admin", scratch)


def opener(running: RunningServer, scratch: Path, **changed: Any) -> AnywhereOpener:
    """Opens the site of a worker on another machine."""
    said = {"endpoint": Endpoint(running.endpoint, ACCESS, SECRET), "boot_id": "another machine's", **changed}
    return AnywhereOpener(here(running, scratch), running.folder / CATALOG, Limits(gil_inline_size=1 << 60), **said)


@pytest.fixture
def remote(running: RunningServer, tmp_path: Path) -> Iterator[Site]:
    """The site of a worker on another machine, as it is there after its opener was sent."""
    site = pickle.loads(pickle.dumps(opener(running, tmp_path)))()
    with closing(site):
        assert site.places is None
        assert not site.scratch.is_relative_to(running.folder)
        yield site
    assert not site.scratch.exists()


@pytest.fixture
def local(running: RunningServer, tmp_path: Path) -> Iterator[Site]:
    with closing(opener(running, tmp_path / "scratch", boot_id=boot_id())()) as site:
        assert site.places is not None
        yield site


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def work_of(running: RunningServer, site: Site, etl: str, args: Any = None, **asked: Any) -> TransformWork:
    with closing(Catalog.open(running.folder / CATALOG)) as catalog:
        given = None if args is None else json.dumps(args)
        plan = Registry(site.pipelines.transformers, catalog).plan(etl.split(">>"), given) if etl else None
    if asked.get("kind") != "inspect":
        asked = {"destination": "s3://dst", **asked}
    return TransformWork("job", Order(source="s3://src", etl=etl, args=args, **asked), plan, "admin")


def do(work: TransformWork, site: Site, prepend: str = "") -> list[Outcome]:
    items = tuple(Item(n, key, len(data), "", prepend + key) for n, (key, data) in enumerate(OBJECTS.items()))
    return sorted(work(site, Batch(items)).outcomes, key=lambda outcome: outcome.n)


def states(outcomes: list[Outcome]) -> list[tuple[str, int, int]]:
    return [(outcome.state, outcome.bytes_in, outcome.bytes_out) for outcome in outcomes]


@pytest.mark.parametrize(
    ("etl", "args", "by_hand"),
    [
        ("upper", None, bytes.upper),
        ("append>>upper", [{"text": "!a"}, None], lambda data: (data + b"!a").upper()),
        ("tr", None, bytes.upper),
        ("tr>>append", [None, {"text": "!a"}], lambda data: data.upper() + b"!a"),
    ],
)
def test_objects_become_what_they_do_beside_the_folder(
    running: RunningServer, remote: Site, local: Site, etl: str, args: Any, by_hand: Callable[[bytes], bytes]
) -> None:
    work = work_of(running, remote, etl, args)
    prepend = etl.replace(">>", "-") + "/"
    sizes = [("written", len(data), len(by_hand(data))) for data in OBJECTS.values()]
    outcomes = do(work, remote, prepend)
    assert states(outcomes) == sizes, outcomes
    for key, data in OBJECTS.items():
        answer = running.client().get_object(Bucket="dst", Key=prepend + key)
        assert answer["Body"].read() == by_hand(data)
        assert answer["Metadata"]["note"] == "kept"
        assert answer["Metadata"]["transom-pipeline"] == etl
        assert answer["ETag"] == f'"{local.wait(local.store.head("dst", prepend + key)).etag}"'
        assert local.wait(local.store.head("dst", prepend + key)).attributes.tags == {"a": "1", "b": "2"}
        assert local.wait(local.store.head("dst", prepend + key)).attributes.owner == "admin"
    # either finds what the other did up to date
    assert states(do(work, local, prepend)) == [("unchanged", 0, 0)] * 3
    assert states(do(work, remote, prepend)) == [("unchanged", 0, 0)] * 3


def test_what_the_server_leaves_out_or_rejects_is_told_apart(running: RunningServer, remote: Site) -> None:
    outcomes = do(work_of(running, remote, "code"), remote, "code/")
    assert [(outcome.state, outcome.stage, outcome.code) for outcome in outcomes] == [
        ("skipped", "code", ""),
        ("written", "", ""),
        ("failed", "code", "EtlInputRejected"),
    ]
    assert "too much" in outcomes[2].message


@pytest.mark.parametrize(
    ("etl", "args", "stage"),
    [
        ("tr>>fail", None, "fail"),
        ("fail>>tr", None, "fail"),
        ("append>>code>>upper", [{"text": "!"}, None, None], "code"),
    ],
)
def test_errors_name_their_stage_as_those_beside_the_folder_do(
    running: RunningServer, remote: Site, local: Site, etl: str, args: Any, stage: str
) -> None:
    work = work_of(running, remote, etl, args)
    for site in (remote, local):
        (outcome,) = work(site, Batch((Item(0, "large", 1, "", f"failing/{etl}"),))).outcomes
        assert (outcome.state, outcome.stage, f"ETL '{stage}'" in outcome.message) == ("failed", stage, True), outcome


def test_a_stage_that_fails_once_the_answer_has_begun_is_named(
    running: RunningServer, remote: Site, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    plan = work_of(running, remote, "tr>>tap", [None, {"before": 3 * MIB, "gate": str(gate), "fail": True}]).plan
    assert plan is not None
    reader = remote.wait(remote.store.open("src", "large"))
    with closing(reader), closing(remote.pipelines.produce(plan, reader, Watch("late", 30.0), tmp_path)) as pieces:
        assert next(pieces)
        gate.touch()
        with pytest.raises(EtlFailed, match="ETL 'tap' failed") as raised:
            list(pieces)
    assert raised.value.etl == "tap"


def test_an_object_with_all_the_metadata_that_may_be_is_written_and_found_again(
    running: RunningServer, remote: Site, local: Site
) -> None:
    """What a job says of its making comes on top: a key may be long, too, and takes three characters a byte."""
    key, note = "ü" * 480, "n" * (2048 - len("note"))
    client = running.client()
    client.put_object(Bucket="src", Key=key, Body=b"text", Metadata={"note": note}, ContentType="text/plain")
    told = []
    try:
        for etl, by in (("append", remote), ("append", local), ("tr>>append", remote)):
            work = work_of(
                running, remote, etl, {"text": "a" * 450} if etl == "append" else [None, {"text": "a" * 430}]
            )
            item = Item(0, key, 4, "", f"full/{etl}/{key}")
            states = [work(site, Batch((item,))).outcomes[0].state for site in (by, local, remote)]
            assert states == ["written", "unchanged", "unchanged"]
            told.append(client.head_object(Bucket="dst", Key=item.destination)["Metadata"])
            client.delete_object(Bucket="dst", Key=item.destination)
        assert all(each["note"] == note and len(each["transom-source"]) > 2048 for each in told)
        assert told[0] == told[1]
    finally:
        client.delete_object(Bucket="src", Key=key)


def test_objects_are_inspected(running: RunningServer, remote: Site) -> None:
    assert [outcome.state for outcome in do(work_of(running, remote, "", kind="inspect"), remote)] == ["unchanged"] * 3


def test_a_gone_source_is_its_objects_failure(running: RunningServer, remote: Site) -> None:
    work = work_of(running, remote, "upper")
    (outcome,) = work(remote, Batch((Item(0, "gone", 1, "", "gone"),))).outcomes
    assert (outcome.state, outcome.code) == ("failed", "NoSuchKey")


def test_a_result_of_another_revision_is_not_taken(running: RunningServer, remote: Site) -> None:
    admin = AdminClient(running.endpoint, ACCESS, SECRET)
    admin.init_spec(json.dumps({"name": "changing", "runtime": {"command": ["tr", "a-z", "A-Z"]}}))
    work = work_of(running, remote, "changing")
    admin.init_spec(json.dumps({"name": "changing", "runtime": {"command": ["tr", "a-z", "0-9"]}}))
    reader = remote.wait(remote.store.open("src", "a b/ü+&.txt"))
    assert work.plan is not None
    with closing(reader), pytest.raises(SourceChanged, match="the object or the ETL was changed meanwhile"):
        list(remote.pipelines.produce(work.plan, reader, Watch("changing", 10.0), remote.scratch))


# --- the store ------------------------------------------------------------------------------------


def test_reading_anywhere_in_an_object(remote: Site) -> None:
    data = OBJECTS["large"]
    with closing(remote.wait(remote.store.open("src", "large"))) as reader:
        assert (reader.path, reader.info.size, reader.info.content_type) == (None, len(data), "text/plain")
        assert reader.read_at(0, 1000) == data[:1000]
        assert reader.read_at(1000, 9) == data[1000:1009]
        assert reader.read_at(5 * MIB, 2 * MIB) == data[5 * MIB :]
        assert reader.read_at(1009, 1) == data[1009:1010]
        assert reader.read_at(len(data), 1) == b""
        assert remote.wait(_collected(reader.chunks(17, 4 * MIB))) == data[17 : 4 * MIB]


def test_an_object_that_is_replaced_while_it_is_read_is_told(running: RunningServer, remote: Site) -> None:
    running.client().put_object(Bucket="src", Key="fickle", Body=b"first")
    try:
        with closing(remote.wait(remote.store.open("src", "fickle"))) as reader:
            running.client().put_object(Bucket="src", Key="fickle", Body=b"other")
            with pytest.raises(SourceChanged):
                reader.read_at(0, 5)
    finally:
        running.client().delete_object(Bucket="src", Key="fickle")


def test_listing_pages(remote: Site) -> None:
    first = remote.wait(remote.store.list_objects("src", limit=2))
    rest = remote.wait(remote.store.list_objects("src", after=first.next_after or "", limit=2))
    assert [info.key for page in (first, rest) for info in page.objects] == sorted(OBJECTS)
    assert rest.next_after is None
    assert remote.wait(remote.store.list_objects("src", delimiter="/")).prefixes == ["a b/"]


def test_writing_whole_or_not_at_all(running: RunningServer, remote: Site) -> None:
    store = remote.store
    attributes = Attributes(content={"content-type": "text/html", "cache-control": "no-store"}, metadata={"a": "b"})
    put = remote.wait(store.put("dst", "put", _body(b"x" * 9 * MIB, b"y"), attributes))
    assert remote.wait(store.head("dst", "put")).attributes == attributes
    assert (put.size, put.etag) == (9 * MIB + 1, remote.wait(store.head("dst", "put")).etag)
    with pytest.raises(ConnectionResetError):
        remote.wait(store.put("dst", "broken", _body(b"x", None), attributes))
    with pytest.raises(NoSuchKey):
        remote.wait(store.head("dst", "broken"))
    first, second, third = remote.wait(
        store.put_many(
            "dst",
            [Whole("m", b"1"), Whole("m", b"2", attributes), Whole("n", b"", Attributes(metadata={"a": "\u4e00"}))],
        )
    )
    assert first == second
    assert running.client().get_object(Bucket="dst", Key="m")["Body"].read() == b"2"
    assert "ASCII" in str(third)
    with pytest.raises(NoSuchBucket):
        remote.wait(store.put_many("nowhere", [Whole("m", b"1")]))
    assert remote.wait(store.delete("dst", "m", condition=WriteCondition(if_match=getattr(second, "etag", ""))))


# --- opening --------------------------------------------------------------------------------------


def test_another_machine_needs_an_endpoint(running: RunningServer, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"\[jobs\] ray_endpoint"):
        opener(running, tmp_path, endpoint=None)()


def test_a_server_that_can_not_be_reached_is_said(running: RunningServer, tmp_path: Path) -> None:
    stopped = Endpoint("http://127.0.0.1:9", ACCESS, SECRET)
    with (
        closing(opener(running, tmp_path, endpoint=stopped)()) as site,
        pytest.raises(SlowDown, match="the server can't be reached"),
    ):
        site.wait(site.store.head("src", "empty"))


def test_what_a_killed_worker_left_goes_when_another_starts_there(
    running: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", LEAVING, running.endpoint, ACCESS, SECRET],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.is_relative_to(tmp_path)
        assert (left / "made" / "file").exists()
        with closing(opener(running, tmp_path)()):
            assert left.exists()  # it may be using it
        process.kill()
        process.wait()
    with closing(opener(running, tmp_path)()) as site:
        assert not left.exists()
        assert site.scratch.parent == left.parent
    assert not list(left.parent.iterdir())


def test_the_secret_is_not_printed() -> None:
    assert SECRET not in repr(Endpoint("http://127.0.0.1:9", ACCESS, SECRET))


def test_a_plan_is_asked_for_as_it_was(running: RunningServer, remote: Site) -> None:
    plan = work_of(running, remote, "append>>upper", [{"text": "!"}, None]).plan
    assert plan is not None
    assert query_of(plan) == {"etl": "append>>upper", "etl_args": '[{"text": "!"}, null]'}
    single = work_of(running, remote, "append", {"text": "!"}).plan
    assert single is not None
    assert query_of(single) == {"etl": "append", "etl_args": '{"text": "!"}'}
    assert query_of(single + plan)["etl_args"] == '[{"text": "!"}, {"text": "!"}, null]'


async def _collected(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _body(*chunks: bytes | None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if chunk is None:
            raise ConnectionResetError
        yield chunk
