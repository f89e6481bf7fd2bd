"""The catalog: ETLs, views and circuits in one SQLite file that every process on the machine shares.

Reading it on the request path is `snapshot`: a look at a shared stamp while nothing changes. It checks no permissions
and doesn't know which transformers or buckets exist.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from transom.cluster.records import (
    BadRecord,
    CatalogError,
    Circuit,
    EtlRecord,
    EtlState,
    Exists,
    InUse,
    Missing,
    Snapshot,
    ViewRecord,
    check_etl,
    check_etl_name,
    check_state,
    check_view,
)
from transom.cluster.stamp import Stamp

BUSY_TIMEOUT_S = 10.0
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE etls (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, plugin TEXT NOT NULL, args TEXT NOT NULL, deterministic INTEGER,
    cache INTEGER NOT NULL, concurrency INTEGER, timeout_s REAL, state TEXT NOT NULL, owner TEXT NOT NULL,
    revision INTEGER NOT NULL, changed_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE revisions (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE views (
    name TEXT PRIMARY KEY, bucket TEXT NOT NULL, pipeline TEXT NOT NULL, args TEXT NOT NULL, extensions TEXT NOT NULL,
    sizes TEXT NOT NULL, owner TEXT NOT NULL, created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE circuits (
    etl TEXT PRIMARY KEY, failures INTEGER NOT NULL, opened_until_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE changes (version INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
"""
_ETL_COLUMNS = (
    "name, plugin, args, deterministic, cache, concurrency, timeout_s, state, owner, kind, revision, changed_ns"
)
_VIEW_COLUMNS = "name, bucket, pipeline, args, extensions, sizes, owner, created_ns"


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
        # SQLite doesn't wait when two processes switch a new file to WAL: one at a time, then.
        with path.with_name(path.name + ".lock").open("w") as lock, _sqlite_errors():
            fcntl.flock(lock, fcntl.LOCK_EX)
            writer = _connect(path)
            try:
                _migrate(writer)
                return cls(_connect(path), writer, Stamp(path.with_name(path.name + ".stamp")))
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
                self._stamp.note()
                ((seen,),) = self._probe.execute("PRAGMA data_version")
                if seen != self._seen:
                    self._snapshot = self._load()
                    # Taken before the load: a change in between shows as another data_version next time.
                    self._seen = seen
            except sqlite3.Error as error:
                raise _unusable(error) from error
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

        Changing one keeps its state, and its revision too if the configuration is the same; a new one takes the
        record's state. Raises BadRecord, and Exists if it `must_be_new`.
        """
        check_etl(record)
        args = _to_json(record.args)
        with self._transaction() as db:
            old = _select_etl(db, record.name)
            if old is None or old.kind == "implicit":
                kept = replace(record, kind="explicit", revision=_next_revision(db, record.name), changed_ns=_now_ns())
            elif must_be_new:
                raise Exists(f"an ETL named {record.name!r} exists")
            elif _same_configuration(old, record, args):
                kept = replace(old, owner=record.owner)
            else:
                revision = _next_revision(db, record.name)
                kept = replace(record, kind="explicit", state=old.state, revision=revision, changed_ns=_now_ns())
            _write_etl(db, kept)
            # Failures of what ran before say nothing of what runs now.
            if old is None or kept.revision != old.revision:
                db.execute("DELETE FROM circuits WHERE etl = ?", (record.name,))
        return kept, old is None or old.kind == "implicit"

    def put_state(self, name: str, state: EtlState, *, owner: str = "") -> EtlRecord:
        """Start or stop an ETL; its revision stays. A name without a record is an implicit ETL's, and gets one."""
        check_etl_name(name)
        check_state(state)
        with self._transaction() as db:
            old = _select_etl(db, name)
            kept = replace(old or EtlRecord(name, plugin=name, kind="implicit", owner=owner), state=state)
            _write_etl(db, kept)
            if state == "running":
                db.execute("DELETE FROM circuits WHERE etl = ?", (name,))
        return kept

    def remove_etl(self, name: str) -> None:
        """Forget an explicit ETL. Raises Missing, and InUse while a view has it as a stage."""
        with self._transaction() as db:
            old = _select_etl(db, name)
            if old is None or old.kind == "implicit":
                raise Missing(f"no ETL named {name!r} was made by init (a plugin's own can be stopped, not removed)")
            users = [view.name for view in _select_views(db) if name in view.pipeline]
            if users:
                raise InUse(f"ETL {name!r} is used by {', '.join(users)}; remove the views first")
            db.execute("DELETE FROM etls WHERE name = ?", (name,))
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
        args, extensions = _to_json(record.args), _to_json(record.extensions)
        with self._transaction() as db:
            if implicit is not None:
                _check_stages(db, record, implicit)
            row = db.execute("SELECT created_ns FROM views WHERE name = ?", (record.name,)).fetchone()
            if row is not None and must_be_new:
                raise Exists(f"a view named {record.name!r} exists")
            kept = replace(record, created_ns=_now_ns() if row is None else row[0])
            db.execute(
                f"INSERT OR REPLACE INTO views ({_VIEW_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (
                    *(kept.name, kept.bucket, _to_json(kept.pipeline), args),
                    *(extensions, kept.sizes, kept.owner, kept.created_ns),
                ),
            )
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
        with self._writing, _sqlite_errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                if counts:
                    self._writer.execute("UPDATE changes SET version = version + 1")
                self._writer.execute("COMMIT")
                self._stamp.renew()
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _load(self) -> Snapshot:
        db = self._reader
        db.execute("BEGIN")
        try:
            (version,) = db.execute("SELECT version FROM changes").fetchone()
            rows = db.execute("SELECT etl, failures, opened_until_ns FROM circuits").fetchall()
            circuits = MappingProxyType({etl: Circuit(failures, until) for etl, failures, until in rows})
            if self._seen is not None and version == self._snapshot.version:
                return replace(self._snapshot, circuits=circuits)
            etls = {row[0]: _etl(row) for row in db.execute(f"SELECT {_ETL_COLUMNS} FROM etls ORDER BY name")}  # noqa: S608
            views = {view.name: view for view in _select_views(db)}
            return Snapshot(version, MappingProxyType(etls), MappingProxyType(views), circuits)
        finally:
            db.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise CatalogError(
            f"the catalog was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION})"
        )
    if version == 0:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _unusable(error) from error


