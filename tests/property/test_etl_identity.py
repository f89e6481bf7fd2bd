"""The algebra of identities: one canonical form for each question, and never one for two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.cluster.catalog import Catalog
from transom.plugins.manager import load
from transom.target.etl.plan import Plan, Stage, identify
from transom.target.etl.registry import Registry
from transom.target.store.base import Attributes, ObjectInfo

# few letters, and those that could be mistaken for separators: what would collide does
texts = st.text(alphabet='a"],[>0', max_size=4)
stages = st.builds(
    Stage,
    etl=texts,
    plugin=texts,
    version=texts,
    revision=st.integers(0, 3),
    args=texts,
    given=st.just("[null, {}]"),
    changed_s=st.just(0),
)
plans = st.lists(stages, min_size=1, max_size=3).map(lambda made: Plan(tuple(made)))
sources = st.builds(
    ObjectInfo,
    bucket=texts,
    key=texts,
    size=st.just(0),
    etag=texts,
    modified_ns=st.just(0),
    attributes=st.builds(Attributes, metadata=st.dictionaries(texts, texts, max_size=2)),
)


def told(plan: Plan, source: ObjectInfo, version_id: str) -> object:
    parts = [(s.etl, s.plugin, s.version, s.revision, s.args) for s in plan.stages]
    return source.bucket, source.key, source.etag, dict(source.attributes.metadata), version_id, parts


@given(st.tuples(plans, sources, texts), st.tuples(plans, sources, texts))
def test_identities_are_equal_exactly_when_what_they_name_is(
    one: tuple[Plan, ObjectInfo, str], other: tuple[Plan, ObjectInfo, str]
) -> None:
    assert (identify(*one).base == identify(*other).base) == (told(*one) == told(*other))


@given(plans, sources, st.integers(0, 10**9), st.integers(0, 10**9))
def test_generations_have_one_id_each(plan: Plan, source: ObjectInfo, one: int, other: int) -> None:
    identity = identify(plan, source)
    assert identity.id(one) == identity.id(other)  # it is deterministic
    loose = type(identity)(identity.base, identity.modified_s, deterministic=False)
    assert (loose.id(one) == loose.id(other)) == (one == other)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder: Path = tmp_path_factory.mktemp("catalog")
    catalog = Catalog.open(folder / "catalog.sqlite")
    yield Registry(load(), catalog)
    catalog.close()


appended = st.text(max_size=5).filter(lambda text: "\x00" not in text)
asked = st.lists(st.one_of(st.just(("upper", None)), st.tuples(st.just("append"), appended)), min_size=1, max_size=6)


@given(asked, asked)
def test_a_plan_survives_its_journey_and_plans_add_up(
    registry: Registry, first: list[tuple[str, str | None]], then: list[tuple[str, str | None]]
) -> None:
    def plan(stages: list[tuple[str, str | None]]) -> Plan:
        return registry.plan([etl for etl, _ in stages], json.dumps([value for _, value in stages]))

    both = plan(first) + plan(then)
    assert registry.again(both.to_json()) == both
    assert both.stages == plan(first + then).stages
    assert both.name == plan(first + then).name


@given(appended)
def test_every_spelling_of_an_argument_is_one_canonical_form(registry: Registry, text: str) -> None:
    spellings = [
        registry.plan(["append"], json.dumps(text)),
        registry.plan(["append"], json.dumps([text])),
        registry.plan(["append"], json.dumps({"text": text}, ensure_ascii=False)),
        registry.plan(["append"], None, [("append", "text", text)]),
    ]
    assert len({plan.stages[0].args for plan in spellings}) == 1
