"""`text`: lines of a text picked by pattern, sample and place, and its encoding changed.

Patterns run on RE2, whose time is linear in the line: no pattern a client sends can hold a worker.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal

import re2  # type: ignore[import-untyped]
import xxhash
from pydantic import BaseModel, ConfigDict, Field, field_validator

from transom.plugins.contract import Context, Reject, Transformer

MIB = 1024 * 1024
_TAIL_LENGTH_MAX = 64 * MIB
_PIECE_LENGTH = 256 * 1024
_PATTERN_MEMORY = 8 * MIB

# A closed list: Python's registry also holds codecs that aren't text, and some that take quadratic time.
Encoding = Literal[
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "ascii",
    "latin-1", "iso8859-2", "iso8859-15", "cp437", "cp850", "cp1250", "cp1251", "cp1252", "koi8-r", "mac-roman",
    "shift_jis", "euc-jp", "gb18030", "big5", "euc-kr",
]  # fmt: skip


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
    encoding: Encoding = Field(default="utf-8", description="The object's encoding.")
    to: Encoding | None = Field(default=None, description="The output's encoding; by default the object's.")
    errors: Literal["strict", "replace", "ignore"] = Field(
        default="strict", description="What to do with bytes, or characters, that the encoding doesn't have."
    )
    max_line: int = Field(default=MIB, ge=1, le=64 * MIB, description="Longest line taken, in characters.")

    @field_validator("grep")
    @classmethod
    def _grep_compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _compiled(pattern, ignore_case=False)
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
        texts = _decoded(chunks, args)
        if _picks_lines(args):
            texts = _gathered(_picked(_lines(texts, args.max_line), args))
        return _encoded(texts, args)


def _picks_lines(args: TextArgs) -> bool:
    return args.every > 1 or args.fraction < 1 or any(part is not None for part in (args.grep, args.head, args.tail))


def _decoded(chunks: Iterable[bytes], args: TextArgs) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(args.encoding)(args.errors)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise Reject(f"the object is not {args.encoding}: {_cause(error)}") from error


def _encoded(texts: Iterable[str], args: TextArgs) -> Iterator[bytes]:
    encoding = args.to or args.encoding
    encoder = codecs.getincrementalencoder(encoding)(args.errors)
    try:
        for text in texts:
            if text:
                yield encoder.encode(text)
        yield encoder.encode("", final=True)
    except UnicodeEncodeError as error:
        raise Reject(f"the text can't be written as {encoding}: {_cause(error)}") from error


def _cause(error: UnicodeError) -> str:
    return error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else str(error)


def _lines(texts: Iterable[str], max_line: int) -> Iterator[str]:
    """Cut at newlines, which stay on; the last line may have none."""
    held: list[str] = []
    held_length = 0
    for text in texts:
        *whole, rest = text.split("\n")
        for line in whole:
            held.append(line)
            _check_line(held_length + len(line), max_line)
            yield "".join(held) + "\n"
            held, held_length = [], 0
        if rest:
            held.append(rest)
            held_length += len(rest)
            _check_line(held_length, max_line)
    if held:
        yield "".join(held)


def _check_line(length: int, max_line: int) -> None:
    if length > max_line:
        raise Reject(f"a line is longer than {max_line} characters (max_line)")


def _picked(lines: Iterator[str], args: TextArgs) -> Iterator[str]:
    if args.grep is not None:
        found = _compiled(args.grep, ignore_case=args.ignore_case)
        lines = (line for line in lines if found(line) is not args.invert)
    if args.every > 1:
        lines = islice(lines, 0, None, args.every)
    if args.fraction < 1:
        lines = _sampled(lines, args.fraction, args.seed)
    if args.head is not None:
        lines = islice(lines, args.head)
    return lines if args.tail is None else _last(lines, args.tail)


def _sampled(lines: Iterator[str], fraction: float, seed: int) -> Iterator[str]:
    """Keep a line by a hash of its number: the same lines for the same seed, however the input is cut."""
    bound = int(fraction * 2**64)
    for number, line in enumerate(lines):
        if xxhash.xxh64_intdigest(number.to_bytes(8, "little"), seed) < bound:
            yield line


def _last(lines: Iterator[str], count: int) -> Iterator[str]:
    kept: deque[str] = deque()
    length = 0
    for line in lines:
        kept.append(line)
        length += len(line)
        if len(kept) > count:
            length -= len(kept.popleft())
        if length > _TAIL_LENGTH_MAX:
            raise Reject(f"the last {count} lines hold more than {_TAIL_LENGTH_MAX} characters")
    return iter(kept)


def _gathered(lines: Iterable[str]) -> Iterator[str]:
    """Join short lines into pieces worth sending."""
    held: list[str] = []
    length = 0
    for line in lines:
        held.append(line)
        length += len(line)
        if length >= _PIECE_LENGTH:
            yield "".join(held)
            held, length = [], 0
    yield "".join(held)


def _compiled(pattern: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """Return a test of one line, its newline aside. Raises ValueError."""
    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    try:
        compiled = re2.compile(pattern.encode(), options)  # over UTF-8: re2's own str searches count characters
    except re2.error as error:
        reason = error.args[0] if error.args else "unknown"
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"not a regular expression of RE2's kind ({shown})") from error
    return lambda line: compiled.search(line.removesuffix("\n").removesuffix("\r").encode()) is not None
