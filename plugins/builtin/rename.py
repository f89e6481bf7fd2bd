"""`rename`: leaves the bytes as they are and says under which key an offline job is to store them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from transom.plugins.builtin import regex
from transom.plugins.contract import Context, Reject, Transformer

_KEY_LENGTH = 1024  # of S3, in bytes of UTF-8
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)


class RenameArgs(BaseModel):
    """Arguments of `rename`, applied in this order: pattern, extension, prefix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str | None = Field(
        default=None,
        min_length=1,
        max_length=regex.MAX_LENGTH,
        description="Replace every place of the key where this regular expression (RE2) is found.",
        json_schema_extra={"first": True},
    )
    replacement: str = Field(
        default="",
        max_length=_KEY_LENGTH,
        description="What to put there; \\1 to \\9 are the pattern's groups, \\0 is all of it, \\\\ a backslash.",
    )
    extension: str | None = Field(
        default=None,
        pattern=r"^([A-Za-z0-9_-]{1,32}(\.[A-Za-z0-9_-]{1,32}){0,3})?$",
        description="The key's extension from then on, without a dot; empty for none.",
    )
    prefix: str = Field(default="", max_length=_KEY_LENGTH, description="What to put before the key.")

    @model_validator(mode="after")
    def _replacement_fits(self) -> RenameArgs:
        groups = 0 if self.pattern is None else regex.compiled(self.pattern).groups
        for escape in _ESCAPE.findall(self.replacement.encode()):
            if escape != b"\\" and not escape.isdigit():
                raise ValueError("in the replacement, a backslash comes before a digit or another backslash")
            if escape.isdigit() and int(escape) > groups:
                raise ValueError(f"the replacement names group {escape.decode()}, the pattern has {groups}")
        return self


class Rename(Transformer):
    """Returns the object as it is; an offline job stores it under the renamed key."""

    name = "rename"
    Args = RenameArgs
    releases_gil = True

    def output_size(self, context: Context) -> int | None:
        """The input's."""
        return context.size

    def output_extension(self, context: Context) -> str | None:
        """The one asked for, if one is."""
        return context.args.extension or None

    def output_key(self, context: Context) -> str | None:
        """The renamed key. Raises Reject for one that no object can have."""
        return renamed(context.key, context.args)

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Pass every chunk on."""
        return iter(chunks)


def renamed(key: str, args: RenameArgs) -> str:
    """Return the new key. Raises Reject for one that no object can have."""
    if args.pattern is not None:
        replacement = args.replacement.encode()
        made = regex.compiled(args.pattern).sub(lambda match: _expanded(replacement, match), key.encode())
        key = made.decode(errors="replace")  # RE2's \C takes single bytes
    if args.extension is not None:
        key = _with_extension(key, args.extension)
    key = args.prefix + key
    if not 0 < len(key.encode()) <= _KEY_LENGTH:
        raise Reject(f"the new key has {len(key.encode())} bytes; a key has from 1 to {_KEY_LENGTH}")
    return key


def _expanded(replacement: bytes, match: Any) -> bytes:
    """Fill in the groups; one that took no part in the match is empty."""

    def value(escape: re.Match[bytes]) -> bytes:
        return (match.group(int(escape[1])) or b"") if escape[1].isdigit() else b"\\"

    return _ESCAPE.sub(value, replacement)


def _with_extension(key: str, extension: str) -> str:
    """Change what follows the last dot of the last part; a dot at its beginning begins no extension."""
    folder, slash, name = key.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    stem = stem if dot and stem else name
    return folder + slash + (f"{stem}.{extension}" if extension else stem)
