"""How an ETL's revisions and starts follow each other, inside a transaction of the catalog."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

from transom.cluster.records import EtlRecord, EtlState
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


def settle(db: sqlite3.Connection, kept: EtlRecord, old: EtlRecord | None) -> None:
    """Write what the ETL is from now on, with nothing pending."""
    write_etl(db, kept)
    db.execute("DELETE FROM pending WHERE name = ?", (kept.name,))
    # Failures of what ran before say nothing of what runs now.
    if old is None or kept.revision != old.revision:
        db.execute("DELETE FROM circuits WHERE etl = ?", (kept.name,))


def launched(record: EtlRecord) -> EtlRecord:
    """The ETL as it is once told to start."""
    if not record.served:
        return replace(record, state="running", message="")
    launch_ns = max(time.time_ns(), record.launch_ns + 1)  # never the same twice, whatever the clock does
    return replace(record, state="initializing", message="", launch_ns=launch_ns)
