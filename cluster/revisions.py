"""How an ETL's revisions and starts follow each other, inside a transaction of the catalog."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from typing import TypeGuard

from transom.cluster.records import MAX_MESSAGE_CHARS, EtlRecord, EtlState, Missing, failed_revision
from transom.cluster.rows import next_revision, same_configuration, select_etl, write_etl


def next_of(db: sqlite3.Connection, record: EtlRecord, *, state: EtlState) -> EtlRecord:
    """The record as the next revision of its name; not written yet."""
    now, revision = time.time_ns(), next_revision(db, record.name)
    kept = replace(record, kind="explicit", state=state, revision=revision, changed_ns=now, message="")
    return replace(kept, launch_ns=now) if kept.served else kept


def change(db: sqlite3.Connection, old: EtlRecord, record: EtlRecord) -> EtlRecord:
    """Have an ETL become what `record` says, or start becoming it; see Catalog.propose."""
    if same_configuration(old, record):
        kept = replace(launched(old) if old.state == "failed" else old, owner=record.owner)
    elif old.state == "running":
        pending = select_etl(db, record.name, "pending")
        if pending is None or not same_configuration(pending, record):
            pending = next_of(db, record, state="initializing")
        write_etl(db, pending, "pending")
        return pending
    else:
        kept = next_of(db, record, state="stopped" if old.state == "stopped" else "initializing")
    settle(db, kept, old)
    return kept


def is_meant(record: EtlRecord | None, revision: int, launch_ns: int | None) -> TypeGuard[EtlRecord]:
    """Whether a record is of this revision, and of this start of it where one is named."""
    return record is not None and record.revision == revision and launch_ns in (None, record.launch_ns)


def give_up(db: sqlite3.Connection, name: str, revision: int, message: str, launch_ns: int | None = None) -> EtlRecord:
    """Have a revision fail; see Catalog.fail."""
    message = message[:MAX_MESSAGE_CHARS]
    old, pending = select_etl(db, name), select_etl(db, name, "pending")
    if is_meant(pending, revision, launch_ns) and old is not None:
        kept = replace(old, message=failed_revision(revision, message))
        db.execute("DELETE FROM pending WHERE name = ?", (name,))
    elif not is_meant(old, revision, launch_ns):
        raise Missing(f"revision {revision} of ETL {name!r} was replaced or removed")
    elif old.state == "stopped":
        return old
    else:
        kept = replace(old, state="failed", message=message)
    write_etl(db, kept)
    return kept


def refused(db: sqlite3.Connection, old: EtlRecord, record: EtlRecord, problem: str) -> EtlRecord:
    """Say of a change that can't start why; what runs goes on, and another that is starting too."""
    kept = replace(next_of(db, record, state="failed"), message=problem)
    write_etl(db, replace(old, message=failed_revision(kept.revision, problem[:MAX_MESSAGE_CHARS])))
    return kept


def settle(db: sqlite3.Connection, kept: EtlRecord, old: EtlRecord | None) -> None:
    """Write what the ETL is from now on, with nothing pending."""
    write_etl(db, kept)
    db.execute("DELETE FROM pending WHERE name = ?", (kept.name,))
    # Failures of what ran before say nothing of what runs now.
    if old is None or kept.revision != old.revision or old.state == "failed":
        db.execute("DELETE FROM circuits WHERE etl = ?", (kept.name,))


def launched(record: EtlRecord) -> EtlRecord:
    """The ETL as it is once told to start."""
    if not record.served and not record.keeps_programs:
        return replace(record, state="running", message="")
    launch_ns = max(time.time_ns(), record.launch_ns + 1)  # never the same twice, whatever the clock does
    state: EtlState = "initializing" if record.served else "running"
    return replace(record, state=state, message="", launch_ns=launch_ns)
