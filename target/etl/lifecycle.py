"""When an ETL that is starting runs, and when it has failed: on all targets or on none.

Every keeper, and whoever waits for an ETL to start, calls `settle` again and again; whoever comes first decides for
all, so it doesn't matter who dies. It starts and stops nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord, Missing, Snapshot
from transom.target.etl.spec import INIT_TIMEOUT_S
from transom.target.etl.workers_status import UP, EtlStatus, WorkerStatus, read_target


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of an ETL: nothing yet, or that it runs, or that it has failed, and why."""

    outcome: Literal["waiting", "running", "failed"]
    message: str = ""


_WAITING, _RUNNING = Verdict("waiting"), Verdict("running")


def judge(record: EtlRecord, statuses: Mapping[str, EtlStatus], targets: Sequence[str], now_ns: int) -> Verdict:
    """Decide over one revision from what the keepers of all `targets` say of it.

    One that is starting runs once it is up everywhere, and fails if it fails anywhere or isn't up in time. One that
    runs fails when it has failed everywhere: while it is up somewhere, it serves there.
    """
    workers = _workers(record, statuses, targets)
    failed = {target: worker for target, worker in workers.items() if worker.state == "failed"}
    if record.state == "running":
        return Verdict("failed", _last_words(failed, targets)) if len(failed) == len(targets) else _WAITING
    if failed:
        return Verdict("failed", _last_words(failed, targets))
    if is_up(record, statuses, targets):
        return _RUNNING
    timeout_s = init_timeout_s(record)
    if now_ns - record.launch_ns > timeout_s * 1e9:
        return Verdict("failed", _too_slow(timeout_s, targets, workers))
    return _WAITING


def is_up(record: EtlRecord, statuses: Mapping[str, EtlStatus], targets: Sequence[str]) -> bool:
    """Whether the worker of this very revision and start is up on all targets."""
    workers = _workers(record, statuses, targets)
    return all(target in workers and workers[target].state in UP for target in targets)


def init_timeout_s(record: EtlRecord) -> float:
    """How long a worker of the record may take to be up."""
    return float(record.spec.get("init_timeout", INIT_TIMEOUT_S))


def settle(catalog: Catalog, folder: Path, targets: Sequence[str], only: str = "") -> None:
    """Promote or fail what is due: revisions that are starting, and ETLs whose workers are gone everywhere.

    `only` is the one ETL to look at; else all are.
    """
    for record in _undecided(catalog.snapshot(), only):
        verdict = judge(record, statuses_of(folder, targets, record.name), targets, time.time_ns())
        try:
            if verdict.outcome == "running":
                catalog.promote(record.name, record.revision, record.launch_ns)
            elif verdict.outcome == "failed":
                catalog.fail(record.name, record.revision, verdict.message, record.launch_ns)
        except Missing:  # somebody changed or removed it meanwhile
            continue


def statuses_of(folder: Path, targets: Sequence[str], etl: str) -> dict[str, EtlStatus]:
    """What the keepers of `targets` say of an ETL, as far as they do."""
    said = {target: read_target(folder, target, etl) for target in targets}
    return {target: status for target, status in said.items() if status is not None}


def _undecided(snapshot: Snapshot, only: str) -> Iterator[EtlRecord]:
    for table in (snapshot.etls, snapshot.pending):
        for record in table.values() if not only else filter(None, [table.get(only)]):
            if record.wants_worker:
                yield record


def _workers(record: EtlRecord, statuses: Mapping[str, EtlStatus], targets: Sequence[str]) -> dict[str, WorkerStatus]:
    """The record's own worker on each target that has one."""
    found = {target: statuses[target].of(record) for target in targets if target in statuses}
    return {target: worker for target, worker in found.items() if worker is not None}


def _last_words(failed: Mapping[str, WorkerStatus], targets: Sequence[str]) -> str:
    target, worker = next(iter(failed.items()))
    words = worker.message or "its worker said nothing"
    return f"on {target}: {words}" if len(targets) > 1 else words


def _too_slow(timeout_s: float, targets: Sequence[str], workers: Mapping[str, WorkerStatus]) -> str:
    late = [target for target in targets if target not in workers or workers[target].state not in UP]
    where = f" on {', '.join(late)}" if len(targets) > 1 else ""
    words = next((worker.message for worker in workers.values() if worker.message), "")
    return f"not up{where} within init_timeout, {timeout_s:g} s{f': {words}' if words else ''}"
