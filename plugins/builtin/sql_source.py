"""What kind of table an object is, and the expression by which DuckDB reads it; it runs no query."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from transom.plugins.builtin.compress import algorithm_of
from transom.plugins.builtin.sql import InputFormat, SqlArgs
from transom.plugins.contract import Context, Reject

Compression = Literal["none", "gzip", "zstd"]

_HEAD_SIZE = 4096
_NUMBERED = re.compile(r"(.*)_\d+")
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_PARQUET_MAGIC = b"PAR1"
_EXTENSIONS: dict[str, InputFormat] = {
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
}
_CONTENT_TYPES: dict[str, InputFormat] = {
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/vnd.apache.parquet": "parquet",
}
_COMPRESSED = ("gz", "gzip", "zst", "zstd")


def compression_of(head: bytes) -> Compression:
    """Name what the object is compressed with. Raises Reject for what DuckDB doesn't undo."""
    algorithm = algorithm_of(head)
    if algorithm == "bz2":
        raise Reject("the object is compressed with bz2: put 'decompress' before 'sql'")
    return algorithm or "none"


def input_format(head: bytes, compression: Compression, context: Context) -> InputFormat:
    """Name the object's format: the one asked for, or what its beginning, its key and its Content-Type say."""
    args: SqlArgs = context.args
    if args.input != "auto":
        return args.input
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    suffixes = [suffix.lower().removeprefix(".") for suffix in PurePosixPath(context.key).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    content_type = context.content_type.partition(";")[0].strip().lower()
    told = _EXTENSIONS.get(suffixes[-1] if suffixes else "") or _CONTENT_TYPES.get(content_type)
    return told or _guessed(head, compression)


def _guessed(head: bytes, compression: Compression) -> InputFormat:
    if compression == "gzip":
        try:
            head = zlib.decompressobj(_GZIP_WBITS).decompress(head, _HEAD_SIZE)
        except zlib.error as error:
            raise Reject(f"the gzip data is corrupt: {error}") from error
    return "json" if head.lstrip().startswith((b"{", b"[")) else "csv"


def head_of(file: BinaryIO) -> bytes:
    """Return the object's first bytes."""
    file.seek(0)
    return file.read(_HEAD_SIZE)


def reading(
    kind: InputFormat, path: str, compression: Compression, args: SqlArgs, columns: Mapping[str, str] | None = None
) -> str:
    """Return the table function that reads the object; with the types of `columns`, known from before, for json."""
    if kind == "parquet":
        return f"read_parquet({_quoted(path)})"
    if kind in ("csv", "tsv"):
        delimiter = "\t" if kind == "tsv" else args.delimiter
        # All that DuckDB would find out for itself is set, but the types: it would leave out lines to find a dialect.
        options = {
            "compression": _quoted(compression),
            "delim": _quoted(delimiter),
            "quote": "'\"'",
            "escape": "'\"'",
            "comment": "''",
            "skip": "0",
            "header": str(args.header).lower(),
            "all_varchar": str(args.types == "text").lower(),
        }
        return f"read_csv({_quoted(path)}, {_listed(options)})"
    options = {
        "compression": _quoted(compression),
        "format": "'newline_delimited'" if kind == "jsonl" else "'auto'",
        # Objects are rows of one type, even those whose keys are few or rare.
        "map_inference_threshold": "-1",
        "field_appearance_threshold": "0",
    }
    if columns is None:
        options["sample_size"] = "-1"  # a key that only later objects have would be dropped without a word
    else:
        options["columns"] = "{" + ", ".join(f"{_quoted(name)}: {_quoted(columns[name])}" for name in columns) + "}"
    return f"read_json({_quoted(path)}, {_listed(options)})"


def as_found(names: Iterable[str]) -> bool:
    """Tell whether the names are surely the objects' keys: of keys alike but for their case, one is given a number."""
    seen = {name.lower() for name in names}
    return not any(_NUMBERED.fullmatch(name) and _NUMBERED.sub(r"\1", name) in seen for name in seen)


def _listed(options: dict[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in options.items())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
