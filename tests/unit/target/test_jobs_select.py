from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.target.job_site import LIMITS
from transom.plugins.contract import Context, Skip, Transformer
from transom.plugins.manager import Transformers
from transom.target.errors import EtlArgsInvalid, JobRefused, NoSuchBucket, NoSuchEtl, TargetError
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.registry import Registry
from transom.target.etl.workers import WorkerPool
from transom.target.jobs.check import check_order
from transom.target.jobs.order import Order
from transom.target.jobs.records import Counts, Outcome, Selected
from transom.target.jobs.select import PAGE, select, select_again
from transom.target.jobs.site import Site
from transom.target.jobs.worklist import Collision, Worklist
from transom.target.store.base import Attributes, Listing, ObjectInfo, Store, Whole
from transom.target.store.local import LocalStore
from transom.target.store.memory import MemoryStore

MIB = 1024 * 1024
ODD_KEYS = ["/a.txt", "//b.txt", "../c.txt", "./d.txt", "e\nf.txt", "g/../h.txt", "i//j.txt", "日本/語.txt", "k.txt "]


class SkipsSome(Transformer):
    """Knows by the key that it leaves an object out."""

    name = "skips-some"

    def output_key(self, context: Context) -> str | None:
        if "skip" in context.key:
            raise Skip("by its name")
        if "fail" in context.key:
            raise KeyError("by its name")
        return None

    def transform(self, data: bytes, context: Context) -> bytes:
        return data


@dataclass
class Rig:
    """A site over a store, a worklist, and what puts objects there."""

    site: Site
    registry: Registry
    worklist: Worklist

    def put(self, *keys: str, bucket: str = "src", data: bytes = b"123", **said: Any) -> None:
        whole = [Whole(key, data, Attributes(**said)) for key in keys]
        stored = self.site.wait(self.site.store.put_many(bucket, whole))
        assert all(isinstance(each, ObjectInfo) for each in stored)

    def order(self, source: str = "s3://src", destination: str | None = "s3://dst", **said: Any) -> Order:
        if destination is not None:
            said = {"destination": destination, "etl": "echo", **said}
        return Order.model_validate({"source": source, **said})

    def select(self, source: str = "s3://src", destination: str | None = "s3://dst", **said: Any) -> list[Selected]:
        """Select into the empty worklist; what is on it then."""
        order = self.order(source, destination, **said)
        self.site.wait(select(self.site, order, check_order(order, self.registry).made, self.worklist))
        return self.pending()

    def pending(self) -> list[Selected]:
        items = self.worklist.pending(limit=-1)
        return [Selected(item.key, item.size, item.etag, item.destination) for item in items]

    def names(self, *args: str, **said: Any) -> dict[str, str]:
        """What becomes what."""
        return {item.key: item.destination for item in self.select(*args, **said)}


@pytest.fixture(params=["memory", "local"])
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, transformers: Transformers, registry: Registry
) -> Iterator[Rig]:
    store: Store = MemoryStore() if request.param == "memory" else LocalStore.at(tmp_path / "store")
    with_skips = Transformers({**transformers, "skips-some": SkipsSome()}, {}, {})
    registry = replace(registry, transformers=with_skips)
    site = Site(store, Pipelines(with_skips, WorkerPool(tmp_path), LIMITS, EtlMetrics()), tmp_path)
    for bucket in ("src", "dst"):
        site.wait(site.store.create_bucket(bucket, owner="o"))
    with Worklist.open(tmp_path / "job") as worklist:
        yield Rig(site, registry, worklist)
    site.close()


# --- listing ------------------------------------------------------------------------------------


def test_a_bucket_keeps_its_names_and_their_order(rig: Rig) -> None:
    rig.put(*ODD_KEYS)
    listed = [info.key for info in rig.site.wait(rig.site.store.list_objects("src")).objects]
    chosen = rig.select()
    assert [item.key for item in chosen] == listed
    assert sorted(listed) == sorted(ODD_KEYS)
    assert all(item.destination == item.key and item.size == 3 and len(item.etag) == 32 for item in chosen)


