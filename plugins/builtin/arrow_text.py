"""Writes Arrow's record batches as JSON and CSV text, column by column in Arrow's own kernels.

What a value looks like is decided here: numbers with all their digits (decimals and 64-bit integers too), NaN and
infinities null in JSON, dates and times as in ISO 8601 (with Z where they have a time zone), bytes in base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

_CONTROLS = [chr(code) for code in range(0x20)]


def json_rows(batch: pa.RecordBatch, *, before: str = "", after: str = "\n") -> bytes:
    """Return an object for each row, with `before` and `after` around every one."""
    fields = [(name, _json(column)) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return _joined_bytes(_object_parts(fields, before + "{", "}" + after), batch.num_rows)


def csv_rows(batch: pa.RecordBatch, separator: str) -> bytes:
    """Return a line for each row; null is empty, an empty text is a pair of quotes."""
    parts: list[Any] = []
    for column in batch.columns:
        parts += [separator if parts else "", _cell(column, separator)]
    return _joined_bytes([*parts, "\n"], batch.num_rows)


def csv_header(names: Sequence[str], separator: str) -> bytes:
    """Return the line of names."""
    return (separator.join(_cell(pa.array(names, pa.string()), separator).to_pylist()) + "\n").encode()


def _joined_bytes(parts: Sequence[Any], rows: int) -> bytes:
    """Join parts, texts and columns of them, row by row, and return all rows' bytes."""
    lines = _glued(parts, rows)
    offsets, values = lines.buffers()[1:]
    bounds = memoryview(offsets).cast("i")
    start, end = bounds[lines.offset], bounds[lines.offset + rows]
    return bytes(memoryview(values)[start:end]) if values is not None else b""


def _glued(parts: Sequence[Any], rows: int) -> pa.StringArray:
    columns = [part for part in parts if isinstance(part, pa.Array)]
    if not columns:
        return pa.array(["".join(parts)] * rows, pa.string())
    return pc.binary_join_element_wise(*parts, "")


def _object_parts(fields: Sequence[tuple[str, pa.StringArray]], opening: str, closing: str) -> list[Any]:
    parts: list[Any] = []
    for name, values in fields:
        parts += [f"{',' if parts else opening}{json.dumps(name, ensure_ascii=False)}:", values]
    return [*parts, closing] if parts else [opening + closing]


def _json(column: pa.Array) -> pa.StringArray:
    """Return each value as JSON; none of the results is null."""
    return pc.fill_null(_json_or_null(column), "null")


def _json_or_null(column: pa.Array) -> pa.StringArray:
    if isinstance(column, pa.ExtensionArray):
        return _extension(column)
    for is_kind, written in _WRITERS:
        if is_kind(column.type):
            return written(column)
    text = _text(column)
    if text is None:
        return _one_by_one(column)
    return pc.binary_join_element_wise('"', text, '"', "") if _is_quoted(column.type) else text


def _is_quoted(kind: pa.DataType) -> bool:
    return _is_bytes(kind) or (kinds.is_temporal(kind) and not kinds.is_duration(kind))


def _dictionary(column: pa.DictionaryArray) -> pa.StringArray:
    if len(column.dictionary) > len(column):  # most of it isn't used here
        return _json(column.dictionary_decode())
    return _json(column.dictionary).take(column.indices)


def _float(column: pa.Array) -> pa.StringArray:
    return pc.if_else(pc.is_finite(column), column.cast(pa.string()), None)


def _string(column: pa.Array) -> pa.StringArray:
    return pc.binary_join_element_wise('"', _escaped(column.cast(pa.string())), '"', "")


