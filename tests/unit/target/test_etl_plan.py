"""Plans and identities as values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from transom.target.etl.plan import Plan, Stage, identify
from transom.target.store.base import ObjectInfo

STAGE = Stage("a", "upper", "1", 0, "{}", "[{}, {}]", 500)
Source = Callable[..., ObjectInfo]


def test_a_plan_is_what_its_stages_are_together() -> None:
    plan = Plan((STAGE, replace(STAGE, etl="b", deterministic=False, changed_s=900)))
    assert plan.name == "a>>b"
    assert not plan.deterministic and plan.cache
    assert plan.changed_s == 900
    assert not Plan((STAGE, replace(STAGE, cache=False))).cache
    assert Plan((STAGE,)).deterministic


def test_identity_is_32_hex_digits_and_the_etag_ends_in_1(source: Source) -> None:
    identity = identify(Plan((STAGE,)), source())
    assert re.fullmatch("[0-9a-f]{32}", identity.base)
    assert identity.id(5) == identity.id() == identity.base
    assert identity.etag() == identity.base + "-1"


def test_generations_of_a_non_deterministic_result_have_ids_of_their_own(source: Source) -> None:
    identity = identify(Plan((replace(STAGE, deterministic=False),)), source())
    ids = [identity.id(generation) for generation in range(100)]
    assert len({*ids, identity.base}) == 101
    assert all(re.fullmatch("[0-9a-f]{32}-1", identity.etag(generation)) for generation in range(3))


def test_everything_that_can_change_the_bytes_changes_the_identity(source: Source) -> None:
    known = [
        identify(Plan(stages), info).base
        for stages, info in [
            ((STAGE,), source()),
            ((STAGE,), source(bucket="c")),
            ((STAGE,), source(key="l")),
            ((STAGE,), source(etag="f")),
            ((STAGE,), source(content_type="text/css")),
            ((STAGE,), source(camera="best")),
            ((STAGE, STAGE), source()),
            ((replace(STAGE, etl="b"),), source()),
            ((replace(STAGE, plugin="lower"),), source()),
            ((replace(STAGE, version="2"),), source()),
            ((replace(STAGE, revision=1),), source()),
            ((replace(STAGE, args='{"a":1}'),), source()),
        ]
    ]
    assert len(set(known)) == len(known)


def test_how_it_is_run_and_when_it_came_change_nothing(source: Source) -> None:
    base = identify(Plan((STAGE,)), source()).base
    for stage in (
        replace(STAGE, timeout_s=1.0),
        replace(STAGE, concurrency=2),
        replace(STAGE, cache=False),
        replace(STAGE, changed_s=1),
        replace(STAGE, given="[null, {}]"),
    ):
        assert identify(Plan((stage,)), source()).base == base
    assert identify(Plan((STAGE,)), source(modified_s=7)).base == base


def test_last_modified_is_the_later_of_source_and_revision(source: Source) -> None:
    assert identify(Plan((STAGE,)), source(modified_s=1000)).modified_s == 1000
    assert identify(Plan((STAGE, replace(STAGE, changed_s=2000))), source(modified_s=1000)).modified_s == 2000
