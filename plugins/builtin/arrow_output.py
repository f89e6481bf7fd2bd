"""Writes a stream of Arrow record batches in a table format, in bounded pieces; knows nothing of where they come from.

A column that came as a dictionary may grow without measure when written out, so batches are cut by what they become.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as kinds

from transom.plugins.builtin import arrow_text
from transom.plugins.builtin.tables import TableFormat
from transom.plugins.contract import Reject

MIB = 1024 * 1024
PIECE_SIZE = 16 * MIB  # about what one batch may become
ROW_SIZE_MAX = 256 * MIB
_ROW_GROUP_SIZE = 64 * MIB
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def written(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, table_format: TableFormat, *, header: bool = True
) -> Iterator[bytes]:
    """Yield the output; `header` is for csv and tsv. Raises Reject for what the format can't hold."""
    names = Counter(schema.names)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise Reject(f"two columns are called '{twice}'")
    bounded = (part for batch in batches for part in _bounded(batch))
    if table_format == "jsonl":
        return (arrow_text.json_rows(batch) for batch in bounded)
    if table_format == "json":
        return _json_array(bounded)
    if table_format in _SEPARATORS:
        return _separated(bounded, schema, _SEPARATORS[table_format], header=header)
    return _binary(bounded, _plain_schema(schema), table_format)


def _json_array(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    opening = b"[\n"
    for batch in batches:
        rows = arrow_text.json_rows(batch, before=",\n", after="")
        if rows:
            yield opening + rows[2:] if opening else rows
            opening = b""
    yield opening + b"\n]\n"


def _separated(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, separator: str, *, header: bool
) -> Iterator[bytes]:
    if header:
        yield arrow_text.csv_header(schema.names, separator)
    for batch in batches:
        yield arrow_text.csv_rows(batch, separator)


class _Sink(io.RawIOBase):
    """Takes what a writer writes, to be taken on in pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _binary(batches: Iterable[pa.RecordBatch], schema: pa.Schema, table_format: TableFormat) -> Iterator[bytes]:
    sink = _Sink()
    plain: Iterator[Any] = (_plain(batch, schema) for batch in batches)
    if table_format == "parquet":
        plain = _gathered(plain)
        writer: Any = pq.ParquetWriter(sink, schema, compression="zstd")
    else:
        new = pa.ipc.new_stream if table_format == "arrow" else pa.ipc.new_file
        writer = new(sink, schema)
    with writer:
        for batch in plain:
            writer.write(batch)
            yield sink.taken()
    yield sink.taken()


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches to tables that make good row groups."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= _ROW_GROUP_SIZE:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """Drop dictionaries, which the file format can't change from batch to batch, and the source's metadata."""
    fields = [field.with_type(field.type.value_type) if kinds.is_dictionary(field.type) else field for field in schema]
    return pa.schema(fields)


def _plain(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Halve a batch until no part is large written out."""
    size = sum(_size(column) for column in batch.columns)
    if size <= PIECE_SIZE or (batch.num_rows == 1 and size <= ROW_SIZE_MAX):
        yield batch
        return
    if batch.num_rows == 1:
        raise Reject(f"a row has {size} bytes, more than {ROW_SIZE_MAX}")
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half))
    yield from _bounded(batch.slice(half))


def _size(column: pa.Array) -> int:
    if isinstance(column, pa.DictionaryArray) and not kinds.is_primitive(column.type.value_type):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64()).take(column.indices)
        return pc.sum(lengths).as_py() or 0
    return int(column.nbytes)