def _text(column: pa.Array) -> pa.StringArray | None:
    """Return each value of a plain type as text, null where it is null; None for a type that isn't plain."""
    kind = column.type
    if kinds.is_timestamp(kind):
        zone = "Z" if kind.tz else ""
        # Seen as numbers, a zone's instants are in UTC, and no database of zones is asked.
        text = column.view(pa.int64()).view(pa.timestamp(kind.unit)).cast(pa.string())
        return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T", max_replacements=1), zone, "")
    if kinds.is_duration(kind):
        return column.view(pa.int64()).cast(pa.string())
    if _is_bytes(kind):
        encoded = [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
        return pa.array(encoded, pa.string())
    plain = (
        kinds.is_null, kinds.is_boolean, kinds.is_integer, kinds.is_floating, kinds.is_decimal, _is_string,
        kinds.is_date, kinds.is_time,
    )  # fmt: skip
    return column.cast(pa.string()) if any(test(kind) for test in plain) else None


def _is_string(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (kinds.is_string, kinds.is_large_string, kinds.is_string_view))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (kinds.is_binary, kinds.is_large_binary, kinds.is_fixed_size_binary, kinds.is_binary_view)
    return any(test(kind) for test in tests)


def _escaped(text: pa.StringArray) -> pa.StringArray:
    text = pc.replace_substring(text, "\\", "\\\\")
    text = pc.replace_substring(text, '"', '\\"')
    if pc.any(pc.match_substring_regex(text, r"[\x00-\x1f]")).as_py():
        for control in _CONTROLS:
            text = pc.replace_substring(text, control, json.dumps(control)[1:-1])
    return text


def _struct(column: pa.StructArray) -> pa.StringArray:
    fields = [(column.type.field(i).name, _json(column.field(i))) for i in range(column.type.num_fields)]
    return pc.if_else(column.is_valid(), _glued(_object_parts(fields, "{", "}"), len(column)), None)


def _list(column: pa.Array) -> pa.StringArray:
    inside = _regrouped(_json(column.flatten()), pc.list_value_length(column))
    return pc.binary_join_element_wise("[", pc.binary_join(inside, ","), "]", "")


def _map(column: pa.MapArray) -> pa.StringArray:
    entries = column.cast(pa.list_(pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])))
    flat = entries.flatten()
    keys = _json(flat.field(0))
    quoted = pc.binary_join_element_wise('"', _escaped(keys), '"', "")
    keys = pc.if_else(pc.starts_with(keys, '"'), keys, quoted)
    pairs = pc.binary_join_element_wise(keys, _json(flat.field(1)), ":")
    inside = _regrouped(pairs, pc.list_value_length(entries))
    return pc.binary_join_element_wise("{", pc.binary_join(inside, ","), "}", "")


def _regrouped(values: pa.StringArray, lengths: pa.Array) -> pa.ListArray:
    """Group the values of a flattened list again; a null list stays null."""
    ends = pc.cumulative_sum(pc.fill_null(lengths, 0).cast(pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, values, mask=lengths.is_null())


def _extension(column: pa.ExtensionArray) -> pa.StringArray:
    if column.type.extension_name == "arrow.json":
        return pa.array([_reread(value) for value in column.storage.to_pylist()], pa.string())
    return _json_or_null(_storage(column))


def _storage(column: pa.ExtensionArray) -> pa.Array:
    """Return what a column of an extension type holds, in a type that Arrow has itself."""
    if column.type.extension_name == "arrow.uuid":
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    return column.storage


def _reread(text: str | None) -> str | None:
    """Return JSON on one line; what only claims to be JSON becomes a string."""
    if text is None:
        return None
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.dumps(text).decode()
    return text.replace("\r", " ").replace("\n", " ")  # as they are, they stand only between values


def _one_by_one(column: pa.Array) -> pa.StringArray:
    """Write values of the rare types (unions, views of lists, intervals) by way of Python."""
    return pa.array([orjson.dumps(value, default=_rare).decode() for value in column.to_pylist()], pa.string())


def _rare(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{(Decimal(value.nanoseconds) / 10**9).normalize():f}S"
    return str(value)


_WRITERS: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.StringArray]]] = [
    (kinds.is_dictionary, _dictionary),
    (kinds.is_floating, _float),
    (kinds.is_struct, _struct),
    (kinds.is_map, _map),
    (kinds.is_list, _list),
    (kinds.is_large_list, _list),
    (kinds.is_fixed_size_list, _list),
    (_is_string, _string),
]


def _cell(column: pa.Array, separator: str) -> pa.StringArray:
    if isinstance(column, pa.ExtensionArray):
        column = _storage(column)
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pc.fill_null(_cell_or_null(column, separator), "")


def _cell_or_null(column: pa.Array, separator: str) -> pa.StringArray:
    text = _text(column)
    if text is None:
        text = pc.if_else(column.is_valid(), _json(column), None)
    elif not (_is_string(column.type) or _is_bytes(column.type)):
        return text  # nothing in a number or a date needs quotes
    special = pc.or_(pc.match_substring_regex(text, f'["{separator}\r\n]'), pc.equal(text, ""))
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(special, quoted, text)
