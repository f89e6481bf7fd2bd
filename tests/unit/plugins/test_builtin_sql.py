"""sql gives what DuckDB itself gives, over this object only: nothing else can be read, and every query is bounded."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd  # type: ignore[import-not-found,unused-ignore]

from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin.sql import Sql
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

CSV = b'name,age,city\nann,31,Berlin\nbob,25,"Paris, TX"\n"c ""d""",,\n'
JSONL = b'{"name":"ann","tags":["a","b"],"at":{"x":1}}\n{"name":"bob","extra":true}\n'


def rows(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def parquet(table: pa.Table) -> bytes:
    output = io.BytesIO()
    pq.write_table(table, output)
    return output.getvalue()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT s.name FROM S3Object s WHERE s.age > 30", [{"name": "ann"}]),
        ("select count(*) n, sum(age) s from s3object", [{"n": 3, "s": 56}]),
        ("SELECT s.* FROM S3Object AS s LIMIT 1", [{"name": "ann", "age": 31, "city": "Berlin"}]),
        ("with old as (select * from s3object where age > 30) select name from old;", [{"name": "ann"}]),
        ("select a.name x, b.name y from s3object a join s3object b on a.age > b.age", [{"x": "ann", "y": "bob"}]),
        ("select name from s3object where age is null", [{"name": 'c "d"'}]),
        ("select unnest(['a', 'b']) u", [{"u": "a"}, {"u": "b"}]),
        ("select range n from range(2)", [{"n": 0}, {"n": 1}]),
        ("select version from (select age as version from s3object limit 1)", [{"version": 31}]),
        ("select max(age) over () m, row_number() over (order by age) r from s3object limit 1", [{"m": 31, "r": 1}]),
        ("-- a comment\nfrom S3Object select lower(city) c where city like 'P%'", [{"c": "paris, tx"}]),
    ],
)
def test_a_query_selects(run: Run, query: str, expected: list[Any]) -> None:
    assert rows(run(Sql(), CSV, query)) == expected


def test_everything_is_selected_unasked(run: Run) -> None:
    assert list(csv.DictReader(io.StringIO(run(Sql(), CSV, {"format": "csv"}).decode()))) == list(
        csv.DictReader(io.StringIO(CSV.decode()))
    )


@pytest.mark.parametrize(
    ("data", "how"),
    [
        (CSV, {}),
        (CSV, {"key": "a/t.csv"}),
        (CSV, {"content_type": "text/csv; charset=utf-8"}),
        (gzip.compress(CSV, mtime=0), {}),
        (gzip.compress(CSV, mtime=0), {"key": "t.CSV.GZ"}),
        (zstd.compress(CSV), {"key": "t.csv.zst"}),
        (CSV.replace(b"\n", b"\r\n"), {}),
        (CSV.replace(b'"Paris, TX"', b"Paris").replace(b",", b"\t"), {"key": "t.tsv"}),
        (CSV.replace(b'"Paris, TX"', b"Paris").replace(b",", b";"), {"args": {"delimiter": ";"}}),
        (b'[{"name":"ann","age":31},{"name":"bob","age":25}]', {}),
        (b'{"name":"ann","age":31}\n{"name":"bob","age":25}\n', {}),
        (b'{"name":"ann",\n"age":31}\n', {"key": "t.json"}),
        (gzip.compress(b'{"name":"ann","age":31}\n', mtime=0), {}),
        (gzip.compress(b'{"name":"ann","age":31}\n', mtime=0), {"content_type": "application/x-ndjson"}),
        (parquet(pa.table({"name": ["ann", "bob"], "age": [31, 25]})), {}),
        (parquet(pa.table({"name": ["ann"], "age": [31]})), {"key": "misnamed.csv"}),
        (parquet(pa.table({"name": ["ann"], "age": [31]})), {"args": {"input": "parquet"}}),
    ],
    ids=range(17),
)
def test_the_format_is_found_out(run: Run, data: bytes, how: dict[str, Any]) -> None:
    args = {"query": "select name, age from S3Object where age > 30", **how.get("args", {})}
    told = {name: value for name, value in how.items() if name != "args"}
    assert rows(run(Sql(), data, args, **told)) == [{"name": "ann", "age": 31}]


def test_a_table_without_names_has_numbers(run: Run) -> None:
    args = {"query": "select _1, s._3 from S3Object s where _2 < 30", "header": False, "format": "csv"}
    assert run(Sql(), CSV.partition(b"\n")[2], args) == b'bob,"Paris, TX"\n'


def test_values_may_be_left_as_text(run: Run) -> None:
    data = b"id,day\n007,2024-01-02\n10,2024-01-03\n"
    assert rows(run(Sql(), data, {"types": "text"})) == [
        {"id": "007", "day": "2024-01-02"},
        {"id": "10", "day": "2024-01-03"},
    ]


def test_no_line_is_left_out_to_make_the_table_fit(run: Run) -> None:
    with pytest.raises(Reject, match='Error when sniffing file "the object"'):
        run(Sql(), b"hello world\nthis is, text\n")


