"""Runs one query over one file in a DuckDB of its own, which can read that file and nothing else.

The file is opened here and handed over as a descriptor: its path plays no part in what is read, nor in messages.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa

from transom.plugins.builtin import arrow_output, sql_guard, sql_source
from transom.plugins.builtin.clock import Clock
from transom.plugins.builtin.sql import SqlArgs
from transom.plugins.contract import Context, Reject

MEMORY = "512MB"
SPILL = "8GB"
_BATCH_ROWS = 8192
_MESSAGE_LENGTH = 500
_UNWANTED = re.compile(r"\n\nLINE |\nThe search space|\n?Possible (?:fixes|solutions)")


def transformed(path: Path, context: Context) -> Iterator[bytes]:
    """Yield what the query selects, in the format asked for."""
    clock = Clock(context)
    with path.open("rb") as file, closing(_database(path.parent / "spill")) as database:
        run = _Run(database, file, context, clock)
        with run.refusing():
            yield from clock.over(run.output())


def _database(spill: Path) -> duckdb.DuckDBPyConnection:
    # One thread: rows come in the same order every time, and the deadline and concurrency count threads.
    return duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
            "max_temp_directory_size": SPILL,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        },
    )


class _Run:
    """One query under way."""

    def __init__(self, database: duckdb.DuckDBPyConnection, file: BinaryIO, context: Context, clock: Clock) -> None:
        self._database = database
        self._file = file
        self._path = f"/proc/self/fd/{file.fileno()}"
        self._context = context
        self._args: SqlArgs = context.args
        self._clock = clock

    def output(self) -> Iterator[bytes]:
        with self._until_deadline():
            columns = self._open_object()
            self._lock()
            sql_guard.check(self._database, self._args.query, columns)
            selected = _without_json_inside(self._database.sql(self._args.query))
            reader = selected.to_arrow_reader(_BATCH_ROWS)
        schema = _schema(reader, selected.types)
        rows = (_in_schema(batch, schema) for batch in self._batches(reader))
        yield from arrow_output.written(rows, schema, self._args.format, header=self._args.header)

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            with self._until_deadline():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    def _open_object(self) -> frozenset[str]:
        """Make the object a view; return its columns' names in lower case."""
        head = sql_source.head_of(self._file)
        compression = sql_source.compression_of(head)
        kind = sql_source.input_format(head, compression, self._context)
        if kind in ("csv", "tsv") and not head:
            raise Reject("the object is empty")
        source = sql_source.reading(kind, self._path, compression, self._args)
        described = self._database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()  # noqa: S608 (all quoted)
        columns = {str(name): str(type_name) for name, type_name, *_ in described}
        names = list(columns)
        if kind in ("json", "jsonl") and sql_source.as_found(names):
            # To find the types it looked through the whole object: that needn't be done again.
            source = sql_source.reading(kind, self._path, compression, self._args, columns)
        if kind in ("csv", "tsv") and not self._args.header:
            names = [f"_{number}" for number in range(1, len(names) + 1)]
        listed = ", ".join(map(_name, names))
        view = f"CREATE VIEW {sql_guard.TABLE}({listed}) AS SELECT * FROM {source}"  # noqa: S608 (all quoted)
        self._database.execute(view).fetchall()
        return frozenset(name.lower() for name in names)

    def _lock(self) -> None:
        """From here on only the object can be read, and nothing of this can be taken back."""
        for statement in (
            "SELECT setseed(0.5)",  # random() gives the same numbers in every run
            "SET TimeZone = 'UTC'",
            f"SET allowed_paths = ['{self._path}']",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self._database.execute(statement).fetchall()

    @contextmanager
    def _until_deadline(self) -> Iterator[None]:
        """Interrupt what the database does once the deadline passes."""
        left = self._clock.left_s()
        if left == math.inf:
            yield
            return
        timer = threading.Timer(max(left, 0), self._database.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn what a bad query or object makes the database raise into Reject."""
        try:
            yield
        except duckdb.InterruptException as error:
            raise TimeoutError("the deadline has passed") from error
        except duckdb.OutOfMemoryException as error:
            raise Reject(f"the query needs more than {MEMORY} of memory and {SPILL} of disk") from error
        except (duckdb.FatalException, duckdb.InternalException):
            raise
        except (duckdb.Error, pa.ArrowException) as error:
            raise Reject(self._reason(error)) from error

    def _reason(self, error: BaseException) -> str:
        """Return the database's message on one line, without the path, and without its marks under the query."""
        text = _UNWANTED.split(str(error), maxsplit=1)[0].replace(self._path, "the object")
        return " ".join(text.split())[:_MESSAGE_LENGTH]


def _without_json_inside(selected: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Make JSON of columns that have some inside, which Arrow would give as text within lists and structures."""
    kinds = zip(selected.columns, map(str, selected.types), strict=True)
    names = [_name(name) for name, kind in kinds if "JSON" in kind and kind != "JSON"]
    if not names:
        return selected
    return selected.project("* REPLACE (" + ", ".join(f"to_json({name}) AS {name}" for name in names) + ")")


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _schema(reader: pa.RecordBatchReader, types: Sequence[object]) -> pa.Schema:
    """Return the reader's schema, in which DuckDB's JSON, plain text in Arrow, is told apart."""
    fields = zip(reader.schema, types, strict=True)
    return pa.schema([field.with_type(pa.json_()) if kind == "JSON" else field for field, kind in fields])


def _in_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.ExtensionArray.from_storage(field.type, column) if isinstance(field.type, pa.JsonType) else column
        for field, column in zip(schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
