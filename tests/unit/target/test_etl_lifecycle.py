"""All targets or none: what becomes of an ETL, from what its keepers say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord
from transom.target.etl.lifecycle import Verdict, is_up, judge, settle
from transom.target.etl.workers_status import EtlStatus, WorkerState, WorkerStatus, write_status

SECOND_NS = 10**9
LAUNCH = 1000 * SECOND_NS
STARTING = EtlRecord(
    "shout", runtime="code", state="initializing", revision=2, launch_ns=LAUNCH, spec={"init_timeout": 10.0}
)
RUNNING = replace(STARTING, state="running")
WAITING = Verdict("waiting")


def say(state: WorkerState, message: str = "", *, revision: int = 2, launch_ns: int = LAUNCH) -> EtlStatus:
    older = WorkerStatus(revision - 1, "running", launch_ns=1)
    return EtlStatus("shout", (older, WorkerStatus(revision, state, launch_ns=launch_ns, message=message)))


@pytest.mark.parametrize(
    ("record", "said", "verdict"),
    [
        (STARTING, {}, WAITING),
        (STARTING, {"a": say("running")}, WAITING),
        (STARTING, {"a": say("running"), "b": say("initializing")}, WAITING),
        (STARTING, {"a": say("running"), "b": say("running", revision=1)}, WAITING),
        (STARTING, {"a": say("running"), "b": say("running", launch_ns=7)}, WAITING),
        (STARTING, {"a": say("running"), "b": say("stopped")}, WAITING),
        (STARTING, {"a": say("running"), "b": say("running")}, Verdict("running")),
        (STARTING, {"a": say("running"), "b": say("idle")}, Verdict("running")),
        (STARTING, {"a": say("running"), "b": say("failed", "no module x")}, Verdict("failed", "on b: no module x")),
        (STARTING, {"b": say("failed")}, Verdict("failed", "on b: its worker said nothing")),
        (STARTING, {"a": say("failed", launch_ns=7), "b": say("failed", revision=1)}, WAITING),
        (STARTING, {"other": say("failed", "x")}, WAITING),
        (RUNNING, {}, WAITING),
        (RUNNING, {"a": say("running"), "b": say("failed", "x")}, WAITING),
        (RUNNING, {"a": say("failed", "no memory"), "b": say("failed", "x")}, Verdict("failed", "on a: no memory")),
    ],
)  # fmt: skip
def test_the_verdict_over_two_targets(record: EtlRecord, said: Mapping[str, EtlStatus], verdict: Verdict) -> None:
    assert judge(record, said, ("a", "b"), LAUNCH + SECOND_NS) == verdict


def test_what_is_not_up_in_time_has_failed_and_says_where() -> None:
    late = LAUNCH + 11 * SECOND_NS
    assert judge(STARTING, {}, ("a",), LAUNCH + 9 * SECOND_NS) == WAITING
    assert judge(STARTING, {}, ("a",), late).message == "not up within init_timeout, 10 s"
    said = {"a": say("running"), "b": say("initializing", "loading the model")}
    assert judge(STARTING, said, ("a", "b"), late).message == "not up on b within init_timeout, 10 s: loading the model"
    assert judge(replace(STARTING, spec={}), {}, ("a",), LAUNCH + 299 * SECOND_NS) == WAITING
    assert judge(replace(STARTING, spec={}), {}, ("a",), LAUNCH + 301 * SECOND_NS).outcome == "failed"
    assert judge(RUNNING, {}, ("a",), late) == WAITING  # one that runs is not on trial
    assert judge(STARTING, {"a": say("running")}, ("a",), late).outcome == "running"  # late, but there


def test_one_target_needs_no_name() -> None:
    assert judge(STARTING, {"a": say("failed", "words")}, ("a",), LAUNCH) == Verdict("failed", "words")


def test_up_is_up_everywhere() -> None:
    assert is_up(RUNNING, {"a": say("running"), "b": say("idle")}, ("a", "b"))
    assert not is_up(RUNNING, {"a": say("running")}, ("a", "b"))
    assert not is_up(RUNNING, {"a": say("running", launch_ns=7)}, ("a",))


# --- with a catalog and files -----------------------------------------------------------------


def keep(catalog: Catalog, name: str, code: str = "1", init_timeout: float = 60.0) -> EtlRecord:
    spec = {"runtime": {"code": code}, "init_timeout": init_timeout}
    return catalog.propose(EtlRecord(name, runtime="code", spec=spec))[0]


def tell(folder: Path, record: EtlRecord, state: WorkerState, message: str = "", target: str = "local") -> None:
    worker = WorkerStatus(record.revision, state, launch_ns=record.launch_ns, message=message)
    write_status(folder, target, EtlStatus(record.name, (worker,)))


def test_what_starts_is_promoted_or_failed_each_by_itself(catalog: Catalog, tmp_path: Path) -> None:
    good, bad, slow, none = (keep(catalog, name) for name in ("good", "bad", "slow", "none"))
    late = keep(catalog, "late", init_timeout=1e-9)
    tell(tmp_path, good, "running")
    tell(tmp_path, bad, "failed", "SyntaxError")
    tell(tmp_path, slow, "initializing")
    settle(catalog, tmp_path, ("local",))
    etls = catalog.snapshot().etls
    assert {name: record.state for name, record in etls.items()} == {
        "good": "running",
        "bad": "failed",
        "slow": "initializing",
        "none": "initializing",
        "late": "failed",
    }
    assert etls["bad"].message == "SyntaxError"
    assert (etls[none.name], etls[late.name].message) == (none, "not up within init_timeout, 1e-09 s")


def test_a_change_switches_on_all_targets_or_on_none(catalog: Catalog, tmp_path: Path) -> None:
    first = keep(catalog, "etl")
    for target in ("a", "b"):
        tell(tmp_path, first, "running", target=target)
    settle(catalog, tmp_path, ("a", "b"))
    second = keep(catalog, "etl", code="2")
    tell(tmp_path, second, "running", target="a")
    settle(catalog, tmp_path, ("a", "b"))
    assert catalog.etl("etl").revision == 1
    tell(tmp_path, second, "failed", "no such file", target="b")
    settle(catalog, tmp_path, ("a", "b"))
    assert catalog.etl("etl").failure_of(2) == "on b: no such file"
    assert (catalog.etl("etl").revision, catalog.etl("etl").state) == (1, "running")
    third = keep(catalog, "etl", code="3")
    for target in ("a", "b"):
        tell(tmp_path, third, "running", target=target)
    settle(catalog, tmp_path, ("a", "b"))
    assert (catalog.etl("etl").revision, catalog.etl("etl").message) == (3, "")


def test_only_the_one_asked_for_is_looked_at(catalog: Catalog, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tell(tmp_path, keep(catalog, name), "running")
    settle(catalog, tmp_path, ("local",), "two")
    settle(catalog, tmp_path, ("local",), "three")
    assert {name: record.state for name, record in catalog.snapshot().etls.items()} == {
        "one": "initializing",
        "two": "running",
    }


def test_what_was_removed_meanwhile_is_nobodys_trouble(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(tmp_path, keep(catalog, "etl"), "running")
    before = catalog.snapshot()
    catalog.remove_etl("etl")
    monkeypatch.setattr(catalog, "snapshot", lambda: before)
    settle(catalog, tmp_path, ("local",))