def test_json_keeps_what_only_late_objects_have(run: Run) -> None:
    lines = [b'{"a":%d}\n' % i for i in range(30_000)] + [b'{"a":"text","b":[1,{"c":null}]}\n']
    made = run(Sql(), b"".join(lines), "select a, b from S3Object where b is not null or a::varchar = '7'")
    assert rows(made) == [{"a": 7, "b": None}, {"a": "text", "b": [1, {"c": None}]}]


def test_json_keeps_keys_that_differ_in_case_only(run: Run) -> None:
    assert rows(run(Sql(), b'{"a":1}\n{"A":2}\n')) == [{"a": 1, "A_1": None}, {"a": None, "A_1": 2}]


def test_nested_values_stay_nested(run: Run) -> None:
    assert rows(run(Sql(), JSONL)) == [
        {"name": "ann", "tags": ["a", "b"], "at": {"x": 1}, "extra": None},
        {"name": "bob", "tags": None, "at": None, "extra": True},
    ]


@pytest.mark.parametrize("name", ["arrow", "arrow_file", "parquet", "json", "tsv"])
def test_every_format_holds_what_duckdb_gives(run: Run, name: str) -> None:
    query = "select age, name, age * 1.5 as more, [age] as l from S3Object order by age desc nulls last"
    made = run(Sql(), CSV, {"query": query, "format": name})
    own = duckdb.connect()
    own.execute("create table S3Object (name varchar, age bigint)")
    own.execute("insert into S3Object values ('ann', 31), ('bob', 25), ('c \"d\"', null)")
    expected = own.execute(query).fetchall()
    if name in ("json", "tsv"):
        read = json.loads(made) if name == "json" else list(csv.DictReader(io.StringIO(made.decode()), delimiter="\t"))
        assert [row["name"] for row in read] == [row[1] for row in expected]
    else:
        readers = {"arrow": pa.ipc.open_stream, "arrow_file": pa.ipc.open_file}
        table = readers[name](made).read_all() if name in readers else pq.read_table(io.BytesIO(made))
        assert [tuple(row.values()) for row in table.to_pylist()] == expected


def test_rare_types_have_their_json(run: Run) -> None:
    query = """select '{"a": 1}'::json j, 1::hugeint h, interval '1 month 2 days 3.5 seconds' i, 'x'::blob b,
        timestamptz '2024-01-01 02:00:00+02' z, map {'k': 1} m, 1.50::decimal(4, 2) d, 'nan'::double n,
        'a'::enum('a', 'b') e, uuid() is not null u"""
    assert rows(run(Sql(), CSV, query)) == [
        {
            "j": {"a": 1}, "h": 1, "i": "P1M2DT3.5S", "b": "eA==", "z": "2024-01-01T00:00:00.000000Z",
            "m": {"k": 1}, "d": 1.5, "n": None, "e": "a", "u": True,
        }
    ]  # fmt: skip


def test_random_numbers_are_the_same_every_time(run: Run) -> None:
    data = b"n\n" + b"".join(b"%d\n" % i for i in range(5000))
    query = "select n, random() r, uuid() u from S3Object using sample 3"
    assert run(Sql(), data, query) == run(Sql(), data, query)
    assert run(Sql(), data, "select n % 7 m, count(*) c from S3Object group by m") == run(
        Sql(), data, "select n % 7 m, count(*) c from S3Object group by m"
    )


REFUSED = [
    "select * from read_csv('{path}')",
    "select * from read_csv(['{path}'])",
    "select * from '{path}'",
    'select * from "{path}"',
    "select * from read_text('{path}')",
    "select * from read_blob('/proc/self/environ')",
    "select * from read_json('{path}')",
    "select * from read_parquet('{path}')",
    "select * from parquet_metadata('{path}')",
    "select * from sniff_csv('{path}')",
    "select * from glob('{folder}/*')",
    "select * from query('select * from read_text(''{path}'')')",
    "select * from query_table('{path}')",
    "select * from (select * from (select * from read_text('{path}')))",
    "with x as (select * from read_text('{path}')) select * from x",
    "select (select content from read_text('{path}'))",
    "select * from S3Object where name in (select content from read_text('{path}'))",
    "select exists(from read_text('{path}'))",
    "select * from S3Object, lateral (select * from read_text('{path}'))",
    "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "select json_deserialize_sql(json_serialize_sql('select 1')); select 1",
    "copy S3Object to '{folder}/out'",
    "copy (select 1) to '{folder}/out'",
    "attach '{folder}/out.db'",
    "create table t as select 1",
    "insert into S3Object values (1)",
    "drop view S3Object",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset lock_configuration",
    "pragma database_list",
    "call pragma_version()",
    "export database '{folder}/out'",
    "import database '{folder}'",
    "checkpoint",
    "begin",
    "explain analyze select 1",
    "prepare p as select 1",
    "select 1; select 2",
    "select getenv('HOME')",
    "select current_setting('temp_directory')",
    "select * from duckdb_settings()",
    "from duckdb_settings",
    "with duckdb_settings as (select 1) select * from duckdb_settings",
    "select * from duckdb_secrets()",
    "select * from information_schema.tables",
    "select * from pg_catalog.pg_settings",
    "select * from main.S3Object",
    "select getvariable('x')",
    "select version()",
    "select sleep_ms(10000)",
    "select now()",
    "select current_timestamp",
    "select current_date",
    "select today()",
    "select age(timestamp '2020-01-01')",
    "select uuidv7()",
    "select nextval('s')",
    "select $1",
]


