"""Requests signed by the real botocore, as s3compat reads them; and aws-chunked bodies signed chunk by chunk."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from transom.s3compat.addressing import split
from transom.s3compat.auth import Identity, authenticate
from transom.s3compat.request import HttpRequest

ACCESS, SECRET, REGION = "AKIATRANSOM", "s3cr3t/with+signs", "us-east-1"
CREDENTIALS = Credentials(ACCESS, SECRET)
ENDPOINT = "http://127.0.0.1:9000"
DOMAINS = ("s3.example.test",)


def secret_of(access_key: str) -> str | None:
    return SECRET if access_key == ACCESS else None


def arrived(prepared_url: str, method: str, headers: Mapping[str, str]) -> HttpRequest:
    parts = urlsplit(prepared_url)
    lower = {name.lower(): value for name, value in headers.items()}
    lower.setdefault("host", parts.netloc)
    return HttpRequest(method, parts.path or "/", parts.query, lower)


def signed(
    method: str = "GET",
    path: str = "/bucket/key",
    *,
    endpoint: str = ENDPOINT,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    region: str = REGION,
    streaming: str = "",
) -> HttpRequest:
    """Sign in the Authorization header; `streaming` is put in place of the payload's hash."""
    request = AWSRequest(method, endpoint + path, headers=dict(headers or {}), data=body)
    auth = S3SigV4Auth(CREDENTIALS, "s3", region)
    if streaming:
        auth.payload = lambda _request: streaming  # type: ignore[method-assign]
    auth.add_auth(request)
    return arrived(request.url, method, dict(request.headers.items()))


def presigned(
    method: str = "GET",
    path: str = "/bucket/key",
    *,
    endpoint: str = ENDPOINT,
    expires: int = 600,
    headers: Mapping[str, str] | None = None,
) -> HttpRequest:
    request = AWSRequest(method, endpoint + path, headers=dict(headers or {}))
    S3SigV4QueryAuth(CREDENTIALS, "s3", REGION, expires=expires).add_auth(request)
    return arrived(request.url, method, dict(headers or {}))


def presigned_v2(
    method: str = "GET",
    path: str = "/bucket/key",
    *,
    endpoint: str = ENDPOINT,
    expires: int = 600,
    headers: Mapping[str, str] | None = None,
    auth_path: str | None = None,
) -> HttpRequest:
    request = AWSRequest(method, endpoint + path, headers=dict(headers or {}), auth_path=auth_path)
    HmacV1QueryAuth(CREDENTIALS, expires=expires).add_auth(request)
    return arrived(request.url, method, {})


def verify(request: HttpRequest, now: float | None = None, *, domains: Sequence[str] = DOMAINS) -> Identity:
    address = split(request.raw_path, request.host, domains)
    return authenticate(request, secret_of, time.time() if now is None else now, address=address)


def with_header(request: HttpRequest, name: str, value: str | None) -> HttpRequest:
    headers = dict(request.headers)
    if value is None:
        headers.pop(name, None)
    else:
        headers[name] = value
    return replace(request, headers=headers)


# --- signed chunks, by the arithmetic of Amazon's documentation, apart from the library's -------


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def chunked_body(request: HttpRequest, chunks: Sequence[bytes], trailers: Mapping[str, str] | None = None) -> bytes:
    """Frame `chunks` as aws-chunked, each signed in a chain that starts at the request's own signature."""
    authorization = request.headers["authorization"]
    previous = authorization.rpartition("Signature=")[2]
    scope = authorization.partition("Credential=")[2].partition(",")[0].partition("/")[2]
    stamp = request.headers["x-amz-date"]
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    empty = hashlib.sha256(b"").hexdigest()
    wire = bytearray()
    for chunk in [*chunks, b""]:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{empty}\n{hashlib.sha256(chunk).hexdigest()}"
        previous = _hmac(key, text).hex()
        wire += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk
        if chunk or trailers is None:
            wire += b"\r\n"
    if trailers is not None:
        lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        text = f"AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{hashlib.sha256(lines.encode()).hexdigest()}"
        wire += lines.replace("\n", "\r\n").encode()
        wire += f"x-amz-trailer-signature:{_hmac(key, text).hex()}\r\n\r\n".encode()
    return bytes(wire)
