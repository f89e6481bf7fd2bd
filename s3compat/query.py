"""The query string as a value: decoded names and values for reading, raw pieces for signing.

It knows nothing of what any parameter means.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from transom.s3compat.errors import S3Error


def decode(text: str, *, plus_is_space: bool = False) -> str:
    """Undo percent-encoding once; what isn't UTF-8 then is refused with InvalidURI."""
    if plus_is_space and "+" in text:
        text = text.replace("+", " ")
    if "%" not in text:
        if text.isascii():
            return text
        # An ASGI server may hand over raw bytes above 0x7f decoded as latin-1; they were UTF-8 on the wire.
        try:
            return text.encode("latin-1").decode("utf-8")
        except UnicodeError as error:
            raise S3Error("InvalidURI") from error
    try:
        return unquote_to_bytes(text if text.isascii() else text.encode("latin-1")).decode("utf-8")
    except UnicodeError as error:
        raise S3Error("InvalidURI") from error


class Query:
    """A parsed query string. The first of several values of one name is the one that counts, as in S3: `first`."""

    __slots__ = ("first", "items_raw", "pairs")

    def __init__(self, query_string: str) -> None:
        self.items_raw: list[tuple[str, str]] = []
        self.pairs: list[tuple[str, str]] = []
        self.first: dict[str, str] = {}
        if not query_string:
            return
        for piece in query_string.split("&"):
            if not piece:
                continue
            name, _, value = piece.partition("=")
            self.items_raw.append((name, value))
            name, value = decode(name, plus_is_space=True), decode(value, plus_is_space=True)
            self.pairs.append((name, value))
            self.first.setdefault(name, value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the decoded value of `name`; "" where it stands without one."""
        return self.first.get(name, default)

    def has(self, name: str) -> bool:
        """Tell whether `name` is there, with a value or without."""
        return name in self.first

    def all(self, name: str) -> list[str]:
        """Return every value of `name`, in order."""
        return [value for each, value in self.pairs if each == name]

    @property
    def names(self) -> Iterator[str]:
        """The distinct names, in the order of their first appearance."""
        return iter(self.first)

    def __len__(self) -> int:
        return len(self.first)
