"""The records of one sort, on the disk: gathered as sources are scanned, put in order by one query, cut into shards.

One SQLite file in the job's folder. It knows nothing of stores; what is in it can be made again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transom.cluster.sqlite import BUSY_TIMEOUT_S
from transom.plugins.builtin.tar_stream import ENCODING
from transom.target.jobs.catalog import RECORDS
from transom.target.jobs.order import Sorting
from transom.target.jobs.sort.archive import stored_size
from transom.target.jobs.sort.sources import Kind, Piece, SourceObject, record_of
from transom.target.jobs.sort.values import Value, rank

_CACHE_KIB, _READERS_CACHE_KIB = 64 * 1024, 8 * 1024
_STEPS = 1_000_000  # of SQLite's machine: some ten milliseconds
MemberRow = tuple[bytes, bytes, int, int, int, Value | None]
"""Record, member's name, offset and size, bytes it takes of a shard, and its value if it has the one to sort by."""

_SCHEMA = """
CREATE TABLE sources (n INTEGER PRIMARY KEY, bucket TEXT, key TEXT, size INTEGER, etag TEXT, kind INTEGER, name BLOB,
    failed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE members (record BLOB, name BLOB, source INTEGER, offset INTEGER, size INTEGER, stored INTEGER, value);
CREATE TABLE problems (record BLOB, source INTEGER, message TEXT);
CREATE TABLE records (name BLOB PRIMARY KEY, value, stored INTEGER, source INTEGER, low INTEGER, high INTEGER,
    members INTEGER, names INTEGER) WITHOUT ROWID;
CREATE TABLE placed (n INTEGER PRIMARY KEY, record BLOB);
CREATE TABLE shards (n INTEGER PRIMARY KEY, first INTEGER, records INTEGER, stored INTEGER, key TEXT UNIQUE);
"""
# Plain objects are all one origin: `a.jpg` and `a.cls` beside each other are one record. So are an archive's members.
_GATHER = """
INSERT INTO records SELECT m.record, max(m.value), sum(m.stored), min(m.source),
    min(CASE s.kind WHEN 0 THEN -1 ELSE s.n END), max(CASE s.kind WHEN 0 THEN -1 ELSE s.n END),
    count(*), count(DISTINCT m.name)
FROM members m CROSS JOIN sources s ON s.n = m.source GROUP BY m.record
"""
_PIECES = """
SELECT m.source, m.offset, m.size, m.name FROM shards s JOIN placed p ON p.n >= s.first AND p.n < s.first + s.records
CROSS JOIN members m ON m.record = p.record WHERE s.n = ? ORDER BY p.n, m.source, m.offset
"""
_ADD_MEMBER = "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)"
_SOURCE = "SELECT n, bucket, key, size, etag, kind, name FROM sources"


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that can't be sorted, and the source that has it."""

    record: bytes
    source: SourceObject
    message: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to write: its number, its records, and the bytes that their members take."""

    n: int
    records: int
    stored: int


class Spill:
    """The file, opened by one process; its methods are called by one thread at a time."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._stopped: BaseException | None = None

    def watch(self, look: Callable[[], None]) -> None:
        """From now on call `look` now and then while a query takes long; what it raises ends the query."""
        self._db.set_progress_handler(lambda: self._interrupts(look), _STEPS)

    def _interrupts(self, look: Callable[[], None]) -> bool:
        try:
            look()
        except BaseException as error:  # SQLite would swallow it
            self._stopped = error
        return self._stopped is not None

    @classmethod
    def create(cls, folder: Path) -> Spill:
        """Begin anew in a job's folder."""
        path = folder / RECORDS
        for old in (path, path.with_name(f"{RECORDS}-journal")):
            old.unlink(missing_ok=True)
        spill = cls(_connect(path.as_uri(), _CACHE_KIB))
        # What is lost when the machine fails is made again.
        spill._db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_SCHEMA}")
        return spill

    @classmethod
    def open(cls, folder: Path) -> Spill:
        """Open what was placed, for reading; any number of processes may."""
        return cls(_connect(f"{(folder / RECORDS).as_uri()}?mode=ro", _READERS_CACHE_KIB))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._db.close()

    # --- gathering ------------------------------------------------------------------------------

    def add_sources(self, sources: Iterable[SourceObject]) -> None:
        """Take objects that are to be read."""
        rows = ((s.n, s.bucket, s.key, s.size, s.etag, s.kind, s.name) for s in sources)
        with self._transaction():
            self._db.executemany(
                "INSERT INTO sources (n, bucket, key, size, etag, kind, name) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )

    def add_plain(self, sources: Iterable[SourceObject]) -> None:
        """Take objects that are members themselves, without values."""
        rows = ((record_of(s.name)[0], s.name, s.n, 0, s.size, stored_size(s.name, s.size), None) for s in sources)
        with self._transaction():
            self._db.executemany(_ADD_MEMBER, rows)

    def sources(self, kinds: Sequence[Kind], *, after: int, limit: int) -> list[SourceObject]:
        """List the sources of some kinds, as they are known so far, beyond number `after`."""
        found: list[SourceObject] = []
        for row in self._db.execute(f"{_SOURCE} WHERE n > ? ORDER BY n", (after,)):
            source = _source(row)
            if source.kind in kinds:
                found.append(source)
            if len(found) == limit:
                break
        return found

    def add_members(self, source: SourceObject, members: Iterable[MemberRow]) -> None:
        """Take some of a source's members, in their order; `source` is it as it was read."""
        rows = ((record, name, source.n, *rest) for record, name, *rest in members)
        with self._transaction():
            self._db.execute(
                "UPDATE sources SET size = ?, etag = ?, kind = ? WHERE n = ?",
                (source.size, source.etag, source.kind, source.n),
            )
            self._db.executemany(_ADD_MEMBER, rows)

    def add_problems(self, source: SourceObject, problems: Iterable[tuple[bytes, str]]) -> None:
        """Take records of a source that can't be sorted, and why."""
        with self._transaction():
            rows = [(record, source.n, message) for record, message in problems]
            self._db.executemany("INSERT INTO problems VALUES (?, ?, ?)", rows)

    def leave_out(self, source: SourceObject) -> None:
        """Have a source's records count for nothing: it couldn't be read to its end."""
        with self._transaction():
            self._db.execute("UPDATE sources SET failed = 1 WHERE n = ?", (source.n,))

    # --- ordering -------------------------------------------------------------------------------

    def gather(self) -> None:
        """Make records of the members, when all were added."""
        with self._transaction():
            for table in ("members", "problems"):
                self._db.execute(f"DELETE FROM {table} WHERE source IN (SELECT n FROM sources WHERE failed)")  # noqa: S608
            self._db.execute("CREATE INDEX members_record ON members (record, source, offset)")
            self._db.execute("CREATE INDEX sources_key ON sources (key)")
            self._db.execute(_GATHER)

    def twice(self) -> str:
        """Name a record that several sources have, or a member that one has twice, and where; "" if there is none."""
        row = self._db.execute("SELECT name, low, high FROM records WHERE low != high OR members != names").fetchone()
        if row is None:
            return ""
        record, low, high = row
        if low != high:
            found = self._db.execute(f"{_SOURCE} WHERE n IN (?, ?, ?)", (low, high, self._plain_of(record)))
            first, second, *_ = [str(_source(row)) for row in found]
            return f"the record {_text(record)!r} is both in {first} and in {second}"
        name, source = self._db.execute(
            "SELECT name, source FROM members WHERE record = ? GROUP BY name HAVING count(*) > 1", (record,)
        ).fetchone()
        return f"the member {_text(name)!r} is twice in {self.source(source)}"

    def _plain_of(self, record: bytes) -> int | None:
        (found,) = self._db.execute(
            "SELECT min(source) FROM members JOIN sources s ON s.n = source WHERE record = ? AND s.kind = 0", (record,)
        ).fetchone()
        return None if found is None else int(found)

    def reject(self, content: str) -> Iterator[Problem]:
        """Take out and yield the records with problems; where it is sorted by `content`, those without it are ones."""
        if content:
            with self._transaction():
                self._db.execute(
                    "INSERT INTO problems SELECT name, source, ? FROM records"
                    " WHERE value IS NULL AND name NOT IN (SELECT record FROM problems)",
                    (f"it has no member .{content}",),
                )
        with self._transaction():
            self._db.execute("DELETE FROM records WHERE name IN (SELECT record FROM problems)")
        found = self._db.execute("SELECT record, source, message FROM problems ORDER BY record, source, message")
        for record, source, message in found:
            yield Problem(record, self.source(source), message)

    def totals(self) -> tuple[int, int]:
        """How many records there are, and the bytes that their members take."""
        count, stored = self._db.execute("SELECT count(*), coalesce(sum(stored), 0) FROM records").fetchone()
        return count, stored

    def in_order(self, sorting: Sorting) -> Iterator[tuple[bytes, int]]:
        """Yield the records' names and bytes as they are to stand: ties go by name. Call it once."""
        way = "DESC" if sorting.descending else "ASC"
        if sorting.by == "shuffle":
            self._db.create_function("rank", 1, lambda name: rank(sorting.seed, name), deterministic=True)
            with self.stoppable():
                self._db.execute("UPDATE records SET value = rank(name)")
        if sorting.by == "key":
            return iter(self._db.execute(f"SELECT name, stored FROM records ORDER BY name {way}"))  # noqa: S608
        with self.stoppable():
            self._db.execute(f"CREATE INDEX records_value ON records (value {way}, name, stored)")
        return iter(self._db.execute(f"SELECT name, stored FROM records ORDER BY value {way}, name"))  # noqa: S608

    def place(self, placed: Iterable[tuple[int, bytes, int]]) -> None:
        """Keep the shards: for each record in order its shard's number, its name and its bytes."""
        with self._transaction():
            self._db.executemany("INSERT INTO placed VALUES (?, ?)", _kept(placed, self._db))

    def name(self, keys: Iterable[tuple[int, str]]) -> None:
        """Keep the keys that shards become."""
        with self._transaction():
            self._db.executemany("UPDATE shards SET key = ? WHERE n = ?", ((key, n) for n, key in keys))

    # --- asking ---------------------------------------------------------------------------------

    def shards(self) -> Iterator[Shard]:
        """Yield the shards in order."""
        for row in self._db.execute("SELECT n, records, stored FROM shards ORDER BY n"):
            yield Shard(*row)

    def count_shards(self) -> int:
        """How many shards there are."""
        return int(self._db.execute("SELECT count(*) FROM shards").fetchone()[0])

    def count_sources(self) -> int:
        """How many sources records are of."""
        return int(self._db.execute("SELECT count(*) FROM sources WHERE NOT failed").fetchone()[0])

    def shard_of(self, key: str) -> int:
        """The number of the shard that becomes `key`."""
        return int(self._db.execute("SELECT n FROM shards WHERE key = ?", (key,)).fetchone()[0])

    def pieces(self, shard: int) -> Iterator[Piece]:
        """Yield a shard's members in order."""
        for row in self._db.execute(_PIECES, (shard,)):
            yield Piece(*row)

    def source(self, n: int) -> SourceObject:
        """Return source number `n`."""
        return _source(self._db.execute(f"{_SOURCE} WHERE n = ?", (n,)).fetchone())

    def has_source(self, bucket: str, key: str) -> bool:
        """Whether an object is one of those that are read."""
        found = self._db.execute("SELECT 1 FROM sources WHERE bucket = ? AND key = ? LIMIT 1", (bucket, key))
        return found.fetchone() is not None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        with self.stoppable():
            yield  # without a journal there is no going back: whoever fails begins anew
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Raise what `watch`ing raised where SQLite only says that it was interrupted."""
        try:
            yield
        except sqlite3.OperationalError:
            if self._stopped is not None:
                raise self._stopped from None
            raise


def sync(folder: Path) -> None:
    """Have the spill in a job's folder outlive a failure of the machine; it must be closed."""
    fd = os.open(folder / RECORDS, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _connect(uri: str, cache_kib: int) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    return db


def _kept(placed: Iterable[tuple[int, bytes, int]], db: sqlite3.Connection) -> Iterator[tuple[int, bytes]]:
    """Pass records on with their places; write each shard down when it is whole."""
    shard, first, stored, n = -1, 0, 0, 0
    for n, (at, record, size) in enumerate(placed):
        if at != shard:
            if shard >= 0:
                db.execute(
                    "INSERT INTO shards (n, first, records, stored) VALUES (?, ?, ?, ?)",
                    (shard, first, n - first, stored),
                )
            shard, first, stored = at, n, 0
        stored += size
        yield n, record
    if shard >= 0:
        db.execute(
            "INSERT INTO shards (n, first, records, stored) VALUES (?, ?, ?, ?)", (shard, first, n + 1 - first, stored)
        )


def _source(row: tuple[int, str, str, int, str, int, bytes]) -> SourceObject:
    n, bucket, key, size, etag, kind, name = row
    return SourceObject(n, bucket, key, size, etag, Kind(kind), name)


def _text(name: bytes) -> str:
    return name.decode(ENCODING, "replace")
