"""Transformers with outputs of odd sizes: random, huge, empty, doubled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from transom.plugins import Context, Transformer

_PIECE_SIZE = 1024 * 1024
_PERIOD = 251  # prime, so that no power-of-two offset looks like another


def grow_bytes(size: int, start: int = 0) -> bytes:
    """The bytes [start, size) of `grow`'s output: byte i is (i % 251 + i // 251) % 256."""
    return b"".join(grow_chunks(size, start))


def grow_chunks(size: int, start: int = 0) -> Iterator[bytes]:
    """The same, in pieces of at most 1 MiB."""
    rows = [bytes((row + column) % 256 for column in range(_PERIOD)) for row in range(256)]
    block = b"".join(rows)  # repeats after 256 rows of 251 bytes
    while start < size:
        offset = start % len(block)
        length = min(size - start, _PIECE_SIZE)
        copies = -(-(offset + length) // len(block))
        yield (block * copies)[offset : offset + length]
        start += length


class SizeArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=1024, ge=0, json_schema_extra={"first": True})


class Random(Transformer):
    """`size` random bytes, other ones on every run."""

    name = "random"
    Args = SizeArgs
    deterministic = False

    def output_size(self, context: Context) -> int | None:
        return int(context.args.size)

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        left = context.args.size
        while left:
            size = min(left, _PIECE_SIZE)
            yield os.urandom(size)
            left -= size


class Grow(Transformer):
    """`size` bytes of a fixed pattern, whatever the input; the size isn't told ahead."""

    name = "grow"
    Args = SizeArgs

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        yield from grow_chunks(context.args.size)


class Empty(Transformer):
    """Nothing at all."""

    name = "empty"

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        for _ in chunks:
            pass
        yield b""


class Double(Transformer):
    """Every chunk twice: the output depends on how the input is cut, which no real transformer's may."""

    name = "double"

    def output_size(self, context: Context) -> int | None:
        return None if context.size is None else 2 * context.size

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            yield chunk
