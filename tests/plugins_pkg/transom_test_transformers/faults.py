"""Transformers that fail: before, during and instead of their output."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from transom.plugins import Context, Reject, Skip, Transformer

_PIECE_SIZE = 64 * 1024


class MessageArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str = Field(default="as asked", json_schema_extra={"first": True})


class FailArgs(MessageArgs):
    error: Literal["RuntimeError", "EOFError", "ConnectionResetError"] = "RuntimeError"


class Fail(Transformer):
    """Raises `error` before any output."""

    name = "fail"
    Args = FailArgs

    def transform(self, data: bytes, context: Context) -> bytes:
        raise getattr(builtins, context.args.error)(context.args.message)


class FailLateArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=1024, ge=0, json_schema_extra={"first": True})
    message: str = "late, as asked"


class FailLate(Transformer):
    """Puts out `n` bytes of "x", then raises RuntimeError."""

    name = "fail_late"
    Args = FailLateArgs

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        left = context.args.n
        while left:
            size = min(left, _PIECE_SIZE)
            yield b"x" * size
            left -= size
        raise RuntimeError(context.args.message)


class Swallow(Transformer):
    """Passes the object on; takes an input that breaks for one that has ended, as some libraries do."""

    name = "swallow"

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        with suppress(Exception):
            yield from chunks


class CrashArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    status: int = Field(default=70, ge=0, le=255, json_schema_extra={"first": True})


class Crash(Transformer):
    """Ends the process it runs in, at once."""

    name = "crash"
    Args = CrashArgs

    def transform(self, data: bytes, context: Context) -> bytes:
        os._exit(context.args.status)


class LeakArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: int = Field(default=0, ge=0, json_schema_extra={"first": True})
    use: int = Field(default=0, ge=0)
    fail: bool = False


class Leak(Transformer):
    """Takes `keep` bytes of memory for ever and `use` bytes for this run; puts out the id of its process.

    With `fail` it raises RuntimeError instead.
    """

    name = "leak"
    Args = LeakArgs
    deterministic = False
    isolated = True
    kept: ClassVar[list[bytes]] = []

    def transform(self, data: bytes, context: Context) -> bytes:
        self.kept.append(b"k" * context.args.keep)
        used = b"u" * context.args.use
        if context.args.fail:
            raise RuntimeError(f"process {os.getpid()}")
        return str(os.getpid() if len(used) == context.args.use else 0).encode()


class SkipIt(Transformer):
    """Leaves every object out."""

    name = "skip"
    Args = MessageArgs

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        raise Skip(context.args.message)


class RejectIt(Transformer):
    """Rejects every object."""

    name = "reject"
    Args = MessageArgs

    def transform(self, data: bytes, context: Context) -> bytes:
        raise Reject(context.args.message)