def test_below_a_prefix_names_are_relative_and_the_prefix_itself_is_no_object(rig: Rig) -> None:
    rig.put("in/", "in/a", "in/b/c", "in/b/", "inn", "other")
    assert rig.names("s3://src/in/", "s3://dst/out") == {"in/a": "out/a", "in/b/": "out/b/", "in/b/c": "out/b/c"}


def test_pages_follow_each_other(rig: Rig) -> None:
    keys = [f"{n:05}" for n in range(PAGE + 3)]
    rig.put(*keys)
    assert [item.key for item in rig.select()] == keys


def test_prefix_and_match_are_meant_after_the_sources_prefix(rig: Rig) -> None:
    rig.put("in/a/1.jpg", "in/a/2.png", "in/b/3.jpg", "a/4.jpg")
    chosen = rig.names("s3://src/in/", prefix="a/", match="a/*.{jpg,gif}")
    assert chosen == {"in/a/1.jpg": "a/1.jpg"}


def test_the_limit_counts_what_is_left_after_the_filters(rig: Rig) -> None:
    rig.put(*(f"{n:02}{'.jpg' if n % 2 else '.txt'}" for n in range(20)))
    chosen = rig.select(match="*.jpg", where='!key.startsWith("01")', limit=3)
    assert [item.key for item in chosen] == ["03.jpg", "05.jpg", "07.jpg"]
    assert rig.worklist.counts() == Counts(total=4, skipped=1)


def test_a_limit_goes_over_pages_and_stops_listing(rig: Rig) -> None:
    rig.put(*(f"{n:05}" for n in range(PAGE + 500)))
    assert len(rig.select(limit=PAGE + 1)) == PAGE + 1


def test_one_key_becomes_one_key(rig: Rig) -> None:
    rig.put("a/b.jpg", "a/b.jpg.bak")
    assert rig.names("s3://src/a/b.jpg", "s3://dst/x/y.png") == {"a/b.jpg": "x/y.png"}


@pytest.mark.parametrize(("destination", "made"), [("s3://dst", "b.jpg"), ("s3://dst/out/", "out/b.jpg")])
def test_one_key_below_a_prefix_keeps_its_last_part(rig: Rig, destination: str, made: str) -> None:
    rig.put("a/b.jpg")
    assert rig.names("s3://src/a/b.jpg", destination) == {"a/b.jpg": made}


def test_an_empty_source_is_an_empty_list(rig: Rig) -> None:
    assert rig.select() == []
    assert rig.worklist.counts() == Counts()


def test_a_bucket_that_is_gone_fails_the_job(rig: Rig) -> None:
    with pytest.raises(NoSuchBucket):
        rig.select("s3://gone")


def test_what_only_reads_has_no_names(rig: Rig) -> None:
    rig.put("a", "b")
    assert rig.names(destination=None, kind="inspect") == {"a": "", "b": ""}


# --- keys ---------------------------------------------------------------------------------------


def test_twenty_of_a_hundred_by_a_list_in_its_order(rig: Rig) -> None:
    rig.put(*(f"in/{n:03}" for n in range(100)))
    wanted = [f"{n:03}" for n in range(99, 0, -5)]
    chosen = rig.select("s3://src/in/", keys=[*wanted, *wanted[:3]])
    assert [item.key for item in chosen] == [f"in/{name}" for name in wanted]
    assert [item.destination for item in chosen] == wanted


def test_twenty_of_a_hundred_by_a_template(rig: Rig) -> None:
    rig.put(*(f"in/shard-{n:04}.tar" for n in range(100)))
    chosen = rig.select("s3://src/in/", template="shard-{0001..0099..5}.tar")
    assert [item.destination for item in chosen] == [f"shard-{n:04}.tar" for n in range(1, 100, 5)]
    assert len(chosen) == 20


def test_keys_that_are_not_there_are_failures_and_never_dropped(rig: Rig) -> None:
    rig.put("a", "c")
    assert [item.key for item in rig.select(keys=["a", "b", "c"])] == ["a", "c"]
    (error,) = rig.worklist.errors()
    assert (error.key, error.code) == ("b", "NoSuchKey")
    assert "no object 'b'" in error.message
    assert rig.worklist.counts() == Counts(total=3, failed=1)


