"""One HTTP request as it arrived: the only thing this library reads. No sockets, no framework types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from transom.s3compat.errors import S3Error
from transom.s3compat.query import Query

MAX_HOISTED_BYTES = 8192  # S3's own bound on the headers of a request

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile("[\x20-\x7e\x80-\xff]*")
_AUTH_PARAMETERS = frozenset(
    (
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
    )
)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as sent. Header names are lower-case, repeated ones joined with ','; values are latin-1 decoded."""

    method: str
    raw_path: str
    query_string: str
    headers: Mapping[str, str]
    scheme: str = "http"
    http_version: str = "1.1"
    _query: list[Query] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def query(self) -> Query:
        """The query string, parsed once."""
        if not self._query:
            self._query.append(Query(self.query_string))
        return self._query[0]

    @property
    def effective_headers(self) -> Mapping[str, str]:
        """The headers, joined by those that a presigned URL carries as x-amz-* parameters; a header comes first.

        A parameter that couldn't have been a header is refused: what is kept of it goes out as one again.
        """
        hoisted = _hoisted(self.query) if self.query_string else None
        return {**hoisted, **self.headers} if hoisted else self.headers

    @property
    def host(self) -> str:
        """The Host header, with its port."""
        return self.headers.get("host", "")


def _hoisted(query: Query) -> dict[str, str]:
    hoisted: dict[str, str] = {}
    size = 0
    for name, value in query.pairs:
        lower = name.lower()
        if not lower.startswith("x-amz-") or lower in _AUTH_PARAMETERS:
            continue
        if not (_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
            raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=value)
        size += len(name) + len(value)
        if size > MAX_HOISTED_BYTES:
            raise S3Error("RequestHeaderSectionTooLarge", MaxSizeAllowed=str(MAX_HOISTED_BYTES))
        hoisted.setdefault(lower, value)  # the first counts, as it does to a signature of version 2
    return hoisted
