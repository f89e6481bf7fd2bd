"""The catalog: ETLs, views and circuits in one SQLite file that every process on the machine shares.

Reading it on the request path is `snapshot`: a look at a shared stamp while nothing changes. It checks no permissions
and doesn't know which transformers or buckets exist, nor what runs.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from transom.cluster.records import (
    BadRecord,
    Circuit,
    EtlRecord,
    Exists,
    InUse,
    Missing,
    Snapshot,
    ViewRecord,
    check_etl,
    check_etl_name,
    check_view,
)
from transom.cluster.revisions import change, give_up, is_meant, launched, next_of, refused, settle
from transom.cluster.rows import same_configuration, select_etl, select_etls, select_views, write_etl, write_view
from transom.cluster.schema import migrate
from transom.cluster.sqlite import alone, connect, sqlite_errors, transaction, unusable
from transom.cluster.stamp import Stamp


class Catalog:
    """One process's handle on the shared catalog; every method may be called from any thread.

    Writes wait for the disk: on an event loop, call them in a thread. `snapshot` doesn't wait for them.
    """

    def __init__(self, reader: sqlite3.Connection, writer: sqlite3.Connection, stamp: Stamp) -> None:
        # Two connections: a write by this process changes the reader's data_version like anyone else's.
        self._reader, self._writer = reader, writer
        self._probe, self._stamp = reader.cursor(), stamp
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._seen: int | None = None
        self._snapshot = Snapshot(0, {}, {}, {})

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """Open the catalog, making it if there is none. Raises CatalogError."""
        with alone(path), sqlite_errors():
            writer = connect(path)
            try:
                migrate(writer)
                return cls(connect(path), writer, Stamp(path.with_name(path.name + ".stamp")))
            except BaseException:
                writer.close()
                raise

    def close(self) -> None:
        """Close the file; the catalog can't be used afterwards."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()
            self._stamp.close()

    def snapshot(self) -> Snapshot:
        """The catalog as it is now; the same object as before if nothing changed."""
        if self._stamp.fresh():
            return self._snapshot
        with self._reading:
            try:
                at = self._stamp.look()
                ((seen,),) = self._probe.execute("PRAGMA data_version")
                if seen != self._seen:
                    self._snapshot = self._load()
                    # Taken before the load: a change in between shows as another data_version next time.
                    self._seen = seen
                self._stamp.note(at)
            except sqlite3.Error as error:
                raise unusable(error) from error
            return self._snapshot

    # --- ETLs ---------------------------------------------------------------------------------

    def etl(self, name: str) -> EtlRecord:
        """Raises Missing; an implicit ETL that nobody stopped has no record."""
        try:
            return self.snapshot().etls[name]
        except KeyError:
            raise Missing(f"no ETL named {name!r}") from None

    def put_etl(self, record: EtlRecord, *, must_be_new: bool = False) -> tuple[EtlRecord, bool]:
        """Keep an explicit ETL; return it as kept, and whether it is new.

        Changing one keeps its state, and its revision too if the configuration is the same; one that failed is told to
        start, and a new one takes the record's state. Raises BadRecord, and Exists if it `must_be_new`.
        """
        check_etl(record)
        with self._transaction() as db:
            old = select_etl(db, record.name)
            if old is None or old.kind == "implicit":
                kept = next_of(db, record, state=record.state)
            elif must_be_new:
                raise Exists(f"an ETL named {record.name!r} exists")
            elif same_configuration(old, record):
                kept = replace(launched(old) if old.state == "failed" else old, owner=record.owner)
            else:
                kept = next_of(db, record, state="stopped" if old.state == "stopped" else record.state)
            settle(db, kept, old)
        return kept, old is None or old.kind == "implicit"

    def propose(self, record: EtlRecord, *, must_be_new: bool = False, problem: str = "") -> tuple[EtlRecord, bool]:
        """Keep an ETL that is to be started; return it as kept, and whether it is new.

        A new one, and one that failed or is itself just starting, is "initializing" from now on. One that runs goes on
        serving beside the new revision, which is `pending` until `promote` or `fail` decides. A stopped one stays so.
        One that needs no starting is kept as by `put_etl`. Where it is known already that it can't start, `problem`
        says why: its revision is returned as "failed", and becomes what `fail` makes of it. Raises BadRecord, and
        Exists if it `must_be_new`.
        """
        if not record.served and not problem:
            return self.put_etl(record, must_be_new=must_be_new)
        check_etl(record)
        with self._transaction() as db:
            old = select_etl(db, record.name)
            if old is not None and old.kind == "explicit":
                if must_be_new:
                    raise Exists(f"an ETL named {record.name!r} exists")
                if problem and old.state == "running" and not same_configuration(old, record):
                    return refused(db, old, record, problem), False
                kept, new = change(db, old, record), False
            else:
                kept, new = next_of(db, record, state="initializing"), True
                settle(db, kept, old)
            if problem and kept.state != "stopped":
                give_up(db, kept.name, kept.revision, problem)
                kept = replace(kept, state="failed", message=problem)
        return kept, new

    def promote(self, name: str, revision: int, launch_ns: int | None = None) -> EtlRecord:
        """Let a revision that was starting serve: from now on it is the ETL.

        Raises Missing if it was replaced, or told to start anew since the `launch_ns` that is meant.
        """
        with self._transaction() as db:
            old, pending = select_etl(db, name), select_etl(db, name, "pending")
            if is_meant(pending, revision, launch_ns):
                kept = replace(pending, state="running", changed_ns=_now_ns())
            elif not is_meant(old, revision, launch_ns):
                raise Missing(f"revision {revision} of ETL {name!r} was replaced or removed")
            elif old.state != "initializing":
                return old
            else:
                write_etl(db, kept := replace(old, state="running", message=""))
                return kept
            settle(db, kept, old)
        return kept

    def fail(self, name: str, revision: int, message: str, launch_ns: int | None = None) -> EtlRecord:
        """Say why a revision can't run; return the ETL as it is then. Raises Missing as `promote` does.

        A pending one is forgotten, and what runs goes on; the ETL's own revision becomes "failed".
        """
        with self._transaction() as db:
            return give_up(db, name, revision, message, launch_ns)

    def put_state(self, name: str, state: Literal["running", "stopped"], *, owner: str = "") -> EtlRecord:
        """Start or stop an ETL; its revision stays. A name without a record is an implicit ETL's, and gets one.

        One that a worker serves is "initializing" first. Stopping forgets a pending revision.
        """
        check_etl_name(name)
        if state not in ("running", "stopped"):
            raise BadRecord(f"an ETL is told to be running or stopped, not {state!r}")
        with self._transaction() as db:
            old = select_etl(db, name) or EtlRecord(name, plugin=name, kind="implicit", owner=owner)
            if state == "stopped":
                kept = replace(old, state=state)
                db.execute("DELETE FROM pending WHERE name = ?", (name,))
            elif old.state == "running" or old.wants_worker:
                kept = old
            else:
                kept = launched(old)
            write_etl(db, kept)
            if state == "running":
                db.execute("DELETE FROM circuits WHERE etl = ?", (name,))
        return kept

    def restart(self, name: str, *, owner: str = "") -> EtlRecord:
        """Have an ETL's worker replaced by a fresh one; one that runs goes on serving meanwhile."""
        check_etl_name(name)
        with self._transaction() as db:
            old = select_etl(db, name) or EtlRecord(name, plugin=name, kind="implicit", owner=owner)
            kept = replace(launched(old), state="running") if old.state == "running" else launched(old)
            write_etl(db, kept)
            db.execute("DELETE FROM circuits WHERE etl = ?", (name,))
        return kept

    def remove_etl(self, name: str) -> None:
        """Forget an explicit ETL. Raises Missing, and InUse while a view has it as a stage."""
        with self._transaction() as db:
            old = select_etl(db, name)
            if old is None or old.kind == "implicit":
                raise Missing(f"no ETL named {name!r} was made by init (a plugin's own can be stopped, not removed)")
            users = [view.name for view in select_views(db) if name in view.pipeline]
            if users:
                raise InUse(f"ETL {name!r} is used by {', '.join(users)}; remove the views first")
            db.execute("DELETE FROM etls WHERE name = ?", (name,))
            db.execute("DELETE FROM pending WHERE name = ?", (name,))
            db.execute("DELETE FROM circuits WHERE etl = ?", (name,))

    # --- views --------------------------------------------------------------------------------

    def view(self, name: str) -> ViewRecord:
        """Raises Missing."""
        try:
            return self.snapshot().views[name]
        except KeyError:
            raise Missing(f"no view named {name!r}") from None

    def put_view(
        self, record: ViewRecord, *, must_be_new: bool = False, implicit: Collection[str] | None = None
    ) -> tuple[ViewRecord, bool]:
        """Keep a view; return it as kept, and whether it is new. A changed one keeps its creation time.

        With `implicit`, the names of the plugins' own ETLs, every stage must be one of them or recorded here.
        Raises BadRecord, Missing for an unknown stage, and Exists if it `must_be_new`.
        """
        check_view(record)
        with self._transaction() as db:
            if implicit is not None:
                _check_stages(db, record, implicit)
            row = db.execute("SELECT created_ns FROM views WHERE name = ?", (record.name,)).fetchone()
            if row is not None and must_be_new:
                raise Exists(f"a view named {record.name!r} exists")
            kept = replace(record, created_ns=_now_ns() if row is None else row[0])
            write_view(db, kept)
        return kept, row is None

    def remove_view(self, name: str) -> None:
        """Raises Missing."""
        with self._transaction() as db:
            if not db.execute("DELETE FROM views WHERE name = ?", (name,)).rowcount:
                raise Missing(f"no view named {name!r}")

    # --- circuits -----------------------------------------------------------------------------

    def record_failure(self, etl: str, *, threshold: int, open_for_ns: int, now_ns: int | None = None) -> Circuit:
        """Count one more failure in a row; from `threshold` on, each opens the circuit for `open_for_ns`."""
        now = _now_ns() if now_ns is None else now_ns
        with self._transaction(counts=False) as db:
            row = db.execute("SELECT failures, opened_until_ns FROM circuits WHERE etl = ?", (etl,)).fetchone()
            old = Circuit(*row) if row else Circuit()
            failures = old.failures + 1
            circuit = Circuit(failures, now + open_for_ns if failures >= threshold else old.opened_until_ns)
            db.execute(
                "INSERT OR REPLACE INTO circuits VALUES (?, ?, ?)", (etl, circuit.failures, circuit.opened_until_ns)
            )
        return circuit

    def record_success(self, etl: str) -> None:
        """Close the circuit; writes only if there were failures."""
        if etl in self.snapshot().circuits:
            with self._transaction(counts=False) as db:
                db.execute("DELETE FROM circuits WHERE etl = ?", (etl,))

    # --- inside -------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, counts: bool = True) -> Iterator[sqlite3.Connection]:
        with self._writing, sqlite_errors():
            with transaction(self._writer) as db:
                yield db
                if counts:
                    db.execute("UPDATE changes SET version = version + 1")
            self._stamp.renew()

    def _load(self) -> Snapshot:
        db = self._reader
        db.execute("BEGIN")
        try:
            (version,) = db.execute("SELECT version FROM changes").fetchone()
            rows = db.execute("SELECT etl, failures, opened_until_ns FROM circuits").fetchall()
            circuits = MappingProxyType({etl: Circuit(failures, until) for etl, failures, until in rows})
            if self._seen is not None and version == self._snapshot.version:
                return replace(self._snapshot, circuits=circuits)
            etls, pending = select_etls(db), select_etls(db, "pending")
            views = {view.name: view for view in select_views(db)}
            return Snapshot(
                version, MappingProxyType(etls), MappingProxyType(views), circuits, MappingProxyType(pending)
            )
        finally:
            db.execute("ROLLBACK")


def _check_stages(db: sqlite3.Connection, record: ViewRecord, implicit: Collection[str]) -> None:
    for stage in record.pipeline:
        if stage not in implicit and select_etl(db, stage) is None:
            raise Missing(f"no ETL named {stage!r}")


def _now_ns() -> int:
    return time.time_ns()
