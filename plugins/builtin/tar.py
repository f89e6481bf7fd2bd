"""`tar`: one member of a shard, a list of them, some of them, or all with some transformed by another transformer.

One pass over the archive in constant memory; what isn't changed is written back byte for byte.
"""

from __future__ import annotations

import json
import mimetypes
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import IO, Any, Literal

import xxhash
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from transom.plugins.builtin import tar_stream
from transom.plugins.builtin.compress import CompressArgs, compressed
from transom.plugins.builtin.shard import (
    MAX_RATIO,
    MAX_UNPACKED,
    MaxRatio,
    MaxUnpacked,
    Name,
    Names,
    matches,
    members,
    record_name,
)
from transom.plugins.builtin.tar_stream import Member, shown
from transom.plugins.contract import Context, Reject, Skip, Transformer
from transom.plugins.nested import Nested, find
from transom.plugins.shapes import MAX_MEMORY

MIB = 1024 * 1024
_SPOOL_SIZE = 8 * MIB  # what a transformed member may take of memory before it goes to a temporary file
_PIECE_SIZE = MIB
_TYPES = mimetypes.MimeTypes()  # Python's own table: the machine's would make targets differ
_ALONE = ("list", "apply", "select", "drop", "keys", "sample", "limit")


class TarArgs(BaseModel):
    """Arguments of `tar`; keys, sample, limit, select and drop say which members, list and apply what of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extract: Name | None = Field(
        default=None,
        description="Return this member, by its whole name as list shows it, instead of a shard.",
        json_schema_extra={"first": True},
    )
    list: Literal["members", "records"] | None = Field(
        default=None, description="Return JSON lines of what is in the shard: each member, or each record."
    )
    apply: Name | None = Field(default=None, description="Transformer to run over members; the others stay.")
    apply_args: JsonValue = Field(default=None, description="Its arguments, as it takes them.")
    match: Names = Field(default=(), description="Extensions or globs of the members to transform; none is all.")
    select: Names = Field(default=(), description="Keep the members with these extensions or globs.")
    drop: Names = Field(default=(), description="Leave out the members with these extensions or globs.")
    keys: Names = Field(default=(), description="Keep these records: names up to the first dot of the file name.")
    sample: float = Field(default=1.0, ge=0.0, le=1.0, description="Keep about this share of the records.")
    seed: int = Field(default=0, ge=0, lt=2**64, description="Which records sample keeps.")
    limit: int | None = Field(default=None, ge=0, description="Keep the first so many records.")
    max_member: int = Field(
        default=MAX_MEMORY, gt=0, le=1024 * 1024 * MIB, description="Most bytes of a member before and after apply."
    )
    max_unpacked: MaxUnpacked = MAX_UNPACKED
    max_ratio: MaxRatio = MAX_RATIO

    @model_validator(mode="after")
    def _one_at_a_time(self) -> TarArgs:
        if self.extract is not None:
            beside = [name for name in _ALONE if getattr(self, name) != type(self).model_fields[name].default]
            if beside:
                raise ValueError(f"extract goes with no other choice of members, but {beside[0]} is given")
        if self.apply is not None and self.list is not None:
            raise ValueError("list and apply exclude each other")
        if self.apply is None and (self.apply_args is not None or self.match):
            raise ValueError(f"{'match' if self.match else 'apply_args'} needs apply")
        return self


class Tar(Transformer):
    """Returns one member of a tar archive, a list of its members, or the archive with some left out or transformed.

    Archives packed with gzip, bz2 or zstd are read too, and packed again the same way. With nothing asked for it
    returns the archive as it is, checked. A member that isn't there is answered with 404; members that the applied
    transformer skips are left out, and those it gives another extension are renamed. Links are not followed.
    """

    name = "tar"
    Args = TarArgs

    def content_type(self, context: Context) -> str:
        """The extracted member's by its name, JSON lines for a list, else the archive's own."""
        args: TarArgs = context.args
        if args.extract is not None:
            return content_type_of(args.extract)
        return "application/x-ndjson" if args.list else context.content_type

    def output_extension(self, context: Context) -> str | None:
        """The extracted member's, that of JSON lines for a list, else the archive's own."""
        args: TarArgs = context.args
        if args.extract is not None:
            return PurePosixPath(args.extract).suffix.removeprefix(".") or None
        return "jsonl" if args.list else None

    def uses(self, args: Any) -> Iterable[tuple[str, object]]:
        """The transformer to apply."""
        return [(args.apply, args.apply_args)] if args.apply else []

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Go through the archive once. Raises Skip for a member that isn't there, Reject for what is no tar."""
        args: TarArgs = context.args
        found, packed = members(chunks, max_unpacked=args.max_unpacked, max_ratio=args.max_ratio)
        if args.extract is not None:
            yield from _extracted(found, args.extract)
            return
        chosen = _chosen(found, args)
        if args.list is not None:
            yield from tar_stream.gathered(_records(chosen) if args.list == "records" else _members(chosen))
            return
        pieces = tar_stream.gathered(tar_stream.written(_pieces(chosen, context)))
        yield from compressed(pieces, CompressArgs(algorithm=packed)) if packed else pieces


