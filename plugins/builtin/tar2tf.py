"""`tar2tf`: a WebDataset shard as a TFRecord file, one tf.train.Example for each record.

Features come from a record's members by their extensions. Streamed: one record is in memory at a time.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from transom.plugins.builtin import tar_stream
from transom.plugins.builtin.shard import (
    MAX_RATIO,
    MAX_UNPACKED,
    MaxRatio,
    MaxUnpacked,
    Name,
    Names,
    members,
    record_name,
)
from transom.plugins.builtin.tar_stream import Member, shown
from transom.plugins.builtin.tfexample import Feature, example, record
from transom.plugins.contract import Context, Reject, Transformer

MIB = 1024 * 1024
_DEPTH_MAX = 8  # of nested JSON objects that become features; deeper ones stay JSON

Type = Literal["bytes", "int", "float", "json", "pixels"]


class Tar2TfArgs(BaseModel):
    """Arguments of `tar2tf`; extensions are what follows the first dot of a member's file name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: Names = Field(default=(), description="Extensions to take; none is all.", json_schema_extra={"first": True})
    types: dict[Name, Type] = Field(
        default={"cls": "int"},
        description="How to read members, by extension. bytes: as they are, the default; int and float: numbers in a "
        "text, apart by blanks or commas; json: a number, a text or a list of them, and an object as one feature for "
        "each key (NAME/KEY); pixels: an image as bytes of height x width x channels, these three in NAME/shape.",
    )
    rename: dict[Name, Names] = Field(
        default={}, description='Features to make of extensions: {"image": ["jpg", "png"], "label": "cls"}.'
    )
    key: Name | None = Field(default="__key__", description="Feature for the record's key; null for none.")
    max_pixels: int = Field(default=64_000_000, ge=1, le=89_478_485, description="Most pixels of an image.")
    max_record: int = Field(default=256 * MIB, gt=0, le=2**31 - 1, description="Most bytes of a record's members.")
    max_unpacked: MaxUnpacked = MAX_UNPACKED
    max_ratio: MaxRatio = MAX_RATIO

    @field_validator("types")
    @classmethod
    def _pixels_can_be_read(cls, types: dict[str, Type]) -> dict[str, Type]:
        if "pixels" in types.values() and importlib.util.find_spec("PIL") is None:
            raise ValueError("pixels needs Pillow: pip install 'transom[image]'")
        return {extension.lower(): kind for extension, kind in types.items()}

    @field_validator("select")
    @classmethod
    def _select_in_lower_case(cls, select: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(extension.lower() for extension in select)

    @model_validator(mode="after")
    def _one_name_for_an_extension(self) -> Tar2TfArgs:
        extensions = [extension.lower() for names in self.rename.values() for extension in names]
        twice = {extension for extension in extensions if extensions.count(extension) > 1}
        if twice:
            raise ValueError(f"the extension {min(twice)!r} is renamed twice")
        return self


class Tar2Tf(Transformer):
    """Returns a WebDataset shard as a TFRecord file of tf.train.Example messages, one for each record.

    A record is the members in a row that share a name up to the first dot; a feature is named after what follows it.
    Shards packed with gzip, bz2 or zstd are read too. Only files are taken, and only those that belong to a record.
    """

    name = "tar2tf"
    Args = Tar2TfArgs
    extension = "tfrecord"

    def content_type(self, context: Context) -> str:
        """TFRecord has no registered type; TensorFlow's tools go by the extension."""
        return "application/x-tfrecord"

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Encode record by record. Raises Reject for what is no tar, and for members that aren't what `types` says."""
        args: Tar2TfArgs = context.args
        names = {extension.lower(): name for name, extensions in args.rename.items() for extension in extensions}
        found, _ = members(chunks, max_unpacked=args.max_unpacked, max_ratio=args.max_ratio)
        return tar_stream.gathered(_encoded(key, parts, args, names) for key, parts in _records(found, args))


def _records(found: Iterator[Member], args: Tar2TfArgs) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield each record's key and its members' data by extension; one with none that is selected is left out."""
    current, parts, size = "", dict[str, bytes](), 0
    for member in found:
        split = record_name(member.name) if member.is_file else None
        if split is None:
            continue
        key, extension = split
        if key != current:
            if parts:
                yield current, parts
            current, parts, size = key, {}, 0
        if args.select and extension not in args.select:
            continue
        if extension in parts:
            raise Reject(f"record {shown(key)} has two members with the extension {extension!r}")
        size += member.size
        if size > args.max_record:
            raise Reject(f"record {shown(key)} has more than {args.max_record} bytes (max_record)")
        parts[extension] = b"".join(member.chunks())
    if parts:
        yield current, parts


def _encoded(key: str, parts: Mapping[str, bytes], args: Tar2TfArgs, names: Mapping[str, str]) -> bytes:
    features: dict[str, Feature] = {}
    if args.key is not None:
        features[args.key] = [key.encode(tar_stream.ENCODING, tar_stream.ERRORS)]
    try:
        for extension, data in parts.items():
            kind = args.types.get(extension, "bytes")
            for name, values in _features(names.get(extension, extension), kind, data, args.max_pixels):
                if name in features:
                    raise Reject(f"it has two features {name!r}")  # noqa: TRY301 - named with the record below
                features[name] = values
        return record(example(features))
    except (ValueError, OverflowError, Reject) as error:
        raise Reject(f"record {shown(key)}: {error}") from error


def _features(name: str, kind: Type, data: bytes, max_pixels: int) -> Iterator[tuple[str, Feature]]:
    """Yield the features that a member becomes. Raises ValueError or Reject for what isn't of its kind."""
    if kind == "bytes":
        yield name, [data]
    elif kind == "json":
        yield from _json_features(name, _decoded(name, data))
    elif kind == "pixels":
        yield from _pixels(name, data, max_pixels)
    else:
        number: type[int] | type[float] = int if kind == "int" else float
        try:
            yield name, [number(word) for word in data.decode("ascii").replace(",", " ").split()]
        except ValueError:
            raise ValueError(f"{name} holds no numbers of the type {kind}: {data[:40]!r}") from None


def _decoded(name: str, data: bytes) -> JsonValue:
    try:
        value: JsonValue = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} holds no JSON") from None
    return value


def _json_features(name: str, value: JsonValue, depth: int = 0) -> Iterator[tuple[str, Feature]]:
    """Yield features for a JSON value: an object's by its keys, null has none, and what is mixed stays JSON."""
    if isinstance(value, dict) and depth < _DEPTH_MAX:
        for key, item in value.items():
            yield from _json_features(f"{name}/{key}", item, depth + 1)
    elif value is not None:
        yield name, _values(value)


def _values(value: JsonValue) -> Feature:
    items: list[Any] = value if isinstance(value, list) else [value]
    if all(isinstance(item, str) for item in items):
        return [item.encode() for item in items]
    if all(isinstance(item, int) for item in items):  # true and false are 1 and 0
        return [int(item) for item in items]
    if all(isinstance(item, int | float) for item in items):
        return [float(item) for item in items]
    return [json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()]


def _pixels(name: str, data: bytes, max_pixels: int) -> Iterator[tuple[str, Feature]]:
    from transom.plugins.builtin import pictures

    image = pictures.upright(data, max_pixels)
    yield name, [image.tobytes()]
    yield f"{name}/shape", [image.height, image.width, len(image.getbands())]
