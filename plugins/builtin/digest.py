"""`md5` and `hash`: an object's digest in hex instead of the object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import xxhash
from pydantic import BaseModel, ConfigDict, Field

from transom.plugins.contract import Context, Transformer


class _Digest(Transformer):
    """A digest in hex, as text without a newline."""

    releases_gil = True
    extension = "txt"
    _hex_length: int

    def content_type(self, context: Context) -> str:
        """Plain text."""
        return "text/plain"

    def output_size(self, context: Context) -> int | None:
        """Two hex digits a byte of digest."""
        return self._hex_length


class Md5(_Digest):
    """Returns the object's MD5 in hex."""

    name = "md5"
    _hex_length = 32

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Digest chunk by chunk."""
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in chunks:
            digest.update(chunk)
        yield digest.hexdigest().encode("ascii")


class HashArgs(BaseModel):
    """Arguments of `hash`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**64, description="Seed of the hash.", json_schema_extra={"first": True})


class Hash(_Digest):
    """Returns the object's xxHash64 in hex."""

    name = "hash"
    Args = HashArgs
    _hex_length = 16

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Digest chunk by chunk."""
        digest = xxhash.xxh64(seed=context.args.seed)
        for chunk in chunks:
            digest.update(chunk)
        yield digest.hexdigest().encode("ascii")
