"""How `transom etl` shows ETLs: a table of several, a record of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from transom.cli.output import show_json, show_record, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transom.client.records import Etl, Worker


def show_all(etls: Sequence[Etl], *, as_json: bool) -> None:
    """Show what a command did to one ETL or several."""
    if len(etls) == 1:
        show_one(etls[0], as_json=as_json)
    elif as_json:
        show_json(etls)
    else:
        show_many(etls)


def show_many(etls: Sequence[Etl]) -> None:
    """Show a line an ETL."""
    rows = [
        (
            *(etl.name, _runs(etl), etl.kind, etl.state, etl.revision, _summary(etl.workers)),
            *(etl.numbers.get("objects", 0), _errors(etl), etl.args, etl.message),
        )
        for etl in etls
    ]
    columns = ["NAME", "RUNTIME", "KIND", "STATE", "REVISION", "WORKERS", "OBJECTS", "ERRORS", "ARGS", "MESSAGE"]
    show_table(columns, rows, empty="no ETLs")


def show_one(etl: Etl, *, as_json: bool) -> None:
    """Show all there is to say of one ETL."""
    if as_json:
        show_json(etl)
        return
    show_record(
        {
            "name": etl.name,
            "runtime": _runs(etl),
            "kind": etl.kind,
            "state": etl.state,
            "message": etl.message,
            "revision": etl.revision,
            "pending": etl.pending or None,
            "args": etl.args,
            "cache": etl.cache,
            "deterministic": _deterministic(etl),
            "concurrency": "default" if etl.concurrency is None else etl.concurrency,
            "timeout": "default" if etl.timeout_s is None else f"{etl.timeout_s:g} s",
            "owner": etl.owner,
            "spec": etl.spec,
            **({"confined by": etl.confinement} if etl.confinement else {}),
            **_service(etl),
            "objects": etl.numbers.get("objects", 0),
            "bytes in": etl.numbers.get("bytes_in", 0),
            "bytes out": etl.numbers.get("bytes_out", 0),
            "errors": etl.numbers.get("errors") or 0,
            "p50, p99": _times(etl),
            "queue": etl.numbers.get("queue", 0),
        }
    )
    if etl.workers:
        typer.echo()
        rows = [
            (w.target, w.revision, w.state, w.restarts, w.container[:12] or w.pid, w.confinement, w.message)
            for w in etl.workers
        ]
        columns = ["TARGET", "REVISION", "STATE", "RESTARTS", "PROCESS", "CONFINED BY", "MESSAGE"]
        show_table(columns, rows, empty="")


def _deterministic(etl: Etl) -> object:
    if etl.deterministic is not None:
        return etl.deterministic
    return "as declared" if etl.plugin else True


def _errors(etl: Etl) -> int:
    return sum((etl.numbers.get("errors") or {}).values())


def _times(etl: Etl) -> str | None:
    p50_s, p99_s = etl.numbers.get("p50_s"), etl.numbers.get("p99_s")
    return None if p50_s is None or p99_s is None else f"{p50_s * 1000:.3g} ms, {p99_s * 1000:.3g} ms"


def _service(etl: Etl) -> dict[str, object]:
    """What whoever runs an ETL's service is to be told."""
    if etl.service is None:
        return {}
    fetches = {"AIS_TARGET_URL": etl.service.target_url} if etl.service.target_url else {}
    return {"secret": etl.service.secret, **fetches}


def _runs(etl: Etl) -> str:
    return f"{etl.runtime} {etl.plugin}".rstrip()


def _summary(workers: Sequence[Worker]) -> str:
    """How many workers are in which state: "2 running, 1 failed"."""
    states = [worker.state for worker in workers]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
