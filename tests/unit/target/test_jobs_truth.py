"""What a job's objects say of their making, and when they count as up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from transom.target.etl.plan import identify
from transom.target.etl.registry import Registry
from transom.target.jobs import truth
from transom.target.store.base import Attributes, ObjectInfo

HERE = truth.place_of("dst", "k")


def made(plan_result: str, attributes: Attributes) -> ObjectInfo:
    assert attributes.metadata[truth.RESULT] == plan_result
    return ObjectInfo("dst", "k", 1, "e", 1, attributes)


def test_what_is_said_of_an_object(registry: Registry, source: Callable[..., ObjectInfo]) -> None:
    plan = registry.plan(["upper", "md5"])
    info = source(bucket="b", key="a b/é>>%\n", etag="abc", colour="red")
    info = replace(info, attributes=replace(info.attributes, tags={"t": "1"}, owner="somebody", acl="public-read"))
    result = truth.result_of(plan, info)
    found = truth.attributes_of(truth.marks(plan, {"b": "é", "a": 1}), info, result, "x/y", "owner", HERE)
    assert found.metadata == {
        "colour": "red",
        truth.SOURCE: "b/a%20b/%C3%A9%3E%3E%25%0A",
        truth.SOURCE_ETAG: "abc",
        truth.PIPELINE: plan.name,
        truth.REVISIONS: " ".join(f"{stage.etl}@{stage.revision}" for stage in plan.stages),
        truth.ARGS: '{"a":1,"b":"\\u00e9"}',
        truth.RESULT: identify(plan, info).base,
        truth.PLACE: HERE,
    }
    assert all(value.isascii() and value.isprintable() for value in found.metadata.values())
    assert (found.content, found.tags) == ({"content-type": "x/y"}, {"t": "1"})
    assert (found.owner, found.acl) == ("owner", "private")
    assert truth.source_of(made(result, found)) == ("b", "a b/é>>%\n")
    assert truth.source_of(replace(made(result, found), key="copy")) is None


def test_marks_of_an_earlier_job_are_not_carried_on(registry: Registry, source: Callable[..., ObjectInfo]) -> None:
    plan = registry.plan(["echo"])
    first = source(key="k")
    attributes = truth.attributes_of(truth.marks(plan, None), first, truth.result_of(plan, first), "a/b", "o", HERE)
    attributes = replace(attributes, metadata={**attributes.metadata, "transom-odd": "x", "own": "y"})
    second = ObjectInfo("mid", "k2", 3, "e2", 5, attributes)
    again = truth.attributes_of(truth.marks(plan, None), second, "r", "a/b", "o", HERE)
    assert truth.source_of(made("r", again)) == ("mid", "k2")
    assert "transom-odd" not in again.metadata
    assert again.metadata["own"] == "y"


def test_only_what_also_holds_for_the_output_is_carried_on(
    registry: Registry, source: Callable[..., ObjectInfo]
) -> None:
    info = source()
    content = {"content-type": "a/b", "cache-control": "no-store", "content-encoding": "gzip", "expires": "0"}
    info = replace(info, attributes=replace(info.attributes, content=content))
    found = truth.attributes_of({}, info, "r", "c/d", "o", HERE)
    assert found.content == {"content-type": "c/d", "cache-control": "no-store"}


def test_long_arguments_are_told_apart_by_their_digest(registry: Registry) -> None:
    plan = registry.plan(["echo"])
    short, long, other = (truth.marks(plan, {"x": "é" * n})[truth.ARGS] for n in (80, 100, 101))
    assert short.startswith("{")
    assert long.startswith("sha256:")
    assert len(long) == len("sha256:") + 64
    assert long != other


def test_an_object_is_up_to_date_only_with_all_that_made_it(
    registry: Registry, source: Callable[..., ObjectInfo]
) -> None:
    plan = registry.plan(["echo"])
    info = source(etag="1", colour="red")
    result = truth.result_of(plan, info)
    there = made(result, truth.attributes_of(truth.marks(plan, None), info, result, "a/b", "o", HERE))
    assert truth.up_to_date(there, identify(plan, info).base)
    changed = replace(plan, stages=(replace(plan.stages[0], revision=plan.stages[0].revision + 1),))
    others = [
        (plan, source(etag="2", colour="red")),
        (plan, source(etag="1", colour="blue")),
        (plan, source(etag="1", colour="red", key="other")),
        (plan, source(etag="1", colour="red", content_type="text/html")),
        (registry.plan(["echo", "echo"]), info),
        (changed, info),
    ]
    assert not any(truth.up_to_date(there, truth.result_of(each, of)) for each, of in others)
    assert not truth.up_to_date(source(), result)


def test_metadata_that_only_looks_like_a_jobs(source: Callable[..., ObjectInfo]) -> None:
    assert truth.source_of(source()) is None
    assert truth.source_of(source(**{truth.SOURCE: "%FF/x"})) is None