def _unusable(error: sqlite3.Error) -> CatalogError:
    return CatalogError(f"the catalog can't be used: {error}")


def _select_etl(db: sqlite3.Connection, name: str) -> EtlRecord | None:
    row = db.execute(f"SELECT {_ETL_COLUMNS} FROM etls WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return _etl(row) if row else None


def _etl(row: tuple[Any, ...]) -> EtlRecord:
    name, plugin, args, deterministic, cache, concurrency, timeout_s, state, owner, kind, revision, changed_ns = row
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
    )


def _write_etl(db: sqlite3.Connection, record: EtlRecord) -> None:
    db.execute(
        f"INSERT OR REPLACE INTO etls ({_ETL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            *(record.name, record.plugin, _to_json(record.args), record.deterministic, record.cache),
            *(record.concurrency, record.timeout_s, record.state, record.owner, record.kind),
            *(record.revision, record.changed_ns),
        ),
    )


def _next_revision(db: sqlite3.Connection, name: str) -> int:
    """Count on from the name's last revision, which outlives the ETL."""
    (revision,) = db.execute(
        "INSERT INTO revisions VALUES (?, 1)"
        " ON CONFLICT (name) DO UPDATE SET revision = revision + 1 RETURNING revision",
        (name,),
    ).fetchone()
    return int(revision)


def _same_configuration(old: EtlRecord, new: EtlRecord, new_args: str) -> bool:
    # Args as text: in Python True == 1 == 1.0, but not to a transformer.
    return old.configuration() == new.configuration() and _to_json(old.args) == new_args


def _select_views(db: sqlite3.Connection) -> list[ViewRecord]:
    rows = db.execute(f"SELECT {_VIEW_COLUMNS} FROM views ORDER BY name").fetchall()  # noqa: S608
    return [
        ViewRecord(
            name=name,
            bucket=bucket,
            pipeline=tuple(json.loads(pipeline)),
            args=tuple(json.loads(args)),
            extensions=tuple((old, new) for old, new in json.loads(extensions)),
            sizes=_sizes(sizes),
            owner=owner,
            created_ns=created_ns,
        )
        for name, bucket, pipeline, args, extensions, sizes, owner, created_ns in rows
    ]


def _sizes(text: str) -> Literal["source", "materialise"]:
    return "materialise" if text == "materialise" else "source"


def _check_stages(db: sqlite3.Connection, record: ViewRecord, implicit: Collection[str]) -> None:
    for stage in record.pipeline:
        if stage not in implicit and _select_etl(db, stage) is None:
            raise Missing(f"no ETL named {stage!r}")


def _to_json(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadRecord(f"not a JSON value: {error}") from error


def _now_ns() -> int:
    return time.time_ns()
