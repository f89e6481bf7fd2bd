"""AWS Signature Version 4, verified: in the Authorization header and in presigned URLs.

Source: 'Authenticating Requests (AWS Signature Version 4)', Amazon S3 API reference. Any region is accepted.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import time
from typing import NamedTuple

from transom.s3compat import canonical
from transom.s3compat.dates import iso_date, parse_amz_date, parse_http_date
from transom.s3compat.errors import S3Error
from transom.s3compat.identity import ChunkSigner, Identity, SecretOf
from transom.s3compat.request import HttpRequest

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
MAX_SKEW_S = 15 * 60
MAX_EXPIRES_S = 7 * 24 * 3600
MAX_CREDENTIAL_CHARACTERS = 512  # Amazon's access keys have up to 128, its regions some 20

STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_PAYLOAD_WORDS = frozenset((UNSIGNED, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER))

_USUAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^,\s]+),\s*SignedHeaders=([a-z0-9;_.-]+),\s*Signature=([0-9a-f]{64})", re.ASCII
)
_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_SCOPE_DATE = re.compile(r"\d{8}", re.ASCII)
_QUERY_REQUIRED = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)


# --- the two forms ------------------------------------------------------------------------------


def verify_header(request: HttpRequest, authorization: str, secret_of: SecretOf, now: float) -> Identity:
    """Verify a request signed in its Authorization header."""
    credential, signed_headers, signature = _parse_authorization(authorization)
    access_key, scope, date, region = _credential(credential, "AuthorizationHeaderMalformed")
    headers = request.headers
    timestamp, then = _header_time(request)
    if not timestamp.startswith(date):
        raise S3Error(
            "AuthorizationHeaderMalformed",
            f"The authorization header is malformed; Invalid credential date. Expected {timestamp[:8]}.",
        )
    payload = headers.get("x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    checked_payload(payload)
    secret = _secret(access_key, secret_of)
    if abs(now - then) > MAX_SKEW_S:
        raise S3Error(
            "RequestTimeTooSkewed",
            RequestTime=timestamp,
            ServerTime=iso_date(now),
            MaxAllowedSkewMilliseconds=str(MAX_SKEW_S * 1000),
        )
    _refuse_token(headers.get("x-amz-security-token"))
    names = _signed_names(signed_headers, "AuthorizationHeaderMalformed")
    _require_signed(request, names)
    key = signing_key(secret, date, region)
    _check(request, _Signed(access_key, key, timestamp, scope, names, payload, signature))
    if payload in (STREAMING_SIGNED, STREAMING_SIGNED_TRAILER):
        return Identity(access_key, "v4-header", payload, ChunkSigner(key, timestamp, scope, signature))
    return Identity(access_key, "v4-header", payload)


def verify_query(request: HttpRequest, secret_of: SecretOf, now: float) -> Identity:
    """Verify a presigned URL."""
    algorithm, credential, signature, timestamp, signed_headers, expires = _query_parameters(request)
    if algorithm != ALGORITHM:
        raise _bad_query('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    access_key, scope, date, region = _credential(credential, "AuthorizationQueryParametersError")
    then = parse_amz_date(timestamp)
    if then is None:
        raise _bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if not timestamp.startswith(date):
        raise _bad_query(f"Invalid credential date. Expected {timestamp[:8]}.")
    lifetime = _lifetime(expires)
    secret = _secret(access_key, secret_of)
    if then - now > MAX_SKEW_S:
        raise S3Error("AccessDenied", "Request is not yet valid", SignedAt=timestamp, ServerTime=iso_date(now))
    if now >= then + lifetime:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            Expires=iso_date(then + lifetime),
            ServerTime=iso_date(now),
        )
    _refuse_token(request.query.get("X-Amz-Security-Token") or request.headers.get("x-amz-security-token"))
    names = _signed_names(signed_headers, "AuthorizationQueryParametersError")
    _require_signed(request, names)
    payload = request.query.get("X-Amz-Content-Sha256")
    if payload is None:
        payload = request.headers["x-amz-content-sha256"] if "x-amz-content-sha256" in names else UNSIGNED
    checked_payload(payload)
    key = signing_key(secret, date, region)
    _check(request, _Signed(access_key, key, timestamp, scope, names, payload, signature))
    # A hash or framing that the sender states beside the signature is still true of the body that it sends.
    stated = request.headers.get("x-amz-content-sha256")
    if payload == UNSIGNED and stated:
        payload = checked_payload(stated)
    chunk = None
    if payload in (STREAMING_SIGNED, STREAMING_SIGNED_TRAILER):
        chunk = ChunkSigner(key, timestamp, scope, signature)
    return Identity(access_key, "v4-query", payload, chunk, expires_at=then + lifetime)


def checked_payload(payload: str) -> str:
    """Return x-amz-content-sha256 if it is one of the things it may be."""
    if payload in _PAYLOAD_WORDS or _SHA256_HEX.fullmatch(payload):
        return payload
    if payload.startswith("STREAMING-AWS4-ECDSA"):
        raise S3Error("NotImplemented", Header="x-amz-content-sha256")
    raise S3Error(
        "InvalidArgument",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        ArgumentName="x-amz-content-sha256",
        ArgumentValue=payload,
    )


# --- the arithmetic -----------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str) -> bytes:
    """Derive the key of one day and region for S3."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class _Signed(NamedTuple):
    """Everything beside the request that goes into checking its signature."""

    access_key: str
    key: bytes
    timestamp: str
    scope: str
    names: list[str]
    payload: str
    signature: str


