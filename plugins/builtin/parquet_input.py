"""Reads a Parquet file a few rows at a time: chosen columns, row groups whose statistics fit, rows that pass.

No more than a batch is held, whatever the row groups' size.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.types as kinds

from transom.plugins.builtin import arrow_output
from transom.plugins.builtin.clock import Clock
from transom.plugins.builtin.parquet import Condition, ParquetArgs
from transom.plugins.contract import Context, Reject

MIB = 1024 * 1024
_READ_SIZE = MIB  # of a column chunk at a time
_BATCH_SIZE = 8 * MIB
_VALUE_SIZE = 8  # of most types in memory; a list's equal values may take none in the file
_BATCH_ROWS_MAX = 64 * 1024
_BAD_INPUT = (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError)


def transformed(path: Path, context: Context) -> Iterator[bytes]:
    """Yield the rows that are asked for, in the format that is."""
    args: ParquetArgs = context.args
    clock = Clock(context)
    with pa.OSFile(str(path)) as file:
        with _refusing("not a readable Parquet file"):
            source = _Source(file, args)
        rows = _limited(source.batches(clock), args.limit)
        with _refusing("a damaged Parquet file"):
            yield from clock.over(arrow_output.written(rows, source.schema, args.format, header=args.header))


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except _BAD_INPUT as error:
        if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno):
            raise  # ours, and the disk's
        raise Reject(f"{what}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]


def _limited(batches: Iterator[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    if limit is None:
        yield from batches
        return
    while limit > 0 and (batch := next(batches, None)) is not None:
        yield batch.slice(0, limit)
        limit -= batch.num_rows


class _Source:
    """One file and what is wanted of it; `schema` is that of the output."""

    def __init__(self, file: pa.NativeFile, args: ParquetArgs) -> None:
        self._metadata = pq.read_metadata(file)
        whole = self._metadata.schema.to_arrow_schema()
        self._columns = list(whole.names if args.columns is None else args.columns)
        filtered = [column for column, _, _ in args.filter]
        _check_known([*self._columns, *filtered], whole)
        self._wanted = _expression(args.filter, whole)
        self._needed = list(dict.fromkeys([*self._columns, *filtered]))
        self._groups = self._groups_to_read(file, whole)
        self._texts = [name for name in self._needed if _is_text(whole.field(name).type)]
        self._file = self._opened(file)
        self._probe = self._opened(file, read_dictionary=self._texts)
        self.schema = pa.schema([whole.field(name) for name in self._columns])

    def _opened(self, file: pa.NativeFile, read_dictionary: Sequence[str] = ()) -> pq.ParquetFile:
        file.seek(0)
        return pq.ParquetFile(
            file,
            metadata=self._metadata,
            buffer_size=_READ_SIZE,
            pre_buffer=False,
            read_dictionary=list(read_dictionary),
        )

    def batches(self, clock: Clock) -> Iterator[pa.RecordBatch]:
        """Yield the rows that pass, a few at a time."""
        for group in self._groups:
            rows = self._batch_rows(group)
            for batch in self._file.iter_batches(rows, [group], self._needed, use_threads=False):
                clock.check()
                batch.validate(full=True)  # that offsets are in bounds, and texts UTF-8, isn't checked by the reading
                passed = batch if self._wanted is None else batch.filter(self._wanted)
                if passed.num_rows:
                    yield passed.select(self._columns)

    def _groups_to_read(self, file: pa.NativeFile, whole: pa.Schema) -> list[int]:
        """List the row groups whose statistics don't rule out that a row passes."""
        if self._wanted is None:
            return list(range(self._metadata.num_row_groups))
        fragment = ds.ParquetFileFormat().make_fragment(file)
        return [group.id for group in fragment.subset(self._wanted, schema=whole).row_groups]

    def _batch_rows(self, group: int) -> int:
        """Choose how many rows to read at once: by their average size, and by the longest text they may repeat."""
        about = self._metadata.row_group(group)
        chunks = [about.column(i) for i in range(about.num_columns)]
        needed = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in self._needed]
        size = sum(max(chunk.total_uncompressed_size, chunk.num_values * _VALUE_SIZE) for chunk in needed)
        average: int = size // max(about.num_rows, 1)
        if average > arrow_output.ROW_SIZE_MAX:
            raise Reject(f"its rows have about {average} bytes, more than {arrow_output.ROW_SIZE_MAX}")
        return max(1, min(_BATCH_ROWS_MAX, _BATCH_SIZE // max(average, self._longest(group), 1)))

    def _longest(self, group: int) -> int:
        """Return the length of the longest text in the columns' dictionaries.

        A row costs a few bits there, so a small file may ask for any amount of memory.
        """
        if not self._texts:
            return 0
        first = next(self._probe.iter_batches(1, [group], self._texts, use_threads=False), None)
        longest = 0
        for column in () if first is None else first.columns:
            longest = max(longest, pc.max(pc.binary_length(column.dictionary)).as_py() or 0)
        return longest


def _is_text(kind: pa.DataType) -> bool:
    tests = (kinds.is_string, kinds.is_binary, kinds.is_large_string, kinds.is_large_binary)
    return any(test(kind) for test in tests)


def _check_known(columns: list[str], whole: pa.Schema) -> None:
    for column in columns:
        if whole.names.count(column) != 1:
            known = ", ".join(whole.names)[:200]
            reason = "there is no column" if column not in whole.names else "there is more than one column"
            raise Reject(f"{reason} '{column[:100]}'; the object has {known}")


def _expression(conditions: Sequence[Condition], whole: pa.Schema) -> pc.Expression | None:
    parts = [_condition(whole.field(column), operator, value) for column, operator, value in conditions]
    return reduce(operators.and_, parts) if parts else None


_COMPARE = {
    "==": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def _condition(field: pa.Field, operator: str, value: Any) -> pc.Expression:
    column = pc.field(field.name)
    if value is None:
        return column.is_null() if operator == "==" else column.is_valid()
    if isinstance(value, tuple):
        among = column.isin([_scalar(each, field) for each in value])
        return among if operator == "in" else ~among & column.is_valid()
    return _COMPARE[operator](column, _scalar(value, field))


def _scalar(value: Any, field: pa.Field) -> pa.Scalar:
    """Turn a value of the filter into the column's type."""
    kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
    try:
        return pa.scalar(str(value) if kinds.is_decimal(kind) else value).cast(kind)
    except (pa.ArrowException, OverflowError) as error:
        raise Reject(f"the filter on '{field.name}': {value!r} can't be compared with {kind}") from error
