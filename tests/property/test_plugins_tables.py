"""Any table comes out of `parquet` as Python writes it, and any text of `redact` the same however it is cut."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin import arrow_output
from transom.plugins.builtin.parquet import Parquet
from transom.plugins.builtin.redact import Redact
from transom.plugins.builtin.tables import TableFormat
from transom.plugins.shapes import stream

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats()),
    (pa.bool_(), st.booleans()),
    (pa.string(), TEXTS),
]


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def nested(inner: tuple[pa.DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[pa.DataType, Any]]:
    kind, values = inner
    struct = st.fixed_dictionaries({"x": nullable(values), 'y"': nullable(st.booleans())})
    return st.sampled_from([
        (pa.list_(kind), st.lists(nullable(values), max_size=3)),
        (pa.struct([("x", kind), ('y"', pa.bool_())]), struct),
    ])  # fmt: skip


KINDS = st.recursive(st.sampled_from(LEAVES), lambda inner: inner.flatmap(nested), max_leaves=3)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    count = draw(st.integers(0, 5))
    columns = []
    for _ in names:
        kind, values = draw(KINDS)
        columns.append(pa.array(draw(st.lists(nullable(values), min_size=count, max_size=count)), kind))
    return pa.table(columns, names=names)


def batches(table: pa.Table, offset: int) -> Iterator[pa.RecordBatch]:
    """The table in two batches, slices of one."""
    batch = table.combine_chunks().to_batches()
    for whole in batch:
        yield whole.slice(0, offset)
        yield whole.slice(offset)


def out(table: pa.Table, table_format: TableFormat, offset: int = 0) -> bytes:
    return b"".join(arrow_output.written(batches(table, offset), table.schema, table_format))


def plain(value: Any) -> Any:
    """What JSON has of a value."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(tables(), st.integers(0, 5))
def test_json_is_what_python_makes_of_the_rows(table: pa.Table, offset: int) -> None:
    expected = plain(table.to_pylist())
    assert [json.loads(line) for line in out(table, "jsonl", offset).split(b"\n")[:-1]] == expected
    assert json.loads(out(table, "json", offset)) == expected


@given(tables(), st.integers(0, 5))
def test_arrow_and_parquet_hold_the_table(table: pa.Table, offset: int) -> None:
    for made in (
        pa.ipc.open_stream(out(table, "arrow", offset)).read_all(),
        pa.ipc.open_file(out(table, "arrow_file", offset)).read_all(),
        pq.read_table(io.BytesIO(out(table, "parquet", offset))),
    ):
        assert repr(made.to_pylist()) == repr(table.to_pylist())  # NaN is not equal to itself


@given(st.lists(st.tuples(nullable(TEXTS), nullable(TEXTS)), max_size=5), st.integers(0, 5))
def test_csv_is_read_again_as_it_was(rows: list[tuple[str | None, str | None]], offset: int) -> None:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(2)]
    made = out(pa.table(columns, names=["a", 'b,"']), "csv", offset).decode()
    if any("\0" in (text or "") for row in rows for text in row):
        return  # Python's reader doesn't take it
    read = list(csv.reader(io.StringIO(made, newline="")))
    assert read == [["a", 'b,"'], *([text or "" for text in row] for row in rows)]


CUTS = st.lists(st.integers(0, 40), max_size=10)
PARTS = st.sampled_from([
    "jane@example.com", "4111 1111 1111 1111", "10.0.0.1", "2001:db8::1", "DE89370400440532013000", "+49 30 1234567",
    "password=hunter22", "123-45-6789", " ", "\n", "\r\n", "ö", "1", ".", "-", "@", ":", "a", "C-12",
])  # fmt: skip


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def redacted(chunks: Iterator[bytes], args: object) -> bytes:
    context = Context(bucket="b", key="k", etl="redact", args=parse_args(Redact(), args))
    return b"".join(Redact().transform_stream(chunks, context))


@given(st.lists(PARTS, max_size=12).map("".join), CUTS, st.sampled_from([None, {"regex": [r"^C-\d+", "1.*$"]}]))
def test_no_cut_changes_what_is_redacted(text: str, sizes: list[int], args: object) -> None:
    data = text.encode()
    whole = redacted(iter([data]), args)
    assert redacted(cut(data, sizes), args) == whole
    lines = [redacted(iter([line]), args) for line in re.split(rb"(?<=\n)", data)]
    assert b"".join(lines) == whole  # and no line depends on another


HIDDEN = ["jane@example.com", "4111 1111 1111 1111", "10.0.0.1", "2001:db8::1", "DE89370400440532013000", "123-45-6789"]
APART = st.lists(st.sampled_from([*HIDDEN, "a", "12", "1234", "DE", "x@", "+", "::"]), max_size=8)


@given(APART, st.sampled_from([" ", "\n", ", ", " 4 ", ";"]))
def test_nothing_hides_what_stands_beside_it(words: list[str], between: str) -> None:
    made = redacted(iter([between.join(words).encode()]), None).decode()
    assert not any(word in made for word in HIDDEN)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_damaged_parquet_is_rejected_or_read(noise: bytes, at: int) -> None:
    output = io.BytesIO()
    pq.write_table(pa.table({"a": range(50), "s": ["text"] * 50}), output)
    data = bytearray(output.getvalue())
    start = len(data) * at // 4
    data[start : start + len(noise)] = noise[: len(data) - start]
    context = Context(bucket="b", key="k", etl="parquet", args=parse_args(Parquet(), None))
    with tempfile.TemporaryDirectory() as folder, suppress(Reject):
        for _ in stream(Parquet(), [bytes(data)], context, scratch=Path(folder)):
            pass