def _check(request: HttpRequest, signed: _Signed) -> None:
    """Raise SignatureDoesNotMatch unless one of the canonical forms gives the signature."""
    head = f"{ALGORITHM}\n{signed.timestamp}\n{signed.scope}\n"
    tail = f"{canonical.headers(request.headers, signed.names)}\n{';'.join(signed.names)}\n{signed.payload}"
    items = request.query.items_raw if request.query_string else []
    first = ""
    for path, query in canonical.paths_and_queries(request.raw_path, items):
        text = f"{request.method}\n{path}\n{query}\n{tail}"
        first = first or text
        # Header bytes beyond ASCII: some clients sign them as they stand, some their UTF-8 encoding.
        encodings = ("utf-8",) if text.isascii() else ("utf-8", "latin-1")
        for encoding in encodings:
            hashed = hashlib.sha256(text.encode(encoding, "replace")).hexdigest()
            if hmac.compare_digest(hmac.digest(signed.key, (head + hashed).encode(), "sha256").hex(), signed.signature):
                return
    raise S3Error(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=signed.access_key,
        StringToSign=head + hashlib.sha256(first.encode()).hexdigest(),
        SignatureProvided=signed.signature,
        CanonicalRequest=first,
    )


# --- reading ------------------------------------------------------------------------------------


def _parse_authorization(header: str) -> tuple[str, str, str]:
    match = _USUAL.fullmatch(header)
    if match is not None:
        return match.group(1), match.group(2), match.group(3)
    parts = {}
    for piece in header[len(ALGORITHM) :].split(","):
        name, _, value = piece.strip().partition("=")
        parts[name] = value.strip()
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not parts.get(name):
            raise S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; missing {name}.")
    return parts["Credential"], parts["SignedHeaders"].lower(), _ascii(parts["Signature"])


def _ascii(signature: str) -> str:
    # compare_digest takes only ASCII text; nothing else can be a signature.
    return signature if signature.isascii() else ""


@functools.lru_cache(maxsize=1024)
def _scope(text: str) -> tuple[str, str, str, str] | None:
    parts = text.rsplit("/", 4)
    if len(parts) != len(("access_key", "date", "region", "service", "terminator")):
        return None
    return parts[0], "/".join(parts[1:]), parts[1], parts[2]


def _credential(text: str, code: str) -> tuple[str, str, str, str]:
    """Return (access key, scope, date, region) of a credential AKID/DATE/REGION/s3/aws4_request."""
    # What is longer isn't looked at: scopes and their keys are remembered, and whoever sends one chooses its length.
    parsed = _scope(text) if len(text) <= MAX_CREDENTIAL_CHARACTERS else None
    what = "authorization header is" if code == "AuthorizationHeaderMalformed" else "authorization query parameters are"
    if parsed is None or not parsed[0]:
        message = 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        raise S3Error(code, f"The {what} malformed; {message}")
    if not _SCOPE_DATE.fullmatch(parsed[2]):
        raise S3Error(code, f'The {what} malformed; incorrect date format "{parsed[2]}".')
    if not parsed[1].endswith("/s3/aws4_request"):
        raise S3Error(code, f'The {what} malformed; the service must be "s3" and the terminal "aws4_request".')
    return parsed


def _header_time(request: HttpRequest) -> tuple[str, float]:
    """Return when the request says it was signed, as in the string to sign and in epoch seconds."""
    text = request.headers.get("x-amz-date")
    then = parse_amz_date(text) if text else None
    if text and then is not None:
        return text, then
    # Some clients send x-amz-date, or only Date, as an HTTP date.
    then = parse_http_date(text or request.headers.get("date", ""))
    if then is None or then < 0:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    try:
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(then)), then
    except (ValueError, OverflowError) as error:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from error


def _query_parameters(request: HttpRequest) -> list[str]:
    query = request.query
    values = []
    for name in _QUERY_REQUIRED:
        found = query.all(name)
        if len(found) != 1 or not found[0]:
            raise _bad_query(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
        values.append(found[0] if name != "X-Amz-Signature" else _ascii(found[0]))
    return values


def _lifetime(text: str) -> int:
    # Amazon answers 400 here; 403, as other gateways do, since the URL gives access to nothing.
    if not re.fullmatch(r"-?\d{1,12}", text, re.ASCII):
        raise _bad_query("X-Amz-Expires should be a number")
    seconds = int(text)
    if seconds < 0:
        raise S3Error("AccessDenied", "X-Amz-Expires must be non-negative")
    if seconds > MAX_EXPIRES_S:
        raise S3Error(
            "AccessDenied",
            f"X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less "
            f"than {MAX_EXPIRES_S} seconds",
        )
    return seconds


def _bad_query(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def _secret(access_key: str, secret_of: SecretOf) -> str:
    secret = secret_of(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    return secret


def _refuse_token(token: str | None) -> None:
    if token:
        raise S3Error("InvalidToken", "Session tokens are not issued here: sign without one.")


def _signed_names(text: str, code: str) -> list[str]:
    """Return the names in SignedHeaders, each once: a repeated one would repeat its value in the canonical form."""
    names = text.split(";")
    if len(frozenset(names)) != len(names):
        raise S3Error(code, "SignedHeaders names a header twice.")
    return names


def _require_signed(request: HttpRequest, names: list[str]) -> None:
    """Refuse a request whose host or x-amz-* headers the signature leaves open to change."""
    signed = frozenset(names)
    missing = [
        name
        for name in request.headers
        if name[:6] == "x-amz-" and name not in signed and name != "x-amz-content-sha256"
    ]
    if "host" not in signed:
        missing.append("host")
    if missing:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(missing),
        )