def test_one_key_that_is_not_there_is_a_failure(rig: Rig) -> None:
    assert rig.select("s3://src/gone", "s3://dst/x") == []
    assert [error.key for error in rig.worklist.errors()] == ["gone"]


def test_keys_are_filtered_like_what_is_listed(rig: Rig) -> None:
    rig.put("x/a.jpg", "x/b.txt", "y/c.jpg")
    chosen = rig.select(keys=["y/c.jpg", "x/b.txt", "x/a.jpg", "x/no.txt"], prefix="x/", match="*.jpg")
    assert [item.key for item in chosen] == ["x/a.jpg"]
    assert rig.worklist.errors() == []


def test_a_template_that_makes_a_name_twice_asks_for_it_once(rig: Rig) -> None:
    rig.put("111")
    assert [item.key for item in rig.select(template="{1..11}{1..11}", match="111")] == ["111"]


# --- where --------------------------------------------------------------------------------------


def test_a_predicate_sees_size_metadata_tags_type_and_time(rig: Rig) -> None:
    rig.put("small", data=b"1")
    rig.put("tagged", tags={"split": "train"})
    rig.put("told", metadata={"camera": "GR"})
    rig.put("typed", content={"content-type": "image/png"})
    for where, key in [
        ("size < 3", "small"),
        ("'split' in tags && tags.split == 'train'", "tagged"),
        ("has(metadata.camera)", "told"),
        ("content_type == 'image/png'", "typed"),
        ("modified < timestamp('2020-01-01T00:00:00Z')", None),
    ]:
        rig.worklist.clear()
        assert [item.key for item in rig.select(where=where)] == ([] if key is None else [key])
        assert rig.worklist.counts().skipped == (4 if key is None else 3)


def test_what_needs_the_output_is_left_open_and_the_rest_is_decided(rig: Rig) -> None:
    rig.put("small", data=b"1")
    rig.put("large", data=b"12345")
    assert [item.key for item in rig.select(where="size > 3 && output.n == 1")] == ["large"]


def test_a_predicate_that_fails_on_an_object_is_its_failure(rig: Rig) -> None:
    rig.put("bare")
    rig.put("told", metadata={"camera": "GR"})
    assert [item.key for item in rig.select(where="metadata.camera == 'GR'")] == ["told"]
    (error,) = rig.worklist.errors()
    assert (error.key, error.code) == ("bare", "WhereFailed")


# --- names --------------------------------------------------------------------------------------


def test_a_pipeline_that_renames_says_the_names(rig: Rig) -> None:
    rig.put("in/cat.jpg", "in/dog.jpg")
    args = [{"pattern": "^(c|d)", "replacement": r"\1/\1"}, None]
    assert rig.names("s3://src/in/", "s3://dst/out", etl="rename>>md5", args=args, prepend="p-") == {
        "in/cat.jpg": "out/p-c/cat.txt",
        "in/dog.jpg": "out/p-d/dog.txt",
    }


def test_an_extension_goes_by_what_is_said_of_each_object(rig: Rig) -> None:
    rig.put("a.x", content={"content-type": "image/png"})
    rig.put("b.x", content={"content-type": "image/webp"})
    assert rig.names(etl="image", args={"width": 5}) == {"a.x": "a.png", "b.x": "b.webp"}


def test_ext_and_prepend(rig: Rig) -> None:
    rig.put("a/b.jpg", "a/c.png")
    chosen = rig.names(etl="image", args={"format": "webp"}, ext={"jpg": "small.webp"}, prepend="x-")
    assert chosen == {"a/b.jpg": "x-a/b.small.webp", "a/c.png": "x-a/c.webp"}


def test_what_a_transformer_leaves_out_by_its_key_is_counted(rig: Rig) -> None:
    rig.put("skip-1", "keep", "fail")
    assert [item.key for item in rig.select(etl="skips-some")] == ["keep"]
    assert rig.worklist.counts() == Counts(total=3, skipped=1, failed=1)
    (error,) = rig.worklist.errors()
    assert (error.key, error.code) == ("fail", "EtlFailed")
    assert "ETL 'skips-some' could not say" in error.message


