"""One HTTP request as it arrived: the only thing this library reads. No sockets, no framework types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transom.s3compat.query import Query


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
    def host(self) -> str:
        """The Host header, with its port."""
        return self.headers.get("host", "")
