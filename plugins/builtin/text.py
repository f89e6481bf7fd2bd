"""`text`: lines of a text picked by pattern, sample and place, and its encoding changed.

Patterns run on RE2, whose time is linear in the line: no pattern a client sends can hold a worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import xxhash
from pydantic import BaseModel, ConfigDict, Field, field_validator

from transom.plugins.builtin import lines, regex
from transom.plugins.contract import Context, Reject, Transformer

MIB = 1024 * 1024
_TAIL_LENGTH_MAX = 64 * MIB


class TextArgs(BaseModel):
    """Arguments of `text`, applied in this order: decode, grep, every, fraction, head, tail, encode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grep: str | None = Field(
        default=None,
        max_length=1000,
        description="Keep lines in which this regular expression (RE2) is found.",
        json_schema_extra={"first": True},
    )
    ignore_case: bool = Field(default=False, description="Let grep take upper and lower case alike.")
    invert: bool = Field(default=False, description="Keep the lines in which grep is not found.")
    every: int = Field(default=1, ge=1, description="Keep the first of every so many lines.")
    fraction: float = Field(default=1.0, ge=0.0, le=1.0, description="Keep about this share of the lines.")
    seed: int = Field(default=0, ge=0, lt=2**64, description="Which lines fraction keeps.")
    head: int | None = Field(default=None, ge=0, description="Keep the first so many lines.")
    tail: int | None = Field(default=None, ge=0, le=1_000_000, description="Keep the last so many lines.")
    encoding: lines.Encoding = Field(default="utf-8", description="The object's encoding.")
    to: lines.Encoding | None = Field(default=None, description="The output's encoding; by default the object's.")
    errors: lines.Errors = Field(
        default="strict", description="What to do with bytes, or characters, that the encoding doesn't have."
    )
    max_line: int = Field(default=MIB, ge=1, le=64 * MIB, description="Longest line taken, in characters.")

    @field_validator("grep")
    @classmethod
    def _grep_compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            regex.compiled(pattern)
        return pattern


class Text(Transformer):
    """Returns some lines of a text, in the same or another encoding."""

    name = "text"
    Args = TextArgs

    def content_type(self, context: Context) -> str:
        """The input's kind of text, plain if it is none, with the output's charset."""
        kind = context.content_type.partition(";")[0].strip().lower()
        kind = kind if kind.startswith("text/") else "text/plain"
        return f"{kind}; charset={(context.args.to or context.args.encoding).removesuffix('-sig')}"

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Pick and encode line by line. Raises Reject for bad bytes and for lines past the bound."""
        args: TextArgs = context.args
        texts = lines.decoded(chunks, args.encoding, args.errors)
        if _picks_lines(args):
            texts = lines.gathered(_picked(lines.cut(texts, args.max_line), args))
        return lines.encoded(texts, args.to or args.encoding, args.errors)


def _picks_lines(args: TextArgs) -> bool:
    return args.every > 1 or args.fraction < 1 or any(part is not None for part in (args.grep, args.head, args.tail))


def _picked(given: Iterator[str], args: TextArgs) -> Iterator[str]:
    if args.grep is not None:
        given = _found(given, args.grep, ignore_case=args.ignore_case, invert=args.invert)
    if args.every > 1:
        given = islice(given, 0, None, args.every)
    if args.fraction < 1:
        given = _sampled(given, args.fraction, args.seed)
    if args.head is not None:
        given = islice(given, args.head)
    return given if args.tail is None else _last(given, args.tail)


def _found(given: Iterator[str], grep: str, *, ignore_case: bool, invert: bool) -> Iterator[str]:
    """Keep the lines, their newlines aside, in which the pattern is found, or those in which it isn't."""
    pattern = regex.compiled(grep, ignore_case=ignore_case)
    for line in given:
        if (pattern.search(line.removesuffix("\n").removesuffix("\r").encode()) is not None) is not invert:
            yield line


def _sampled(given: Iterator[str], fraction: float, seed: int) -> Iterator[str]:
    """Keep a line by a hash of its number: the same lines for the same seed, however the input is cut."""
    bound = int(fraction * 2**64)
    for number, line in enumerate(given):
        if xxhash.xxh64_intdigest(number.to_bytes(8, "little"), seed) < bound:
            yield line


def _last(given: Iterator[str], count: int) -> Iterator[str]:
    kept: deque[str] = deque()
    length = 0
    for line in given:
        kept.append(line)
        length += len(line)
        if len(kept) > count:
            length -= len(kept.popleft())
        if length > _TAIL_LENGTH_MAX:
            raise Reject(f"the last {count} lines hold more than {_TAIL_LENGTH_MAX} characters")
    return iter(kept)
