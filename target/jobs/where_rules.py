"""What a predicate's text may hold, so that its evaluation is bounded: names, loops, sums and regular expressions.

It reads the text alone. What the text means is `transom.target.jobs.where`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from transom.target.errors import JobRefused

VARIABLES = ("key", "size", "metadata", "tags", "content_type", "etag", "modified", "output", "output_size")
LOOPS = ("all", "exists", "exists_one", "filter")
FUNCTIONS = (
    *("size", "contains", "startsWith", "endsWith", "matches", "has", "type"),
    *("int", "uint", "double", "string", "bytes", "timestamp", "duration"),
    *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
    *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
)
TYPES = ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type")
MAX_CHARS = 1000
MAX_SUMS = 16  # a sum of two texts or lists is as long as both: without a bound, a short predicate makes a huge one
MAX_LOOPS = 8
_WORDS = ("in", "true", "false", "null")
_TOKEN = re.compile(
    r"""
      (?P<blank> \s+ | //[^\n]* )
    | (?P<text> (?: [rR][bB]? | [bB][rR] ) (?: "[^"\n\r]*" | '[^'\n\r]*' )
              | [bB]? (?: "(?:\\.|[^"\\\n\r])*" | '(?:\\.|[^'\\\n\r])*' ) )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<number> (?:\d|\.\d) (?:[eE][+-]?\d | [A-Za-z0-9_.])* )
    | (?P<sign> && | \|\| | [=!<>]= | . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a predicate: a "text", "name", "number" or "sign", and where it begins."""

    kind: str
    text: str
    at: int


@dataclass(slots=True)
class _Reading:
    """One pass over the tokens; `loops` has, for each open bracket, whether a loop's."""

    source: str
    tokens: list[Token]
    loops: list[bool] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)
    sums: int = 0
    found: int = 0  # loops

    def refuse(self, at: int, message: str) -> JobRefused:
        return JobRefused(f"where: {place(self.source, at)}: {message}")

    def peek(self, index: int) -> str:
        return self.tokens[index].text if 0 <= index < len(self.tokens) else ""

    def read(self) -> None:
        for index, token in enumerate(self.tokens):
            if token.kind == "name":
                self._name(index, token)
            elif token.kind == "text":
                self._text(token)
            elif token.text in "\"'":
                raise self.refuse(token.at, "the text that begins here has no end")
            elif token.text in "([{":
                self.loops.append(token.text == "(" and self._is_loop(index - 1))
            elif token.text in ")]}" and self.loops:
                self.loops.pop()
            elif token.text == "+":
                self.sums += 1
                if self.sums > MAX_SUMS:
                    raise self.refuse(token.at, f"a predicate adds at most {MAX_SUMS} times")

    def _text(self, token: Token) -> None:
        end = token.at + len(token.text)
        if self.source[end : end + 1] in ("'", '"'):
            raise self.refuse(token.at, "texts stand in single quotes or double quotes, not in three")

    def _is_loop(self, index: int) -> bool:
        return self.peek(index) in LOOPS and self.peek(index - 1) == "."

    def _name(self, index: int, token: Token) -> None:
        if self.peek(index + 1) == "(":
            self._call(index, token)
        elif self.peek(index - 1) == ".":
            return  # a field
        elif self.peek(index + 1) == "{":
            raise self.refuse(token.at, f"there are no messages to make, such as {token.text}{{...}}")
        elif token.text not in (*VARIABLES, *TYPES, *_WORDS, *self.bound):
            raise self.refuse(token.at, f"there is no '{token.text}'; a predicate knows {', '.join(VARIABLES)}")

    def _call(self, index: int, token: Token) -> None:
        name = token.text
        if self._is_loop(index):
            if any(self.loops):
                raise self.refuse(token.at, f"'{name}' within another loop would take too long for large outputs")
            self.found += 1
            if self.found > MAX_LOOPS:
                raise self.refuse(token.at, f"a predicate has at most {MAX_LOOPS} loops")
            self.bound.add(self.peek(index + 2))
        elif name == "map":
            raise self.refuse(token.at, "there is no 'map'; ask with all, exists, exists_one or filter")
        elif name not in FUNCTIONS:
            known = ", ".join((*FUNCTIONS, *LOOPS))
            raise self.refuse(token.at, f"there is no function '{name}'; there are {known}")
        elif name == "matches" and any(self.loops):
            self._pattern_in_loop(index)

    def _pattern_in_loop(self, index: int) -> None:
        """A pattern is compiled each time, slowly if it repeats by count; escapes could hide that."""
        pattern = self.tokens[index + 2] if len(self.tokens) > index + 2 else None
        plain = (
            pattern is not None
            and pattern.kind == "text"
            and self.peek(index + 3) == ")"
            and "{" not in pattern.text
            and ("\\" not in pattern.text or pattern.text[0] in "rR")
        )
        if not plain:
            raise self.refuse(
                self.tokens[index].at,
                "within a loop, 'matches' takes a text without '{'; one with backslashes is written r\"...\"",
            )


def check_text(source: str) -> list[str]:
    """Refuse text that isn't bounded, or names what isn't there; return the patterns in it, as they are written.

    Raises JobRefused, saying where.
    """
    if len(source) > MAX_CHARS:
        raise JobRefused(f"where: a predicate has at most {MAX_CHARS} characters, this one {len(source)}")
    reading = _Reading(source, list(_tokens(source)))
    reading.read()
    peek, tokens = reading.peek, reading.tokens
    return [
        tokens[at].text
        for at in range(len(tokens))
        if tokens[at].kind == "text" and peek(at - 2) == "matches" and peek(at - 1) == "(" and peek(at + 1) == ")"
    ]


def place(source: str, at: int) -> str:
    """Say where a place in the text is, as people count."""
    line = source.count("\n", 0, at) + 1
    return f"line {line}, column {at - source.rfind(chr(10), 0, at)}"


def _tokens(source: str) -> Iterator[Token]:
    for found in _TOKEN.finditer(source):
        kind = str(found.lastgroup)
        if kind != "blank":
            yield Token(kind, found.group(), found.start())
