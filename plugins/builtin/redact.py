"""`redact`: personal data, secrets and a client's own patterns in a text, blotted out line by line.

All kinds are looked for in the text as it came, and what they found together is replaced, so that nothing is left
of what only one of them saw, and no replacement is taken for data.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from transom.plugins.builtin import lines, redact_patterns
from transom.plugins.builtin.redact_patterns import Finder, Kind, Span
from transom.plugins.builtin.regex import MAX_LENGTH
from transom.plugins.contract import Context, Transformer

MIB = 1024 * 1024
_HASH_LENGTH = 16
_KINDS: tuple[Kind, ...] = get_args(Kind)


class RedactArgs(BaseModel):
    """Arguments of `redact`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patterns: tuple[Kind, ...] = Field(
        default=_KINDS,
        description="What to look for, as a list or with commas between. credit_card and iban must pass their check "
        "digits; phone is numbers that begin with + and North American ones; secret is keys and tokens known by "
        "their form, and what stands after password=, token: and the like.",
        json_schema_extra={"first": True},
    )
    regex: tuple[Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)], ...] = Field(
        default=(), max_length=32, description="More patterns: regular expressions (RE2), each looked for in a line."
    )
    mode: Literal["text", "mask", "hash"] = Field(
        default="text",
        description="text: put the replacement in place; mask: a character for each; hash: 16 hex digits of the "
        "HMAC-SHA256 under key, so that equal values can still be told to be equal.",
    )
    replacement: str = Field(default="[REDACTED]", max_length=200, description="For text.")
    mask: str = Field(default="*", min_length=1, max_length=1, description="For mask.")
    keep_last: int = Field(default=0, ge=0, le=8, description="For mask: how many characters at the end stay.")
    key: SecretStr | None = Field(default=None, min_length=8, max_length=200, description="For hash.")
    encoding: lines.Encoding = Field(default="utf-8", description="The text's encoding.")
    max_line: int = Field(default=MIB, ge=1, le=64 * MIB, description="Longest line taken, in characters.")

    @field_validator("patterns", mode="before")
    @classmethod
    def _patterns_from_text(cls, value: object) -> object:
        return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value

    @field_validator("regex")
    @classmethod
    def _regex_compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            redact_patterns.custom(pattern)
        return patterns

    @model_validator(mode="after")
    def _hash_has_a_key(self) -> RedactArgs:
        if self.mode == "hash" and self.key is None:
            raise ValueError("mode 'hash' needs a key: without one, anybody could hash all numbers there are")
        return self


class Redact(Transformer):
    """Returns a text with personal data and secrets blotted out. What spans lines, such as a PEM block, isn't seen."""

    name = "redact"
    Args = RedactArgs

    def content_type(self, context: Context) -> str:
        """The input's, for it is the same kind of text."""
        return context.content_type

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Redact piece by piece, each of whole lines. Raises Reject for bad bytes and for lines past the bound."""
        args: RedactArgs = context.args
        redaction = _Redaction(args)
        pieces = lines.gathered(lines.cut(lines.decoded(chunks, args.encoding), args.max_line))
        return lines.encoded((redaction.of(piece) for piece in pieces), args.encoding)


class _Redaction:
    """What to look for and what to put in its place."""

    def __init__(self, args: RedactArgs) -> None:
        self._args = args
        self._finders = [redact_patterns.finder(kind) for kind in args.patterns]
        self._custom = [redact_patterns.custom(pattern) for pattern in args.regex]
        self._key = args.key.get_secret_value().encode() if args.key else b""

    def of(self, piece: str) -> str:
        text = piece.encode()
        parts: list[bytes] = []
        done = 0
        for start, end in _joined(self._spans(text)):
            parts += (text[done:start], self._instead(text[start:end]))
            done = end
        return b"".join((*parts, text[done:])).decode() if parts else piece

    def _spans(self, text: bytes) -> Iterator[Span]:
        for find in self._finders:
            yield from find(text)
        if self._custom:
            yield from _by_line(self._custom, text)

    def _instead(self, found: bytes) -> bytes:
        args = self._args
        if args.mode == "hash":
            return hmac.new(self._key, found, hashlib.sha256).hexdigest()[:_HASH_LENGTH].encode()
        if args.mode == "mask":
            shown = found.decode(errors="replace")
            kept = min(args.keep_last, len(shown) // 2)
            return (args.mask * (len(shown) - kept) + shown[len(shown) - kept :]).encode()
        return args.replacement.encode()


def _by_line(finders: Sequence[Finder], text: bytes) -> Iterator[Span]:
    """Look in each line by itself: ^, $ and \\A mean the line, and nothing is found across two."""
    offset = 0
    for line in text.split(b"\n"):
        for find in finders:
            for start, end in find(line.removesuffix(b"\r")):
                yield offset + start, offset + end
        offset += len(line) + 1


def _joined(spans: Iterator[Span]) -> Iterator[Span]:
    """Yield the places from left to right, those that overlap as one."""
    current: Span | None = None
    for start, end in sorted(spans):
        if current is None:
            current = (start, end)
        elif start < current[1]:
            current = (current[0], max(end, current[1]))
        else:
            yield current
            current = (start, end)
    if current is not None:
        yield current
