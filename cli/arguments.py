"""Parsers of what several commands take on their line: JSON values, NAME=VALUE pairs, times, sizes, s3:// URLs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from transom.cli.errors import CliError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b|b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def json_value(text: str | None, option: str = "--args") -> Any:
    """The JSON value given to an option, None where it wasn't given."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise _misuse(option, f"not JSON: {error}") from error


def json_object(text: str | None, option: str = "--args") -> dict[str, Any]:
    """The JSON object given to an option, empty where it wasn't given."""
    value = json_value(text, option)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _misuse(option, 'give a JSON object, such as {"width": 224}')
    return value


def pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    """NAME=VALUE items as a dict; both sides must be there, and each name once."""
    found: dict[str, str] = {}
    for item in items:
        name, _, value = item.partition("=")
        if not name or not value:
            raise _misuse(option, f"{item!r} is not {form}")
        if name in found:
            raise _misuse(option, f"{name!r} is given twice")
        found[name] = value
    return found


def seconds(text: str | None, option: str) -> float | None:
    """The duration given to an option, such as 45s or 1.5; None where it wasn't given."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise _misuse(option, f"{text!r} is no duration such as 45s, 5m or a number of seconds")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def size(text: str | None, option: str) -> int | None:
    """The bytes given to an option, such as 256MiB, 1GB or 4096; None where they weren't given."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise _misuse(option, f"{text!r} is no size such as 256MiB, 1GB or a number of bytes")
    unit = (match[2] or "b").lower().removesuffix("b")
    return int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit.removesuffix("i")])


def s3_url(text: str) -> tuple[str, str]:
    """Bucket and key of s3://BUCKET/KEY; the key is taken as it stands."""
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise CliError(f"{text!r} is not s3://BUCKET/KEY", exit_code=2)
    return bucket, key


def _misuse(option: str, reason: str) -> CliError:
    return CliError(f"{option}: {reason}", exit_code=2)
