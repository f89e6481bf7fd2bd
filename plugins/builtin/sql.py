"""`sql`: a SELECT over a CSV, JSON or Parquet object, which is the table S3Object: what S3 Select did.

What it declares is here; the work is in `sql_query`, which is imported by the first run: DuckDB and Arrow are large.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from transom.plugins.builtin import tables
from transom.plugins.builtin.tables import TableFormat
from transom.plugins.contract import Context, Transformer

InputFormat = Literal["csv", "tsv", "json", "jsonl", "parquet"]


class SqlArgs(BaseModel):
    """Arguments of `sql`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(
        default="SELECT * FROM S3Object",
        min_length=1,
        max_length=32_768,
        description="One SELECT in DuckDB's SQL; the object is the table S3Object, and there is no other.",
        json_schema_extra={"first": True},
    )
    input: Literal["auto", InputFormat] = Field(
        default="auto",
        description="The object's format; json is an array, or objects one after the other. auto goes by the first "
        "bytes, the key's extension and the Content-Type. gzip and zstd are undone unasked.",
    )
    format: TableFormat = Field(default="jsonl", description=tables.EXPLAINED)
    header: bool = Field(
        default=True,
        description="For csv and tsv: the object's first line holds names, and so does the output's. Without, columns "
        "are called _1, _2 and so on.",
    )
    delimiter: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        pattern=r'^[^"\r\n\\]$',
        description="Between the values of a csv object.",
    )
    types: Literal["auto", "text"] = Field(
        default="auto", description="For csv and tsv: find out what each column holds, or take all as text."
    )


class Sql(Transformer):
    """Returns what a query selects from a CSV, JSON or Parquet object. It sees this object and nothing else."""

    name = "sql"
    Args = SqlArgs
    releases_gil = True
    isolated = True  # a query can ask for more memory than the database's own bound catches
    memory_limit = 2 * 1024**3

    def content_type(self, context: Context) -> str:
        """The output format's."""
        return tables.CONTENT_TYPES[context.args.format]

    def output_extension(self, context: Context) -> str | None:
        """The output format's."""
        return tables.EXTENSIONS[context.args.format]

    def transform_file(self, path: Path, context: Context) -> Iterator[bytes]:
        """Yield the selected rows. Raises Reject for a bad query or object, with DuckDB's reason."""
        from transom.plugins.builtin.sql_query import transformed

        return transformed(path, context)