def test_two_objects_that_become_one_are_refused_naming_both(rig: Rig) -> None:
    rig.put("cat.jpg", "cat.png")
    with pytest.raises(Collision, match=r"'cat\.jpg' and 'cat\.png' would both become 'cat\.webp'"):
        rig.select(etl="image", args={"format": "webp"})


def test_a_name_too_long_is_refused_naming_the_object(rig: Rig) -> None:
    rig.put("k" * 1000)
    with pytest.raises(JobRefused, match=f"'{'k' * 1000}' would become a key of 1031 bytes"):
        rig.select(destination=f"s3://dst/{'d' * 30}")


# --- one bucket ---------------------------------------------------------------------------------


def test_in_one_bucket_all_names_must_differ(rig: Rig) -> None:
    rig.put("a.jpg", "b.jpg")
    chosen = rig.names("s3://src", "s3://src", etl="image", args={"format": "webp"}, force=True)
    assert chosen == {"a.jpg": "a.webp", "b.jpg": "b.webp"}


def test_in_one_bucket_nothing_that_is_read_is_overwritten(rig: Rig) -> None:
    rig.put("a", "xa")
    with pytest.raises(JobRefused, match="'a' would become 'xa', which the job reads"):
        rig.select("s3://src", "s3://src", prepend="x", force=True)
    rig.worklist.clear()
    assert rig.names("s3://src", "s3://src", prepend="x", force=True, match="a") == {"a": "xa"}


def test_in_one_bucket_the_very_key_is_never_its_own_destination(rig: Rig) -> None:
    rig.put("a/b", "a/c")
    with pytest.raises(JobRefused, match="'a/b' would become 'a/b'"):
        rig.select("s3://src/a/", "s3://src/a/", force=True)


# --- again --------------------------------------------------------------------------------------


def test_what_could_not_be_chosen_is_chosen_again_before_it_is_retried(rig: Rig) -> None:
    rig.put("a", metadata={"x": "1"})
    rig.put("b", "d")
    order = rig.order(keys=["a", "b", "c", "d", "e"], where="metadata.x == '1'")
    plan = check_order(order, rig.registry).made
    rig.site.wait(select(rig.site, order, plan, rig.worklist))
    assert [item.key for item in rig.pending()] == ["a"]
    rig.worklist.note([Outcome(1, "failed", code="EtlFailed")])

    rig.put("b", "c", metadata={"x": "1"})
    rig.put("d", metadata={"x": "2"})
    rig.worklist.retry_failed(1)
    rig.site.wait(select_again(rig.site, order, plan, rig.worklist))
    assert {item.key: item.destination for item in rig.pending()} == {"a": "a", "b": "b", "c": "c"}
    assert all(item.etag for item in rig.pending())
    assert [error.key for error in rig.worklist.errors()] == ["e"]
    assert rig.worklist.counts().skipped == 1


def test_what_comes_back_under_a_name_that_is_taken_is_refused(rig: Rig) -> None:
    rig.put("a.jpg")
    order = rig.order(etl="image", args={"format": "webp"}, keys=["a.jpg", "a.png"])
    plan = check_order(order, rig.registry).made
    rig.site.wait(select(rig.site, order, plan, rig.worklist))
    rig.put("a.png")
    rig.worklist.retry_failed(1)
    with pytest.raises(Collision, match=r"'a\.jpg' and 'a\.png'"):
        rig.site.wait(select_again(rig.site, order, plan, rig.worklist))


# --- size ---------------------------------------------------------------------------------------


