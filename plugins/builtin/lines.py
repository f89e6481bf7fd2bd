"""A text as lines of bounded length: decoded, cut, gathered into pieces worth sending, and encoded again.

It does nothing to the lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Literal

from transom.plugins.contract import Reject

_PIECE_LENGTH = 256 * 1024

# A closed list: Python's registry also holds codecs that aren't text, and some that take quadratic time.
Encoding = Literal[
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "ascii",
    "latin-1", "iso8859-2", "iso8859-15", "cp437", "cp850", "cp1250", "cp1251", "cp1252", "koi8-r", "mac-roman",
    "shift_jis", "euc-jp", "gb18030", "big5", "euc-kr",
]  # fmt: skip
Errors = Literal["strict", "replace", "ignore"]


def decoded(chunks: Iterable[bytes], encoding: Encoding, errors: Errors = "strict") -> Iterator[str]:
    """Yield the text. Raises Reject for bytes that the encoding doesn't have."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise Reject(f"the object is not {encoding}: {_cause(error)}") from error


def encoded(texts: Iterable[str], encoding: Encoding, errors: Errors = "strict") -> Iterator[bytes]:
    """Yield the bytes. Raises Reject for characters that the encoding doesn't have."""
    encoder = codecs.getincrementalencoder(encoding)(errors)
    try:
        for text in texts:
            if text:
                yield encoder.encode(text)
        yield encoder.encode("", final=True)
    except UnicodeEncodeError as error:
        raise Reject(f"the text can't be written as {encoding}: {_cause(error)}") from error


def cut(texts: Iterable[str], max_line: int) -> Iterator[str]:
    """Cut at newlines, which stay on; the last line may have none. Raises Reject for one past the bound."""
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


def gathered(lines: Iterable[str]) -> Iterator[str]:
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


def _check_line(length: int, max_line: int) -> None:
    if length > max_line:
        raise Reject(f"a line is longer than {max_line} characters (max_line)")


def _cause(error: UnicodeError) -> str:
    return error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else str(error)
