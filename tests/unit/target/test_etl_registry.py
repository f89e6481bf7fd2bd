"""From what somebody asks to a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord
from transom.target.errors import EtlArgsInvalid, EtlUnavailable, NoSuchEtl
from transom.target.etl.registry import Registry


def args_of(registry: Registry, *asked: object) -> list[object]:
    plan = registry.plan(*asked)  # type: ignore[arg-type]
    return [json.loads(stage.args) for stage in plan.stages]


def test_every_transformer_with_defaults_is_an_etl_of_its_own_name(registry: Registry) -> None:
    names = [record.name for record in registry.records()]
    assert {"upper", "append", "md5", "tell"} <= set(names)
    assert "needs" not in names
    assert names == sorted(names)
    record = registry.record("upper")
    assert (record.kind, record.state, record.revision) == ("implicit", "running", 0)


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (None, "!"),
        ("", "!"),
        ("null", "!"),
        ('"?"', "?"),
        ("bare", "bare"),
        ("[null]", "!"),
        ('["?"]', "?"),
        ('[{"text": "?"}]', "?"),
        ('{"text": "?"}', "?"),
    ],
)
def test_arguments_of_one_stage(registry: Registry, args: str | None, wanted: str) -> None:
    assert args_of(registry, ["append"], args) == [{"text": wanted}]


def test_arguments_of_several_stages(registry: Registry) -> None:
    pipeline = ["append", "upper", "append"]
    assert args_of(registry, pipeline) == [{"text": "!"}, {}, {"text": "!"}]
    assert args_of(registry, pipeline, '["1", null, {"text": "2"}]') == [{"text": "1"}, {}, {"text": "2"}]
    options = [("append", "text", "3")]
    assert args_of(registry, pipeline, None, options) == [{"text": "3"}, {}, {"text": "3"}]


@pytest.mark.parametrize(
    ("pipeline", "args", "options", "reason"),
    [
        ([], None, [], "1 to 16 stages"),
        (["upper"] * 17, None, [], "1 to 16 stages"),
        (["append"], '{"txet": 1}', [], "txet"),
        (["append"], "7", [], "text"),
        (["upper"], '"x"', [], "upper"),
        (["append", "append"], '"x"', [], "list of 2"),
        (["append", "append"], '["x"]', [], "list of 2"),
        (["append"], '["x", "y"]', [], "text"),
        (["upper"], None, [("append", "text", "x")], "append"),
        (["grow"], None, [("grow", "size", "x")], "size"),
    ],
)
def test_what_can_not_be_planned_is_refused_with_the_reason(
    registry: Registry, pipeline: Sequence[str], args: str | None, options: list[tuple[str, str, str]], reason: str
) -> None:
    with pytest.raises(EtlArgsInvalid, match=reason):
        registry.plan(pipeline, args, options)


def test_unknown_etls_are_refused_with_what_to_do(registry: Registry) -> None:
    with pytest.raises(NoSuchEtl, match=r"'nope'.*transom etl show"):
        registry.plan(["upper", "nope"])
    with pytest.raises(NoSuchEtl, match=r"without defaults.*transom etl init --plugin needs"):
        registry.plan(["needs"], '{"text": "x"}')


def test_an_etl_of_the_catalog_lies_under_what_is_asked(registry: Registry, catalog: Catalog) -> None:
    catalog.put_etl(EtlRecord("mine", "needs", args={"text": "a", "times": 2}))
    assert args_of(registry, ["mine"]) == [{"text": "a", "times": 2}]
    assert args_of(registry, ["mine"], '{"times": 3}') == [{"text": "a", "times": 3}]
    assert args_of(registry, ["mine"], '"b"') == [{"text": "b", "times": 2}]
    assert args_of(registry, ["mine"], None, [("mine", "times", "4")]) == [{"text": "a", "times": 4}]
    (stage,) = registry.plan(["mine"]).stages
    assert (stage.etl, stage.plugin, stage.revision > 0, stage.changed_s > 0) == ("mine", "needs", True, True)


def test_a_change_of_the_catalog_is_seen_at_once(registry: Registry, catalog: Catalog) -> None:
    catalog.put_etl(EtlRecord("mine", "append", args={"text": "1"}))
    first = registry.plan(["mine"])
    assert registry.plan(["mine"]) is first  # planned once
    catalog.put_etl(EtlRecord("mine", "append", args={"text": "2"}))
    second = registry.plan(["mine"])
    assert json.loads(second.stages[0].args) == {"text": "2"}
    assert second.stages[0].revision > first.stages[0].revision
    catalog.put_state("mine", "stopped")
    with pytest.raises(EtlUnavailable, match="'mine' is stopped"):
        registry.plan(["mine"])
    catalog.put_state("mine", "running")
    assert registry.plan(["mine"]).stages == second.stages
    catalog.remove_etl("mine")
    with pytest.raises(NoSuchEtl):
        registry.plan(["mine"])


def test_record_overrides_what_the_transformer_declares(registry: Registry, catalog: Catalog) -> None:
    assert not registry.plan(["random"]).deterministic
    catalog.put_etl(EtlRecord("seeded", "random", deterministic=True, cache=False, timeout_s=3.0, concurrency=2))
    (stage,) = registry.plan(["seeded"]).stages
    assert (stage.deterministic, stage.cache, stage.timeout_s, stage.concurrency) == (True, False, 3.0, 2)


def test_check_judges_what_an_etl_could_be_made_of(registry: Registry) -> None:
    registry.check("needs", {"text": "x"})
    for plugin, args, error in (
        ("needs", {}, EtlArgsInvalid),
        ("append", {"txet": 1}, EtlArgsInvalid),
        ("nope", {}, NoSuchEtl),
    ):
        with pytest.raises(error):
            registry.check(plugin, args)


def test_a_plan_that_travels_is_the_same_plan_or_refused(registry: Registry, catalog: Catalog) -> None:
    catalog.put_etl(EtlRecord("mine", "needs", args={"text": "hush"}))
    plan = registry.plan(["mine", "append"], '[null, "ü"]') + registry.plan(["grow"], None, [("grow", "size", "7")])
    assert registry.again(plan.to_json()) == plan
    assert "hush" not in plan.to_json()
    catalog.put_etl(EtlRecord("mine", "needs", args={"text": "other"}))
    with pytest.raises(EtlUnavailable, match="changed") as refused:
        registry.again(plan.to_json())
    assert refused.value.retry_after_s
