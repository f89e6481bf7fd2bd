"""Transformers that let a test see and steer a run: they log to a file, wait for one, or tell what they were told."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from transom.plugins import Context, Reject, Skip, Transformer
from transom_test_transformers.probe_worker import Rejected, Skipped, Task, act

_PIECE_SIZE = 64 * 1024
_POLL_S = 0.005


class CountArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    log: str = Field(default="", json_schema_extra={"first": True})
    seconds: float = Field(default=0.0, ge=0)


class Count(Transformer):
    """Appends a line to the file `log` for each run, sleeps `seconds`, then passes the object on."""

    name = "count"
    Args = CountArgs
    releases_gil = True

    def transform(self, data: bytes, context: Context) -> bytes:
        note(context.args.log, f"run {context.bucket}/{context.key}")
        time.sleep(context.args.seconds)
        return data


class TapArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    log: str = ""
    gate: str = ""
    before: int = Field(default=0, ge=0)
    after: int = Field(default=0, ge=0)
    drip: int = Field(default=0, ge=0)
    fail: bool = False


class Tap(Transformer):
    """Puts out `before` bytes of "b", waits for the file `gate`, then puts out `after` bytes of "a".

    While it waits it puts out `drip` bytes of "d" at a time. It logs "start", then "end" or "left". With `fail` it
    raises RuntimeError in place of the end.
    """

    name = "tap"
    Args = TapArgs
    releases_gil = True

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        args = context.args
        note(args.log, "start")
        try:
            yield from _blocks(b"b", args.before)
            while args.gate and not Path(args.gate).exists() and context.remaining_s() > 0:
                time.sleep(_POLL_S)
                yield from _blocks(b"d", args.drip)
            if args.fail:
                raise RuntimeError("as asked")
            yield from _blocks(b"a", args.after)
        except GeneratorExit:
            note(args.log, "left")
            raise
        note(args.log, "end")


class Tell(Transformer):
    """Puts out all that a transformer is told, as JSON."""

    name = "tell"
    extension = "json"

    def content_type(self, context: Context) -> str:
        return "application/json"

    def transform(self, data: bytes, context: Context) -> bytes:
        told = {name: getattr(context, name) for name in ("bucket", "key", "etl", "content_type", "size")}
        return json.dumps({**told, "metadata": dict(context.metadata), "args": context.args.model_dump()}).encode()


class Whereabouts(Transformer):
    """Puts out the id of the process it runs in, which is never the server's."""

    name = "whereabouts"
    deterministic = False
    releases_gil = True
    isolated = True

    def transform(self, data: bytes, context: Context) -> bytes:
        return str(os.getpid()).encode()


class NeedsArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(max_length=10, json_schema_extra={"first": True})
    times: int = Field(default=1, ge=0, le=1000)


class Needs(Transformer):
    """Puts out `text`, `times` times; it has an argument without a default, so an ETL must be made of it first."""

    name = "needs"
    Args = NeedsArgs

    def transform(self, data: bytes, context: Context) -> bytes:
        return (context.args.text * context.args.times).encode()


class ProbeArgs(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    word: Any = Field(default=None, json_schema_extra={"first": True})


class Probe(Transformer):
    """Does what its arguments say, as `probe_worker` does in a process of its own."""

    name = "probe"
    Args = ProbeArgs
    releases_gil = True

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        given = context.args.model_dump(exclude_none=True)
        args = json.dumps(given, separators=(",", ":"), ensure_ascii=False) if given else ""
        try:
            yield from act(Task(args, context.bucket, context.key, context.content_type), chunks)
        except Rejected as error:
            raise Reject(str(error)) from None
        except Skipped as error:
            raise Skip(str(error)) from None


def note(log: str, line: str) -> None:
    """Append a line to the file `log`, whole even when several processes do so at once."""
    if not log:
        return
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def _blocks(letter: bytes, size: int) -> Iterator[bytes]:
    while size:
        length = min(size, _PIECE_SIZE)
        yield letter * length
        size -= length
