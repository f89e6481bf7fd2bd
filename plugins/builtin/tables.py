"""What tables are written as: the formats' names, Content-Types and extensions. It needs no library."""

from __future__ import annotations

from typing import Literal

TableFormat = Literal["jsonl", "json", "csv", "tsv", "arrow", "arrow_file", "parquet"]

CONTENT_TYPES: dict[TableFormat, str] = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "arrow_file": "application/vnd.apache.arrow.file",
    "parquet": "application/vnd.apache.parquet",
}
EXTENSIONS: dict[TableFormat, str] = {
    "jsonl": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "tsv",
    "arrow": "arrows",
    "arrow_file": "arrow",
    "parquet": "parquet",
}
EXPLAINED = (
    "jsonl: an object a line; json: an array of objects; csv, tsv: a line of names, then values; arrow: Arrow's IPC "
    "stream; arrow_file: its file format."
)
