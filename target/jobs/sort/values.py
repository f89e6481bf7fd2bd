"""The values that records are sorted by: typed texts out of their members, or a shuffle's ranks. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Literal

ValueType = Literal["text", "int", "float"]
Value = bytes | int | float
VALUE_SIZE_MAX = 4096  # bytes: a longer one is no value but content

_INT = re.compile(r"[+-]?[0-9]{1,19}")
_INT_MAX = 2**63 - 1
_RANK_SIZE = 16


def parse(data: bytes, values: ValueType) -> Value:
    """Read a member's text, without the white space around it. Raises ValueError, saying what it is instead."""
    if len(data) > VALUE_SIZE_MAX:
        raise ValueError(f"longer than {VALUE_SIZE_MAX} bytes, so no value to sort by")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("not text in UTF-8") from None
    if values == "int":
        return _whole(text)
    return _number(text) if values == "float" else text.encode()


def rank(seed: int, name: bytes) -> bytes:
    """Return where a shuffle by `seed` has a record: the same for a name wherever and whenever it is asked."""
    return hashlib.blake2b(b"%d\0" % seed + name, digest_size=_RANK_SIZE).digest()


def _whole(text: str) -> int:
    value = int(text) if _INT.fullmatch(text) else None
    if value is None or not -_INT_MAX <= value <= _INT_MAX:
        raise ValueError(f"{_shown(text)}, which is no whole number of 64 bits")
    return value


def _number(text: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"{_shown(text)}, which is no number")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")  # noqa: PLR2004 (a message's length)
