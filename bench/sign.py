"""Signs requests with AWS Signature Version 4 in headers, and serializes them to HTTP/1.1 bytes.

It opens no socket and knows nothing of what the requests are for. A serialized request may be sent again for as
long as its signature is fresh: S3 accepts it for 15 minutes, so the generator signs each key once every few minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
USER_AGENT = "transom-bench"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the S3 service listens. `prefix` is the path before the bucket, without a trailing slash."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `http://host:port/prefix`; raises ValueError for anything but http and https."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https endpoint: {url!r}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The Host header: no port when it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair; an empty access key means requests go unsigned."""

    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r})"


@lru_cache(maxsize=64)
def signing_key(secret_key: str, date: str, region: str) -> bytes:
    """The key derived for one day, region and the s3 service."""
    key = b"AWS4" + secret_key.encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_query(query: Sequence[tuple[str, str]]) -> str:
    """Sorted and percent-encoded as SigV4 wants it; it is also what goes on the wire."""
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query))


def serialize(
    endpoint: Endpoint,
    credentials: Credentials,
    method: str,
    path: str,
    *,
    query: Sequence[tuple[str, str]] = (),
    length: int | None = None,
    now: float | None = None,
) -> bytes:
    """The request's head as bytes. `path` is decoded and starts with a slash; `length` is that of the body, if any."""
    target = quote(endpoint.prefix + path, safe="/-_.~")
    query_string = canonical_query(query)
    headers = [("Host", endpoint.authority), ("User-Agent", USER_AGENT)]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    if credentials.access_key:
        payload = EMPTY_SHA256 if length is None else UNSIGNED
        moment = time.gmtime(time.time() if now is None else now)
        headers += _signature(endpoint, credentials, method, target, query_string, payload, moment)
    lines = [f"{method} {target}{'?' + query_string if query_string else ''} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _signature(
    endpoint: Endpoint,
    credentials: Credentials,
    method: str,
    target: str,
    query_string: str,
    payload: str,
    moment: time.struct_time,
) -> list[tuple[str, str]]:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", moment)
    date = stamp[:8]
    signed = "host;x-amz-content-sha256;x-amz-date"
    canonical = (
        f"{method}\n{target}\n{query_string}\n"
        f"host:{endpoint.authority}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n\n{signed}\n{payload}"
    )
    scope = f"{date}/{credentials.region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = signing_key(credentials.secret_key, date, credentials.region)
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
    return [("x-amz-date", stamp), ("x-amz-content-sha256", payload), ("Authorization", authorization)]
