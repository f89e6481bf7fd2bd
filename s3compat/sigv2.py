"""AWS Signature Version 2 in presigned URLs, which boto3 still makes by default for a custom endpoint.

It covers the path, the subresources listed here and x-amz-* fields, but no other parameter: requests whose
meaning hangs on others are refused rather than served unprotected.
"""

from __future__ import annotations

import base64
import hmac
import re
from urllib.parse import unquote

from transom.s3compat.addressing import Address, split
from transom.s3compat.canonical import path_reencoded
from transom.s3compat.dates import iso_date
from transom.s3compat.errors import S3Error
from transom.s3compat.identity import Identity, SecretOf
from transom.s3compat.operations import table, transforms
from transom.s3compat.request import HttpRequest
from transom.s3compat.sigv4 import checked_payload

# The parameters that are part of the canonical resource.
SIGNED_PARAMETERS = frozenset(
    (
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "defaultObjectAcl",
        "delete",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "replication",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "select",
        "select-type",
        "storageClass",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    )
)
_UNSIGNED_SUBRESOURCES = frozenset(name for each in table.SUBRESOURCES.values() for name in each) - SIGNED_PARAMETERS
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


def verify_query(request: HttpRequest, secret_of: SecretOf, now: float, address: Address) -> Identity:
    """Verify a URL presigned with AWSAccessKeyId, Expires and Signature."""
    values = []
    for name in ("AWSAccessKeyId", "Expires", "Signature"):
        found = request.query.all(name)
        if len(found) != 1 or not found[0]:
            raise S3Error(
                "AccessDenied",
                "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
            )
        values.append(found[0])
    access_key, expires, signature = values
    if not _SECONDS.fullmatch(expires):
        raise S3Error("AccessDenied", "Invalid date (should be seconds since epoch)", Expires=expires)
    _refuse_uncovered(request, address)
    secret = secret_of(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    if now >= int(expires):
        raise S3Error("AccessDenied", "Request has expired", Expires=expires, ServerTime=iso_date(now))
    _check(request, secret, expires, signature, address, access_key)
    payload = request.headers.get("x-amz-content-sha256", "")
    return Identity(access_key, "v2-query", checked_payload(payload) if payload else "", expires_at=float(expires))


def _refuse_uncovered(request: HttpRequest, address: Address) -> None:
    query = request.query
    if address.via or transforms.touches(query):
        raise S3Error(
            "AccessDenied",
            "A Signature Version 2 URL does not protect a transform. Presign with Signature Version 4: "
            "in boto3, Config(signature_version='s3v4').",
        )
    uncovered = [name for name in query.names if name in _UNSIGNED_SUBRESOURCES]
    if uncovered:
        raise S3Error(
            "AccessDenied",
            f"A Signature Version 2 URL does not protect '{uncovered[0]}'. Presign with Signature Version 4.",
        )


def _check(request: HttpRequest, secret: str, expires: str, signature: str, address: Address, access_key: str) -> None:
    given = signature.strip().encode("ascii", "replace")
    strings = list(strings_to_sign(request, expires, address))
    for text in strings:
        expected = base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1"))
        if hmac.compare_digest(expected, given):
            return
    raise S3Error(
        "SignatureDoesNotMatch", AWSAccessKeyId=access_key, StringToSign=strings[0], SignatureProvided=signature
    )


def strings_to_sign(request: HttpRequest, expires: str, address: Address) -> list[str]:
    """Return what a client may have signed: path as sent or strictly encoded, content fields from header or URL."""
    amz = _amz_lines(request)
    parameters = _parameters(request)
    found: dict[str, None] = {}
    for md5, content_type in _content_fields(request):
        for path in (request.raw_path, path_reencoded(request.raw_path)):
            resource = _resource(path, request, address) + parameters
            found[f"{request.method}\n{md5}\n{content_type}\n{expires}\n{amz}{resource}"] = None
    return list(found)


def _content_fields(request: HttpRequest) -> list[tuple[str, str]]:
    """Content-MD5 and Content-Type: from the headers, or from the URL where botocore also puts them."""
    headers, query = request.headers, request.query
    sent = headers.get("content-md5", "").strip(), headers.get("content-type", "").strip()
    if not query.has("content-md5") and not query.has("content-type"):
        return [sent]
    return [sent, (query.get("content-md5") or sent[0], query.get("content-type") or sent[1])]


def _amz_lines(request: HttpRequest) -> str:
    fields = {name: value.strip() for name, value in request.headers.items() if name.startswith("x-amz-")}
    for name, value in request.query.pairs:
        if name.lower().startswith("x-amz-"):
            fields.setdefault(name.lower(), value.strip())
    return "".join(f"{name}:{fields[name]}\n" for name in sorted(fields))


def _resource(path: str, request: HttpRequest, address: Address) -> str:
    in_path = split(request.raw_path, "", ())
    virtual_host = (in_path.bucket, in_path.key) != (address.bucket, address.key)
    return f"/{address.bucket}{path}" if virtual_host else path


def _parameters(request: HttpRequest) -> str:
    pieces = [piece.split("=", 1) for piece in request.query_string.split("&")]
    signed = [[piece[0], *map(unquote, piece[1:])] for piece in pieces if piece[0] in SIGNED_PARAMETERS]
    signed.sort(key=lambda piece: piece[0])
    return "?" + "&".join(map("=".join, signed)) if signed else ""