@pytest.mark.parametrize("query", REFUSED)
def test_nothing_but_the_object_can_be_read(run: Run, tmp_path: Path, query: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nsecret,1\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Reject) as refusal:
        run(Sql(), CSV, query.format(path=secret, folder=tmp_path))
    assert "secret,1" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("query", [query for query in REFUSED if "{path}" in query or "{folder}" in query])
def test_the_database_is_locked_down_besides(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """Were a query to slip through the checks, the database itself would refuse."""
    monkeypatch.setattr("transom.plugins.builtin.sql_guard.check", lambda *_: None)
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nsecret,1\n")
    try:
        made = run(Sql(), CSV, query.format(path=secret, folder=tmp_path))
    except (Reject, AttributeError):  # the latter: a statement that gives no rows
        made = b""
    assert b"secret" not in made.replace(b"secret.csv", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]


def test_variables_of_the_program_are_no_tables(run: Run) -> None:
    people = pa.table({"a": [1]})
    with pytest.raises(Reject, match="there is no table 'people'"):
        run(Sql(), CSV, "select * from people")
    assert people.num_rows == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select", "Parser Error"),
        ("selec * from S3Object", "Parser Error"),
        ("select nope from S3Object", 'Referenced column "nope" not found'),
        ("select * from elsewhere", "there is no table 'elsewhere'; the object is the table S3Object"),
        ("select name + 1 from S3Object", "Binder Error|Conversion Error"),
        ("select cast(name as integer) from S3Object", "Conversion Error"),
        ("select name, name from S3Object", "two columns are called 'name'"),
        ("drop view S3Object", "the query is no SELECT, it is DROP"),
        ("select 1; select 2", "the query has 2 statements; it must be one SELECT"),
    ],
)
def test_a_bad_query_is_rejected_with_the_reason(run: Run, query: str, message: str) -> None:
    with pytest.raises(Reject, match=message) as refusal:
        run(Sql(), CSV, query)
    assert "/proc/" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "args", "message"),
    [
        (b"", None, "the object is empty"),
        (b"a,b\n1,2\n1,2,3\n", None, "Error when sniffing file"),
        (bytes(range(256)) * 9, None, "Error when sniffing file"),
        (b'{"a":1}\n{"a":', {"input": "jsonl"}, "Malformed JSON"),
        (b"PAR1 but no more of it", None, "the object"),
        (CSV, {"input": "parquet"}, "the object|Parquet"),
        (gzip.compress(CSV, mtime=0)[:-20], {"input": "csv"}, "."),
        (b"BZh91AY&SY", None, "put 'decompress' before 'sql'"),
    ],
)
def test_a_bad_object_is_rejected(run: Run, data: bytes, args: object, message: str) -> None:
    with pytest.raises(Reject, match=message) as refusal:
        run(Sql(), data, args)
    assert "/proc/" not in str(refusal.value)


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from range(100000000) a, range(100000000) b",
        "select a.range from range(100000000) a, range(100000000) b where a.range * b.range = -1",
        "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t",
    ],
)
def test_an_endless_query_is_interrupted_at_the_deadline(run: Run, query: str) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        run(Sql(), CSV, query, deadline=begin + 0.3)
    assert time.monotonic() - begin < 5


def test_a_query_of_too_much_memory_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match="the query needs more than 512MB of memory"):
        run(Sql(), CSV, "select length(list(range)) from range(200000000)")


def test_a_large_result_streams(tmp_path: Path) -> None:
    path = tmp_path / "object.csv"
    path.write_bytes(CSV)
    args = parse_args(Sql(), "select range n, 'number ' || range t from range(3000000)")
    running: Any = Sql().transform_file(path, Context(bucket="b", key="k", etl="sql", args=args))
    begin = time.monotonic()
    assert next(running).startswith(b'{"n":0,"t":"number 0"}\n')
    assert time.monotonic() - begin < 1
    running.close()
    assert [each.name for each in tmp_path.iterdir()] == ["object.csv"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "argument 'query'"),
        ({"input": "xml"}, "argument 'input'.*allowed: .*csv"),
        ({"delimiter": '"'}, "argument 'delimiter'"),
        ({"delimiter": "ab"}, "argument 'delimiter'"),
        ({"format": "xml"}, "argument 'format'.*allowed: one of jsonl"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Sql(), args)
