"""Names written short, `shard-{0001..0999..2}.tar`, and globs over names.

It knows nothing of objects: texts in, texts and answers out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import re2  # type: ignore[import-untyped]

from transom.target.errors import JobRefused

MAX_NAMES = 1_000_000
MAX_CHARS = 1024
_MAX_DIGITS = 15
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)(?:\.\.([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers of one pair of braces, written with at least `width` digits."""

    numbers: range
    width: int

    def text(self, at: int) -> str:
        """The number at a position."""
        return str(self.numbers[at]).zfill(self.width)


@dataclass(frozen=True, slots=True)
class Template:
    """Names with numbers that count up: `{START..END}` or `{START..END..STEP}`, END included where a step meets it.

    A leading zero in START or END pads all to the longer of the two. Several braces multiply, the last counting
    fastest: a template is a sequence of names, made when they are asked for.
    """

    texts: tuple[str, ...]  # around the ranges: one more
    ranges: tuple[Range, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a template. Raises JobRefused, saying what is wrong with it."""
        if len(text) > MAX_CHARS:
            raise JobRefused(f"a template has at most {MAX_CHARS} characters, this one {len(text)}")
        parts = _BRACES.split(text)
        texts, ranges = tuple(parts[::2]), tuple(_range(inner) for inner in parts[1::2])
        if any(brace in part for part in texts for brace in "{}"):
            raise JobRefused(f"template {text!r}: a brace is open; braces hold START..END or START..END..STEP")
        if not ranges:
            raise JobRefused(f"template {text!r} has no {{START..END}}; give single names as keys")
        made = cls(texts, ranges)
        if made.count > MAX_NAMES:
            raise JobRefused(f"template {text!r} makes {made.count} names; at most {MAX_NAMES} are allowed")
        return made

    @property
    def count(self) -> int:
        """How many names there are."""
        return math.prod(len(each.numbers) for each in self.ranges)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> str:
        if not 0 <= at < self.count:
            raise IndexError(at)
        numbers: list[str] = []
        for each in reversed(self.ranges):
            at, place = divmod(at, len(each.numbers))
            numbers.append(each.text(place))
        pieces = [self.texts[0]]
        for number, text in zip(reversed(numbers), self.texts[1:], strict=True):
            pieces += (number, text)
        return "".join(pieces)

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(self.count))


def _range(inner: str) -> Range:
    found = _RANGE.fullmatch(inner)
    if found is None:
        raise JobRefused(f"{{{inner}}} is no range of numbers: braces hold START..END or START..END..STEP")
    start, end, step = found[1], found[2], int((found[3] or "1")[:_MAX_DIGITS])
    if len(start) > _MAX_DIGITS or len(end) > _MAX_DIGITS:
        raise JobRefused(f"{{{inner}}}: a number has at most {_MAX_DIGITS} digits")
    if int(start) > int(end) or step < 1:
        raise JobRefused(f"{{{inner}}} counts up, from START to END, by a STEP of 1 or more")
    padded = any(len(text) > 1 and text.startswith("0") for text in (start, end))
    return Range(range(int(start), int(end) + 1, step), max(len(start), len(end)) if padded else 1)


class Glob:
    """A pattern over whole names: `*` is any text, '/' too, `?` one character, `[a-z]` and `[!a-z]` one of those.

    `{a,b}` is either, and may hold patterns. What stands in brackets means itself: `[*]` is a star. Matching takes time
    linear in the name, whatever the pattern. Raises JobRefused for a pattern that can't be one.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_CHARS:
            raise JobRefused(f"a glob has at most {MAX_CHARS} characters, this one {len(pattern)}")
        self.pattern = pattern
        options = re2.Options()
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(b"(?s)" + _translated(pattern).encode(), options)
        except (re2.error, UnicodeEncodeError) as error:
            raise JobRefused(f"glob {pattern!r} can't be compiled: is it too long?") from error

    def __call__(self, name: str) -> bool:
        """Whether it matches all of a name."""
        return self._compiled.fullmatch(name.encode()) is not None


def _translated(glob: str) -> str:
    """Rewrite a glob, left to right, as a regular expression."""
    made: list[str] = []
    ends = _matching_braces(glob)
    at = 0
    closing: list[int] = []  # where the alternatives that are open end
    while at < len(glob):
        char, following = glob[at], at + 1
        if char == "*":
            made.append(".*")
        elif char == "?":
            made.append(".")
        elif char == "[":
            piece, following = _class(glob, at)
            made.append(piece)
        elif char == "{" and at in ends:
            closing.append(ends[at])
            made.append("(?:")
        elif closing and at == closing[-1]:
            closing.pop()
            made.append(")")
        elif char == "," and closing:
            made.append("|")
        else:
            made.append(_literal(char))
        at = following
    return "".join(made)


def _matching_braces(glob: str) -> dict[int, int]:
    """Where braces that hold a comma of their own open, and where each of them closes."""
    ends: dict[int, int] = {}
    opened: list[tuple[int, bool]] = []
    at = 0
    while at < len(glob):
        if glob[at] == "[":
            at = _class(glob, at)[1]
            continue
        if glob[at] == "{":
            opened.append((at, False))
        elif glob[at] == "," and opened:
            opened[-1] = (opened[-1][0], True)
        elif glob[at] == "}" and opened:
            start, has_comma = opened.pop()
            if has_comma:
                ends[start] = at
        at += 1
    return ends


def _class(glob: str, at: int) -> tuple[str, int]:
    """The characters in brackets from `at`, and where the glob goes on; an open bracket stands for itself."""
    start = at + 1
    inverted = glob[start : start + 1] == "!"
    start += inverted
    end = glob.find("]", start + 1)  # one right at the beginning is a member
    if end < 0:
        return _literal("["), at + 1
    members = _members(glob[start:end])
    return f"[{'^' if inverted else ''}{members}]", end + 1


def _members(inner: Sequence[str]) -> str:
    made: list[str] = []
    at = 0
    while at < len(inner):
        if at + 2 < len(inner) and inner[at + 1] == "-":
            first, last = inner[at], inner[at + 2]
            if first > last:
                raise JobRefused(f"the glob's [{first}-{last}] is the wrong way round: write [{last}-{first}]")
            made.append(f"{_literal(first)}-{_literal(last)}")
            at += 3
        else:
            made.append(_literal(inner[at]))
            at += 1
    return "".join(made)


def _literal(char: str) -> str:
    return char if char.isalnum() or char == "_" else f"\\x{{{ord(char):x}}}"
