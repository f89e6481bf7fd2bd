"""ETLs and views as rows of the catalog's tables, and back. It decides nothing."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Literal

from transom.cluster.records import BadRecord, EtlRecord, ViewRecord

EtlTable = Literal["etls", "pending"]

_ETL_COLUMNS = (
    "name, plugin, args, deterministic, cache, concurrency, timeout_s, state, owner, kind, revision, changed_ns,"
    " runtime, spec, message, launch_ns"
)
_VIEW_COLUMNS = "name, bucket, pipeline, args, extensions, sizes, owner, created_ns"


def select_etl(db: sqlite3.Connection, name: str, table: EtlTable = "etls") -> EtlRecord | None:
    """One ETL, or its pending revision."""
    row = db.execute(f"SELECT {_ETL_COLUMNS} FROM {table} WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return _etl(row) if row else None


def select_etls(db: sqlite3.Connection, table: EtlTable = "etls") -> dict[str, EtlRecord]:
    """All of them, by name."""
    rows = db.execute(f"SELECT {_ETL_COLUMNS} FROM {table} ORDER BY name").fetchall()  # noqa: S608
    return {row[0]: _etl(row) for row in rows}


def write_etl(db: sqlite3.Connection, record: EtlRecord, table: EtlTable = "etls") -> None:
    """Put a row in the place of the one with its name, or add it. Raises BadRecord."""
    values = (
        *(record.name, record.plugin, to_json(record.args), record.deterministic, record.cache),
        *(record.concurrency, record.timeout_s, record.state, record.owner, record.kind),
        *(record.revision, record.changed_ns, record.runtime, to_json(record.spec), record.message),
        record.launch_ns,
    )
    places = ", ".join("?" * len(values))
    db.execute(f"INSERT OR REPLACE INTO {table} ({_ETL_COLUMNS}) VALUES ({places})", values)  # noqa: S608


def next_revision(db: sqlite3.Connection, name: str) -> int:
    """Count on from the name's last revision, which outlives the ETL."""
    (revision,) = db.execute(
        "INSERT INTO revisions VALUES (?, 1)"
        " ON CONFLICT (name) DO UPDATE SET revision = revision + 1 RETURNING revision",
        (name,),
    ).fetchone()
    return int(revision)


def same_configuration(old: EtlRecord, new: EtlRecord) -> bool:
    """Whether nothing that can change a result, or how it is run, differs. Raises BadRecord."""
    # As text too: in Python True == 1 == 1.0 and order is nothing, but not to a transformer.
    return old.configuration() == new.configuration() and all(
        to_json(ours) == to_json(theirs) for ours, theirs in ((old.args, new.args), (old.spec, new.spec))
    )


def select_views(db: sqlite3.Connection) -> list[ViewRecord]:
    """All views, by name."""
    rows = db.execute(f"SELECT {_VIEW_COLUMNS} FROM views ORDER BY name").fetchall()  # noqa: S608
    return [
        ViewRecord(
            name=name,
            bucket=bucket,
            pipeline=tuple(json.loads(pipeline)),
            args=tuple(json.loads(args)),
            extensions=tuple((old, new) for old, new in json.loads(extensions)),
            sizes="materialise" if sizes == "materialise" else "source",
            owner=owner,
            created_ns=created_ns,
        )
        for name, bucket, pipeline, args, extensions, sizes, owner, created_ns in rows
    ]


def write_view(db: sqlite3.Connection, record: ViewRecord) -> None:
    """Put a row in the place of the one with its name, or add it. Raises BadRecord."""
    values = (
        *(record.name, record.bucket, to_json(record.pipeline), to_json(record.args)),
        *(to_json(record.extensions), record.sizes, record.owner, record.created_ns),
    )
    db.execute(f"INSERT OR REPLACE INTO views ({_VIEW_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608


def to_json(value: object) -> str:
    """The text of a JSON value, objects in their own order: it counts where arguments list steps. Raises BadRecord."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadRecord(f"not a JSON value: {error}") from error


def _etl(row: tuple[Any, ...]) -> EtlRecord:
    name, plugin, args, deterministic, cache, concurrency, timeout_s, state, owner, kind, revision, changed_ns = row[
        :12
    ]
    runtime, spec, message, launch_ns = row[12:]
    return EtlRecord(
        name=name,
        plugin=plugin,
        args=json.loads(args),
        deterministic=None if deterministic is None else bool(deterministic),
        cache=bool(cache),
        concurrency=concurrency,
        timeout_s=timeout_s,
        state=state,
        owner=owner,
        kind=kind,
        revision=revision,
        changed_ns=changed_ns,
        runtime=runtime,
        spec=json.loads(spec),
        message=message,
        launch_ns=launch_ns,
    )
