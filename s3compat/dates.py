"""Dates as S3 writes and reads them: HTTP dates in headers, ISO 8601 in XML. Seconds are of the epoch, in UTC."""

from __future__ import annotations

import calendar
import functools
import re
import time
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_tz

MAX_HTTP_DATE_CHARACTERS = 64  # twice the longest form
_BASIC_ISO = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)


@functools.lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """Return a date as headers carry it: 'Sun, 06 Nov 1994 08:49:37 GMT'."""
    return formatdate(seconds, usegmt=True)


def parse_http_date(text: str) -> float | None:
    """Read an HTTP date (any RFC 9110 form); None when it isn't one."""
    parsed = parsedate_tz(text) if len(text) <= MAX_HTTP_DATE_CHARACTERS else None
    if parsed is None:
        return None
    try:
        return float(calendar.timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0))
    except (ValueError, OverflowError):
        return None


def iso_date(seconds: float) -> str:
    """Return a date as S3's XML carries it: '2009-10-12T17:50:30.000Z'."""
    return iso_date_of_ns(round(seconds * 1000) * 1_000_000)


def iso_date_of_ns(nanoseconds: int) -> str:
    """Return the same of a time in nanoseconds, without a float's rounding."""
    return f"{_iso_second(nanoseconds // 1_000_000_000)}.{nanoseconds // 1_000_000 % 1000:03d}Z"


@functools.lru_cache(maxsize=4096)
def _iso_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def parse_iso_date(text: str) -> float | None:
    """Read an ISO 8601 date; None when it isn't one. Without an offset it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def parse_amz_date(text: str) -> float | None:
    """Read an X-Amz-Date, '20130524T000000Z'; None when it isn't one."""
    # Nothing longer is remembered: whoever sends a date chooses how long it is.
    return _amz_seconds(text) if len(text) == len("20130524T000000Z") else None


@functools.lru_cache(maxsize=1024)
def _amz_seconds(text: str) -> float | None:
    match = _BASIC_ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
