"""Transformers that take their time: asleep, at work, or for ever."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from transom.plugins import Context, Transformer


class SecondsArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(default=0.1, ge=0, json_schema_extra={"first": True})


class Sleep(Transformer):
    """Sleeps `seconds` with the whole input in hand, then returns it."""

    name = "sleep"
    Args = SecondsArgs
    releases_gil = True

    def output_size(self, context: Context) -> int | None:
        return context.size

    def transform(self, data: bytes, context: Context) -> bytes:
        time.sleep(context.args.seconds)
        return data


class SlowStart(Transformer):
    """Sleeps `seconds` before its first byte, then passes the chunks on; the size isn't told ahead."""

    name = "slow_start"
    Args = SecondsArgs
    releases_gil = True

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        time.sleep(context.args.seconds)
        yield from chunks


class Busy(Transformer):
    """Computes in Python for `seconds` of wall time without letting go of the GIL, then returns the input."""

    name = "busy"
    Args = SecondsArgs

    def transform(self, data: bytes, context: Context) -> bytes:
        end = time.monotonic() + context.args.seconds
        while time.monotonic() < end:
            sum(range(1000))
        return data


class LoopForever(Transformer):
    """Never returns, and doesn't let go of the GIL."""

    name = "loop_forever"

    def transform(self, data: bytes, context: Context) -> bytes:
        while True:
            sum(range(1000))