class Endless(MemoryStore):
    """Lists as many objects as it was told to have, none of which it holds."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        start = int(after or 0) + 1
        stop = min(start + limit, self.count + 1)
        objects = [ObjectInfo(bucket, f"{n:09}", 1, "e" * 32, 0) for n in range(start, stop)]
        return Listing(objects, [], objects[-1].key if stop <= self.count else None)


def test_a_huge_listing_takes_no_more_memory_than_a_page(tmp_path: Path) -> None:
    order = Order.model_validate({"kind": "inspect", "source": "s3://src"})
    site = Site(
        Endless(30_000), Pipelines(Transformers({}, {}, {}), WorkerPool(tmp_path), LIMITS, EtlMetrics()), tmp_path
    )
    with closing(site), Worklist.open(tmp_path / "job") as worklist:
        tracemalloc.start()
        try:
            site.wait(select(site, order, None, worklist))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert worklist.counts().total == 30_000
    assert peak < 4 * MIB


# --- early refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error", "reason"),
    [
        ({"etl": "no-such"}, NoSuchEtl, "no ETL named 'no-such'"),
        ({"etl": "echo>>"}, EtlArgsInvalid, "empty stage"),
        ({"args": {"no_such": 1}}, EtlArgsInvalid, "no_such"),
        ({"etl": "echo>>md5", "args": [None]}, EtlArgsInvalid, "list of 2 values"),
        ({"where": "size >"}, JobRefused, "line 1, column 7"),
        ({"where": "output == 1", "where_etl": "no-such"}, NoSuchEtl, "no-such"),
        ({"where": "size > 1", "where_etl": "md5"}, JobRefused, "asks for no output"),
        ({"where_etl": "md5"}, JobRefused, "give where too"),
        ({"template": "{a..b}"}, JobRefused, "no range of numbers"),
        ({"match": "[b-a]"}, JobRefused, "wrong way round"),
        ({"keys": []}, JobRefused, "list of keys is empty"),
        ({"keys": ["a", ""]}, JobRefused, "one of the keys is empty"),
        ({"source": "s3://src/a", "keys": ["b"]}, JobRefused, "is one key; .*'s3://src/a/' for all under it"),
        ({"source": "s3://src/a", "prefix": "b"}, JobRefused, "is one key"),
        ({"source": "s3://src/a", "sync": True}, JobRefused, "is one key"),
        (
            {"source": "s3://src/a", "destination": "s3://dst/b", "prepend": "x"},
            JobRefused,
            "leave out ext and prepend",
        ),
        ({"ext": {".jpg": "webp"}}, JobRefused, "follows a name's last dot"),
        ({"ext": {"jpg": ""}}, JobRefused, "jpg=webp"),
        ({"prepend": "x" * 1025}, JobRefused, "more than 1024 bytes"),
        ({"destination": "s3://src/x"}, JobRefused, "one bucket, 'src'.*force"),
        (
            {"source": "s3://src/a", "destination": "s3://src/a", "force": True},
            JobRefused,
            "'a' would be overwritten",
        ),
        ({"destination": "s3://src/x/", "force": True, "sync": True}, JobRefused, "don't contain each other"),
        ({"kind": "inspect", "where": "output == 1"}, JobRefused, "say by what ETL"),
        ({"kind": "inspect", "prepend": "x"}, JobRefused, "writes nothing"),
        ({"kind": "sort", "sorting": {"shard_count": 1}, "etl": "md5"}, JobRefused, "transform first"),
        ({"kind": "sort", "sorting": {"shard_count": 1, "shards": "{0..x}"}}, JobRefused, "no range of numbers"),
        ({"kind": "sort", "sorting": {"shard_count": 1}, "where": "output_size > 1"}, JobRefused, "makes none"),
    ],
)
def test_what_can_be_known_before_is_refused_with_the_remedy(
    registry: Registry, said: dict[str, Any], error: type[TargetError], reason: str
) -> None:
    kind = said.get("kind", "transform")
    given: dict[str, Any] = {"source": "s3://src"}
    if kind != "inspect":
        given["destination"] = "s3://dst"
    if kind == "transform":
        given["etl"] = "echo"
    with pytest.raises(error, match=reason):
        check_order(Order.model_validate({**given, **said}), registry)


def test_a_good_order_gives_its_plans(registry: Registry) -> None:
    order = Order.model_validate(
        {
            "source": "s3://src/in/",
            "destination": "s3://src/out/",
            "force": True,
            "sync": True,
            "etl": "image >> md5",
            "args": [{"width": 5}, None],
            "where": "output == '' && size > 1",
            "where_etl": "hash",
            "where_args": {"seed": 7},
        }
    )
    plans = check_order(order, registry)
    assert plans.made is not None
    assert plans.judged is not None
    assert (plans.made.name, plans.judged.name) == ("image>>md5", "hash")
