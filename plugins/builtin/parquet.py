"""`parquet`: rows and columns of a Parquet object as JSON, CSV or Arrow.

What it declares is here; the reading is in `parquet_input`, which is imported by the first run: Arrow is large.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from transom.plugins.builtin import tables
from transom.plugins.contract import Context, Transformer

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
Scalar = bool | int | float | str | None
Condition = tuple[str, Operator, Scalar | tuple[Scalar, ...]]


class ParquetArgs(BaseModel):
    """Arguments of `parquet`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["jsonl", "json", "csv", "tsv", "arrow", "arrow_file"] = Field(
        default="jsonl", description=tables.EXPLAINED, json_schema_extra={"first": True}
    )
    columns: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="The columns to put out, in this order; by default all.",
    )
    filter: tuple[Condition, ...] = Field(
        default=(),
        max_length=100,
        description='Keep rows for which all conditions hold, each [column, operator, value]: [["age", ">=", 18], '
        '["name", "in", ["a", "b"]]]. Operators are ==, !=, <, <=, >, >=, in, not in; null fits == and != only. '
        "Dates, times and decimals are written as strings.",
    )
    limit: int | None = Field(default=None, ge=0, description="Put out so many rows at the most.")
    header: bool = Field(default=True, description="For csv and tsv: begin with the columns' names.")

    @model_validator(mode="after")
    def _conditions_make_sense(self) -> ParquetArgs:
        for column, operator, value in self.filter:
            if isinstance(value, tuple) != (operator in ("in", "not in")):
                raise ValueError(f"the filter on '{column}': '{operator}' and {value!r} don't go together")
            if value is None and operator not in ("==", "!="):
                raise ValueError(f"the filter on '{column}': nothing is '{operator}' null")
        return self


class Parquet(Transformer):
    """Returns rows of a Parquet object in another format; reads only the columns and row groups it needs."""

    name = "parquet"
    Args = ParquetArgs
    releases_gil = True

    def content_type(self, context: Context) -> str:
        """The format's."""
        return tables.CONTENT_TYPES[context.args.format]

    def output_extension(self, context: Context) -> str | None:
        """The format's."""
        return tables.EXTENSIONS[context.args.format]

    def transform_file(self, path: Path, context: Context) -> Iterator[bytes]:
        """Yield the output row group by row group. Raises Reject for what isn't Parquet or has no such columns."""
        from transom.plugins.builtin.parquet_input import transformed

        return transformed(path, context)
