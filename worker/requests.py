"""The head of a request, parsed once. It knows what a worker is asked, and reads no socket."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from transom.worker.errors import Refused

_METADATA = "transom-meta-"
_ASKED = ("etl_args", "etl_fqn", "transom_expires", "transom_signature")


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head: `target` is as it came, `path` percent-decoded, header names are in lower case."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def bucket_and_key(self) -> tuple[str, str]:
        """What the path names."""
        bucket, _, key = self.path[1:].partition("/")
        return bucket, key

    @property
    def body_size(self) -> int | None:
        """The body's length in bytes, None for a chunked one. Raises Refused where that can't be told for sure."""
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if coding is None:
            return 0 if length is None else _count(length, "content-length")
        if length is not None or coding.lower() != "chunked":
            raise Refused(400, "this body's length can't be told")
        return None

    @property
    def metadata(self) -> dict[str, str]:
        """The object's own metadata, which a header each holds."""
        start = len(_METADATA)
        return {name[start:]: unquote(value) for name, value in self.headers.items() if name.startswith(_METADATA)}

    def number(self, header: str) -> int | None:
        """The number in a header; None where it isn't there."""
        text = self.headers.get(header)
        return None if text is None else _count(text, header)


def parse(head: bytes) -> Request:
    """Parse a request's head; raises Refused."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[1].startswith("/"):  # noqa: PLR2004 - a request line has three words
        raise Refused(400, "this is no request")
    method, target, version = words
    if version != "HTTP/1.1":
        raise Refused(505, "a worker speaks HTTP/1.1")
    path, _, query = target.partition("?")
    return Request(method, target, _path(path), _query(query) if query else {}, _headers(lines))


def _path(text: str) -> str:
    if "%" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise Refused(400, "the path is no UTF-8") from None


def _query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if name in query and name in _ASKED:
            raise Refused(400, f"{name} is given twice")
        try:
            query[name] = unquote(value.replace("+", " "), errors="strict")
        except UnicodeDecodeError:
            raise Refused(400, f"{name} is no UTF-8") from None
    return query


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(400, "a header of this request is malformed")
        name = name.lower()
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, f"{name} is no number")
    return int(text)
