"""Conditional requests: If-Match and its kin as one value, judged as RFC 9110 section 13.2.2 orders them.

ETags are compared without quotes; times in whole seconds, all that an HTTP date holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from transom.s3compat.dates import parse_http_date
from transom.s3compat.etags import parse_list

Verdict = Literal["ok", "not-modified", "failed"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one request; None where not given. A date that can't be read counts as not given."""

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    if_modified_since: float | None = None
    if_unmodified_since: float | None = None

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Conditions:
        """Read the conditions of a GET or HEAD."""
        return _NONE if _NAMES.isdisjoint(headers) else cls._parse(headers, "")

    @classmethod
    def parse_copy(cls, headers: Mapping[str, str]) -> Conditions:
        """Read the conditions on the source of a copy: x-amz-copy-source-if-…."""
        return cls._parse(headers, "x-amz-copy-source-")

    @classmethod
    def _parse(cls, headers: Mapping[str, str], prefix: str) -> Conditions:
        return cls(
            if_match=_etags(headers.get(prefix + "if-match")),
            if_none_match=_etags(headers.get(prefix + "if-none-match")),
            if_modified_since=_date(headers.get(prefix + "if-modified-since")),
            if_unmodified_since=_date(headers.get(prefix + "if-unmodified-since")),
        )

    def __bool__(self) -> bool:
        return self != _NONE

    def check(self, etag: str, modified_s: float) -> Verdict:
        """Judge an existing object for a read: "failed" is 412, "not-modified" 304."""
        seconds = int(modified_s)
        if self.if_match is not None:
            if not _matches(self.if_match, etag, weak=False):
                return "failed"
        elif self.if_unmodified_since is not None and seconds > self.if_unmodified_since:
            return "failed"
        if self.if_none_match is not None:
            if _matches(self.if_none_match, etag, weak=True):
                return "not-modified"
        elif self.if_modified_since is not None and seconds <= self.if_modified_since:
            return "not-modified"
        return "ok"

    def check_copy(self, etag: str, modified_s: float) -> Literal["ok", "failed"]:
        """Judge the source of a copy: whatever doesn't hold is 412."""
        return "ok" if self.check(etag, modified_s) == "ok" else "failed"


_NONE = Conditions()
_NAMES = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))


def if_range(headers: Mapping[str, str], etag: str, modified_s: float) -> bool:
    """Tell whether a Range still counts: no If-Range, or one that names just this version (strong comparison)."""
    value = headers.get("if-range")
    if value is None:
        return True
    value = value.strip()
    if not value.startswith(('"', "W/")):
        date = parse_http_date(value)
        if date is not None:
            return int(modified_s) == int(date)
    return _matches(parse_list(value), etag, weak=False)


def _matches(listed: tuple[str, ...], etag: str, *, weak: bool) -> bool:
    return any(each in ("*", etag) or (weak and each == "W/" + etag) for each in listed)


def _etags(header: str | None) -> tuple[str, ...] | None:
    return None if header is None else parse_list(header)


def _date(header: str | None) -> float | None:
    return None if header is None else parse_http_date(header)
