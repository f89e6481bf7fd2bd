"""parquet gives the rows and values that pyarrow reads, in every format, and no small file makes it large."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin import parquet_input
from transom.plugins.builtin.parquet import Parquet
from transom.plugins.errors import ArgsError
from transom.plugins.shapes import stream

Run = Callable[..., bytes]  # of conftest

MIB = 1024 * 1024
WHEN = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456)
UTC = datetime.UTC


def written(table: pa.Table, **options: Any) -> bytes:
    output = io.BytesIO()
    pq.write_table(table, output, **options)
    return output.getvalue()


def people(count: int = 1000) -> pa.Table:
    return pa.table({
        "id": pa.array(range(count)),
        "name": pa.array([f"name {i % 7}" for i in range(count)]),
        "born": pa.array([datetime.date(1970, 1, 1) + datetime.timedelta(days=i) for i in range(count)]),
        "score": pa.array([None if i % 3 == 0 else i / 4 for i in range(count)]),
        "paid": pa.array([Decimal(i) / 100 for i in range(count)], pa.decimal128(12, 2)),
    })  # fmt: skip


PEOPLE = people()
DATA = written(PEOPLE, row_group_size=100)
VALUES: list[tuple[pa.Array, list[Any]]] = [
    (pa.array([1, -(2**63), 2**63 - 1, None]), [1, -(2**63), 2**63 - 1, None]),
    (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
    (pa.array([1.5, float("nan"), float("inf"), 1e300, None]), [1.5, None, None, 1e300, None]),
    (pa.array([0.1], pa.float32()), [0.1]),
    (pa.array([1.5]).cast(pa.float16()), [1.5]),
    (pa.array([True, False, None]), [True, False, None]),
    (pa.array(['a"b\\c\n\r\t\x00\x1fé\u2028', "", None]), ['a"b\\c\n\r\t\x00\x1fé\u2028', "", None]),
    (pa.array([b"\xff\x00", b"", None]), ["/wA=", "", None]),
    (pa.array([b"1234"], pa.binary(4)), ["MTIzNA=="]),
    (pa.array([WHEN]), ["2024-02-29T23:59:59.123456"]),
    (pa.array([WHEN], pa.timestamp("ms")), ["2024-02-29T23:59:59.123"]),
    (pa.array([WHEN.replace(tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")), ["2024-02-29T23:59:59.123456Z"]),
    (pa.array([WHEN.date()]), ["2024-02-29"]),
    (pa.array([WHEN.time()]), ["23:59:59.123456"]),
    (pa.array([[1, None], [], None]), [[1, None], [], None]),
    (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None]),
    (pa.array([{"a": 1, "b": ["x"]}, {"a": None}, None]), [{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None]),
    (pa.array([[("k\"", 1)], [], None], pa.map_(pa.string(), pa.int8())), [{'k"': 1}, {}, None]),
    (pa.array([[(1, "x")]], pa.map_(pa.int8(), pa.string())), [{"1": "x"}]),
    (pa.array(["x", "y", "x", None]).dictionary_encode(), ["x", "y", "x", None]),
    (pa.array([None, None]), [None, None]),
    (pa.array([uuid.UUID(int=7).bytes, None], pa.uuid()), [str(uuid.UUID(int=7)), None]),
    (pa.array(['{"a":\n [1]}', "no JSON", None], pa.json_()), [{"a": [1]}, "no JSON", None]),
]  # fmt: skip


@pytest.mark.parametrize(("column", "expected"), VALUES, ids=lambda value: str(getattr(value, "type", ""))[:30])
def test_values_are_right_in_json(run: Run, column: pa.Array, expected: list[Any]) -> None:
    data = written(pa.table({"v": column}))
    lines = run(Parquet(), data).splitlines()
    assert [json.loads(line) for line in lines] == [{"v": value} for value in expected]
    assert json.loads(run(Parquet(), data, "json")) == [{"v": value} for value in expected]


def test_decimals_keep_their_digits(run: Run) -> None:
    digits = ["12345678901234567890.1200", "-0.0100", "3.0000"]
    table = pa.table({"d": pa.array(list(map(Decimal, digits)), pa.decimal128(38, 4))})
    assert [line.decode() for line in run(Parquet(), written(table)).splitlines()] == [f'{{"d":{d}}}' for d in digits]


def test_rows_are_those_of_pyarrow(run: Run) -> None:
    rows = [json.loads(line, parse_float=Decimal) for line in run(Parquet(), DATA).splitlines()]
    assert rows == [
        {**row, "born": row["born"].isoformat(), "score": None if row["score"] is None else Decimal(str(row["score"]))}
        for row in PEOPLE.to_pylist()
    ]


def test_csv_is_read_again_by_the_csv_module(run: Run) -> None:
    table = pa.table({
        "plain": ["a", 'say "hi", ok', "two\nlines", "", None],
        "n": [1, None, 3, 4, 5],
        "l,ist": [[1], None, [], [2, 3], None],
        "b": [b"\xff", None, b"", b"x", b"y"],
    })  # fmt: skip
    for name, delimiter in (("csv", ","), ("tsv", "\t")):
        text = run(Parquet(), written(table), name).decode()
        assert list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) == [
            ["plain", "n", "l,ist", "b"],
            ["a", "1", "[1]", base64.b64encode(b"\xff").decode()],
            ['say "hi", ok', "", "", ""],
            ["two\nlines", "3", "[]", ""],
            ["", "4", "[2,3]", "eA=="],
            ["", "5", "", "eQ=="],
        ]
        assert run(Parquet(), written(table), {"format": name, "header": False}).decode() == text.partition("\n")[2]
    assert '\n"",4,' in run(Parquet(), written(table), "csv").decode()  # an empty text is told from null


def test_arrow_holds_the_same_table(run: Run) -> None:
    table = PEOPLE.append_column("kind", pa.array(["x", "y"] * 500).dictionary_encode())
    expected = table.set_column(5, "kind", pa.array(["x", "y"] * 500))
    data = written(table, row_group_size=300)
    assert pa.ipc.open_stream(run(Parquet(), data, "arrow")).read_all().equals(expected)
    assert pa.ipc.open_file(run(Parquet(), data, "arrow_file")).read_all().equals(expected)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (["id", "==", 5], [5]),
        (["id", ">=", 998], [998, 999]),
        (["id", "<", 2], [0, 1]),
        (["id", "in", [7, 500, 5000]], [7, 500]),
        (["name", "not in", [f"name {i}" for i in range(1, 7)]], list(range(0, 1000, 7))),
        (["name", "!=", "name 0"], [i for i in range(1000) if i % 7]),
        (["born", "<=", "1970-01-02"], [0, 1]),
        (["score", "==", None], list(range(0, 1000, 3))),
        (["score", "!=", None], [i for i in range(1000) if i % 3]),
        (["score", "<", 1], [1, 2]),  # null is not less
        (["paid", "==", "9.99"], [999]),
        (["paid", ">", 9.97], [998, 999]),
    ],
    ids=str,
)
def test_rows_are_filtered(run: Run, condition: list[Any], expected: list[int]) -> None:
    made = run(Parquet(), DATA, {"filter": [condition], "columns": ["id"]})
    assert [json.loads(line)["id"] for line in made.splitlines()] == expected


def test_conditions_hold_together_and_columns_come_as_asked(run: Run) -> None:
    args = {"filter": [["id", ">", 500], ["name", "==", "name 3"]], "columns": ["name", "id"], "limit": 2}
    assert run(Parquet(), DATA, args) == b'{"name":"name 3","id":507}\n{"name":"name 3","id":514}\n'


@pytest.mark.parametrize("limit", [0, 1, 99, 100, 101, 5000])
def test_a_limit_is_kept(run: Run, limit: int) -> None:
    assert run(Parquet(), DATA, {"limit": limit}).count(b"\n") == min(limit, 1000)


def test_no_rows_are_no_error(run: Run) -> None:
    for data in (written(PEOPLE.slice(0, 0)), DATA):
        args = {"filter": [["id", "<", 0]], "columns": ["id"]}
        assert run(Parquet(), data, args) == b""
        assert json.loads(run(Parquet(), data, {**args, "format": "json"})) == []
        assert run(Parquet(), data, {**args, "format": "csv"}) == b"id\n"
        assert pa.ipc.open_stream(run(Parquet(), data, {**args, "format": "arrow"})).read_all().num_rows == 0


def test_row_groups_that_cannot_match_are_not_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    batch_rows = parquet_input._Source._batch_rows

    def noted(source: parquet_input._Source, group: int) -> int:
        read.append(group)
        return batch_rows(source, group)

    monkeypatch.setattr(parquet_input._Source, "_batch_rows", noted)
    run(Parquet(), DATA, {"filter": [["id", ">=", 850]]})
    assert read == [8, 9]


def test_only_the_columns_asked_for_are_read(run: Run) -> None:
    data = bytearray(DATA)
    chunk = pq.read_metadata(io.BytesIO(DATA)).row_group(0).column(1)
    start = chunk.dictionary_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    assert run(Parquet(), bytes(data), {"columns": ["id"], "limit": 1}) == b'{"id":0}\n'
    with pytest.raises(Reject, match="a damaged Parquet file"):
        run(Parquet(), bytes(data))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"PAR1", b"PAR1" * 3, b"a,b\n1,2\n" * 50, DATA[:-1], DATA[: len(DATA) // 2], DATA[8:]],
    ids=range(8),
)
def test_what_is_no_parquet_is_rejected(run: Run, data: bytes) -> None:
    with pytest.raises(Reject, match=r"not a readable Parquet file|a damaged Parquet file"):
        run(Parquet(), data)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"columns": ["nope"]}, "there is no column 'nope'; the object has id, name, born, score, paid"),
        ({"filter": [["nope", "==", 1]]}, "there is no column 'nope'"),
        ({"filter": [["id", "==", "x"]]}, "the filter on 'id': 'x' can't be compared with int64"),
        ({"filter": [["born", "<", "soon"]]}, "the filter on 'born': 'soon' can't be compared with date32"),
    ],
)
def test_what_does_not_fit_the_object_is_rejected(run: Run, args: object, message: str) -> None:
    with pytest.raises(Reject, match=message):
        run(Parquet(), DATA, args)


def test_a_column_of_bad_utf8_is_rejected(run: Run) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    with pytest.raises(Reject, match=r"a damaged Parquet file: .*[Uu][Tt][Ff]"):
        run(Parquet(), written(pa.table({"s": bad})))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("xml", "argument 'format'.*allowed: one of jsonl, json, csv, tsv, arrow, arrow_file"),
        ({"filter": [["id", "like", "x"]]}, "argument 'filter"),
        ({"filter": [["id", "in", 1]]}, "'in' and 1 don't go together"),
        ({"filter": [["id", "==", [1]]]}, "'==' and .* don't go together"),
        ({"filter": [["id", "<", None]]}, "nothing is '<' null"),
        ({"columns": []}, "argument 'columns'"),
        ({"limit": -1}, "argument 'limit'.*allowed: integer from 0"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Parquet(), args)


def test_a_filter_may_be_an_option() -> None:
    assert parse_args(Parquet(), None, {"filter": '[["a","<",1.5]]'}).filter == (("a", "<", 1.5),)  # type: ignore[attr-defined]


def pieces(data: bytes, folder: Path, args: object = None, deadline: float = float("inf")) -> Iterator[bytes]:
    path = folder / "object"
    path.write_bytes(data)
    context = Context(bucket="b", key="k", etl="parquet", args=parse_args(Parquet(), args), deadline=deadline)
    return stream(Parquet(), [], context, path=path, scratch=folder)


@pytest.mark.parametrize("name", ["jsonl", "arrow"])
def test_a_small_file_of_one_long_text_over_and_over_is_put_out_in_small_pieces(tmp_path: Path, name: str) -> None:
    """A hundred thousand rows of 2 MiB each, in a file of a few kilobytes."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int8()), pa.array(["x" * 2 * MIB]))
    data = written(pa.table({"s": long}), store_schema=False, compression="zstd")
    assert len(data) < 100_000
    before = pa.total_allocated_bytes()
    running = pieces(data, tmp_path, name)
    for _ in range(3):
        assert len(next(running)) < 32 * MIB
        assert pa.total_allocated_bytes() - before < 256 * MIB
    running.close()  # type: ignore[attr-defined]


def test_a_row_of_absurd_size_is_rejected_unread(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transom.plugins.builtin.arrow_output.ROW_SIZE_MAX", MIB)
    row = pa.ListArray.from_arrays(pa.array([0, 400_000], pa.int32()), pa.repeat(pa.scalar(1, pa.int8()), 400_000))
    with pytest.raises(Reject, match="its rows have about 3200000 bytes, more than 1048576"):
        run(Parquet(), written(pa.table({"l": row})))


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    count = 400_000
    table = pa.table({"a": pa.array(range(count)), "s": pa.array([f"this is row number {i}" for i in range(count)])})
    data = written(table, row_group_size=count)
    del table
    before = pa.total_allocated_bytes()
    most = 0
    lines = 0
    for piece in pieces(data, tmp_path):
        most = max(most, pa.total_allocated_bytes() - before)
        lines += piece.count(b"\n")
    assert lines == count
    assert most < 24 * MIB


def test_a_filter_that_nothing_passes_keeps_to_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        list(pieces(DATA, tmp_path, {"filter": [["score", "==", 0.1]]}, deadline=time.monotonic()))
