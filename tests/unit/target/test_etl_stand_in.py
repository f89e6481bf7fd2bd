"""Plans of ETLs whose code is elsewhere: by their spec's word, and refused while they can't serve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord
from transom.plugins.manager import Transformers
from transom.target.errors import EtlArgsInvalid, EtlUnavailable
from transom.target.etl.limits import Limits
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Stage, identify
from transom.target.etl.registry import Options, Registry
from transom.target.etl.spec import from_json, record_of
from transom.target.etl.spec_load import load
from transom.target.etl.stand_in import args_text, is_installed, stand_in
from transom.target.etl.workers import WorkerPool
from transom.target.store.base import ObjectInfo

Source = Callable[..., ObjectInfo]


def make(catalog: Catalog, runtime: str = "{command: cat}", more: str = "", name: str = "mine") -> EtlRecord:
    (spec,) = load(f"name: {name}\nruntime: {runtime}\n{more}")
    kept, _ = catalog.propose(record_of(spec))
    return kept


def stage(registry: Registry, args: str | None = None, options: Options = ()) -> Stage:
    (planned,) = registry.plan(["mine"], args, options).stages
    return planned


def test_a_stage_tells_its_runtime_and_spec(registry: Registry, catalog: Catalog) -> None:
    kept = make(catalog, more="obj_timeout: 3\nconcurrency: 2\ncache: false\ndeterministic: false\n")
    planned = stage(registry)
    assert (planned.etl, planned.runtime, planned.revision) == ("mine", "command", kept.revision)
    assert (planned.timeout_s, planned.concurrency, planned.cache, planned.deterministic) == (3.0, 2, False, False)
    assert from_json(planned.spec).runtime.command == ("cat",)
    make(catalog, name="other")
    assert stage(registry, "1").spec is planned.spec  # one string for all plans of a revision, however long the code
    assert not is_installed(planned.runtime)


def test_one_in_the_pool_is_planned_by_its_transformer(registry: Registry, catalog: Catalog) -> None:
    make(catalog, "{process: append}", "args: {text: '?'}\n")
    planned = stage(registry, None, [("mine", "text", "!")])
    assert (planned.runtime, planned.plugin, json.loads(planned.args)) == ("process", "append", {"text": "!"})
    assert from_json(planned.spec).runtime.process == "append"
    assert is_installed(planned.runtime)
    with pytest.raises(EtlArgsInvalid, match="txet"):
        stage(registry, '{"txet": 1}')


def test_a_change_of_the_spec_is_another_result(registry: Registry, catalog: Catalog, source: Source) -> None:
    make(catalog)
    before = identify(registry.plan(["mine"]), source()).base
    make(catalog, "{command: tac}")
    assert identify(registry.plan(["mine"]), source()).base != before
    plan = registry.plan(["mine"], '{"a": 1}')
    assert registry.again(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("own", "given", "options", "wanted", "sent"),
    [
        ("", None, {}, "null", ""),
        ("", "5", {}, "5", "5"),
        ("", "word", {}, '"word"', "word"),
        ("", '"5"', {}, '"5"', "5"),
        ("", "[[1, 2]]", {}, "[1,2]", "[1,2]"),
        ("", '{"b": 1, "a": "ü"}', {}, '{"b":1,"a":"ü"}', '{"b":1,"a":"ü"}'),
        ("", "{}", {}, "{}", "{}"),
        ("", None, {"n": "5", "t": "x y", "j": "[1]"}, '{"n":5,"t":"x y","j":[1]}', '{"n":5,"t":"x y","j":[1]}'),
        ("args: {a: 1, b: 2}", None, {}, '{"a":1,"b":2}', '{"a":1,"b":2}'),
        ("args: {a: 1, b: 2}", '{"b": 3}', {}, '{"a":1,"b":3}', '{"a":1,"b":3}'),
        ("args: {a: 1, b: 2}", '"x"', {}, '"x"', "x"),
        ("args: {a: 1}", '{"c": 3}', {"a": "true"}, '{"a":true,"c":3}', '{"a":true,"c":3}'),
        ("args: 7", None, {}, "7", "7"),
        ("args: 7", '{"a": 1}', {}, '{"a":1}', '{"a":1}'),
    ],
)
def test_arguments_are_any_json_over_the_specs_own(
    registry: Registry, catalog: Catalog, own: str, given: str | None, options: dict[str, str], wanted: str, sent: str
) -> None:
    make(catalog, more=own + "\n")
    planned = stage(registry, given, [("mine", name, text) for name, text in options.items()])
    assert (planned.args, args_text(planned.args)) == (wanted, sent)


@pytest.mark.parametrize(
    ("own", "given", "options", "reason"),
    [
        ("", '{"a": 1}', {"a": "2"}, "'a' is given twice"),
        ("", "5", {"a": "2"}, "options go with arguments by name"),
        ("", '{"a": NaN}', {}, "no JSON that can be sent on"),
        ("", None, {"a": "Infinity"}, "no JSON that can be sent on"),
        ("", '"\\ud800"', {}, "no JSON that can be sent on"),
        ("", '"' + "x" * 20_000 + '"', {}, "up to 16384 characters, these are 20002"),
    ],
)
def test_arguments_that_can_not_be_sent_are_refused(
    registry: Registry, catalog: Catalog, own: str, given: str | None, options: dict[str, str], reason: str
) -> None:
    make(catalog, more=own)
    with pytest.raises(EtlArgsInvalid, match=f"'mine'.*{reason}"):
        stage(registry, given, [("mine", name, text) for name, text in options.items()])


def test_arguments_nested_beyond_reason_are_a_bare_word(registry: Registry, catalog: Catalog) -> None:
    make(catalog)
    text = "[" * 5000
    assert json.loads(stage(registry, text).args) == text


def test_one_that_can_not_serve_says_why(registry: Registry, catalog: Catalog) -> None:
    kept = make(catalog, '{code: "x"}')
    with pytest.raises(EtlUnavailable, match="'mine' is starting") as starting:
        stage(registry)
    assert starting.value.retry_after_s == 1
    catalog.promote("mine", kept.revision)
    assert stage(registry).runtime == "code"
    make(catalog, '{code: "y"}')
    assert stage(registry).revision == kept.revision  # the old one serves while the new one starts
    catalog.put_state("mine", "stopped")
    with pytest.raises(EtlUnavailable, match="'mine' is stopped; an admin can start it: transom etl start mine"):
        stage(registry)
    catalog.put_state("mine", "running")
    catalog.fail("mine", kept.revision, "No module named 'torch'")
    with pytest.raises(EtlUnavailable, match="'mine' failed: No module named 'torch'; an admin"):
        stage(registry)


def test_a_stand_in_declares_what_the_spec_says(
    registry: Registry, catalog: Catalog, transformers: Transformers, source: Source, tmp_path: Path
) -> None:
    make(catalog, more="content_type: image/webp\nextension: webp\nargs: {a: 1}\n")
    make(catalog, name="plain")
    plan = registry.plan(["plain", "mine", "plain"])
    pipelines = Pipelines(transformers, WorkerPool(tmp_path), Limits(), EtlMetrics())
    bound = pipelines.bind(plan, source(content_type="text/css", size=9))
    assert [each.context.content_type for each in bound] == ["text/css", "text/css", "image/webp"]
    assert [each.context.size for each in bound] == [9, None, None]
    assert [each.context.args for each in bound] == [None, {"a": 1}, None]
    assert [each.transformer.extension for each in bound] == [None, "webp", None]
    assert pipelines.describe(plan, source()) == ("image/webp", None)
    with pytest.raises(NotImplementedError, match="runs in a worker"):
        stand_in(plan.stages[0].spec).transform_stream([], bound[0].context)