def content_type_of(name: str) -> str:
    """The Content-Type that a name's extension tells."""
    return _TYPES.guess_type(name, strict=False)[0] or "binary/octet-stream"


def _extracted(found: Iterator[Member], name: str) -> Iterator[bytes]:
    for member in found:
        if member.text == name and not member.is_global:
            if not member.is_file:
                raise Reject(f"member {shown(name)} is a {member.kind}")
            yield from member.chunks()
            return
    raise Skip(f"the archive has no member {shown(name)}")


def _chosen(found: Iterator[Member], args: TarArgs) -> Iterator[Member]:
    """Pick records, then members of them; the archive is read no further than the last record wanted."""
    by_record = bool(args.keys) or args.sample < 1 or args.limit is not None
    keys, bound = frozenset(args.keys), int(args.sample * 2**64)
    records, current = 0, None
    for member in found:
        if by_record and not member.is_global:
            record = record_name(member.text)
            if record is None or not _is_wanted(record[0], keys, bound, args.seed):
                continue
            if record[0] != current:
                if records == args.limit:
                    return
                records, current = records + 1, record[0]
        if member.is_global or (
            (not args.select or matches(member.name, args.select)) and not matches(member.name, args.drop)
        ):
            yield member


def _is_wanted(key: str, keys: frozenset[str], bound: int, seed: int) -> bool:
    if keys and key not in keys:
        return False
    return xxhash.xxh64_intdigest(key.encode(), seed) < bound


def _members(chosen: Iterator[Member]) -> Iterator[bytes]:
    for member in chosen:
        if not member.is_global:
            yield _line(name=member.text, type=member.kind, size=member.info.size, offset=member.offset)


def _records(chosen: Iterator[Member]) -> Iterator[bytes]:
    key, extensions, size = "", list[str](), 0
    for member in chosen:
        record = record_name(member.text) if not member.is_global else None
        if record is None:
            continue
        if record[0] != key and extensions:
            yield _line(key=key, extensions=extensions, size=size)
            extensions, size = [], 0
        key = record[0]
        extensions.append(record[1])
        size += member.info.size
    if extensions:
        yield _line(key=key, extensions=extensions, size=size)


def _line(**fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _pieces(chosen: Iterator[Member], context: Context) -> Iterator[bytes]:
    """Yield the members as they are stored, those to transform transformed."""
    args: TarArgs = context.args
    applied = find(context.transformers, args.apply, args.apply_args, etl=context.etl) if args.apply else None
    for member in chosen:
        if applied is not None and member.is_file and (not args.match or matches(member.name, args.match)):
            yield from _transformed(member, applied, context)
        else:
            yield from member.whole()


def _transformed(member: Member, applied: Nested, context: Context) -> Iterator[bytes]:
    """Run the transformer over one member; its size is due before its bytes, so they are held meanwhile."""
    inner = applied.context(context, key=member.name, content_type=content_type_of(member.name), size=member.size)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_SIZE, dir=str(context.scratch)) as spool:
        try:
            size = _fill(spool, member, applied, inner, context.args.max_member)
        except Skip:
            return
        except Reject as error:
            raise Reject(f"member {shown(member.name)}: {error}") from error
        spool.seek(0)
        yield tar_stream.rewritten(member.info, _new_name(applied.transformer, inner), size)
        yield from tar_stream.padded(iter(lambda: spool.read(_PIECE_SIZE), b""), size)


def _fill(spool: IO[bytes], member: Member, applied: Nested, inner: Context, limit: int) -> int:
    """Write the transformed member, and return how long it has become."""
    if member.size > limit:
        raise Reject(f"it has {member.size} bytes, more than {limit} (max_member)")
    size = 0
    with closing(applied.run(member.chunks(), inner, max_memory=min(limit, MAX_MEMORY))) as output:
        for piece in output:
            size += len(piece)
            if size > limit:
                raise Reject(f"it becomes more than {limit} bytes (max_member)")
            spool.write(piece)
    return size


def _new_name(transformer: Transformer, inner: Context) -> str:
    """Name a transformed member as an offline job names an output."""
    key, extension = transformer.output_key(inner), transformer.output_extension(inner)
    if key is not None or extension is None:
        return inner.key if key is None else key
    folder, slash, last = inner.key.rpartition("/")
    stem, dot, _ = last.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else last}.{extension}"
