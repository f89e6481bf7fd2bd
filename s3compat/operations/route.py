"""Which S3 operation a request asks for, by method, level and subresource, before any of it is read."""

from __future__ import annotations

from transom.s3compat.addressing import Address
from transom.s3compat.errors import S3Error
from transom.s3compat.operations.table import OPERATIONS, REFINED_BY, SUBRESOURCES, Level
from transom.s3compat.query import Query
from transom.s3compat.request import HttpRequest


def operation_name(request: HttpRequest, address: Address) -> str:
    """Return the S3 name of what is asked for, implemented or not; MethodNotAllowed where S3 has nothing."""
    level: Level = "object" if address.key else "bucket" if address.bucket else "service"
    method, query = request.method, request.query
    if method == "OPTIONS":
        _refuse_preflight(request)
    row = OPERATIONS.get((method, level))
    if row is None:
        raise _not_allowed(method, level)
    sub = _subresource(query, level) if len(query) else ""
    if sub and sub in REFINED_BY and query.has(REFINED_BY[sub]):
        sub = f"{sub}&{REFINED_BY[sub]}" if f"{sub}&{REFINED_BY[sub]}" in row else sub
    if sub == "" and level == "bucket" and method == "GET" and query.has("list-type"):
        sub = "list-type" if query.get("list-type") == "2" else ""
    name = row.get(sub)
    if name is None:
        if method == "POST" and request.headers.get("content-type", "").startswith("multipart/form-data"):
            return "PostObject"
        if request.raw_path == "/WriteGetObjectResponse":
            return "WriteGetObjectResponse"
        raise _not_allowed(method, level)
    if name in ("PutObject", "UploadPart") and _has_copy_source(request):
        return "CopyObject" if name == "PutObject" else "UploadPartCopy"
    return name


def _subresource(query: Query, level: Level) -> str:
    known = SUBRESOURCES[level]
    for name in query.names:
        if name in known:
            return name
    return ""


def _not_allowed(method: str, level: Level) -> S3Error:
    allowed = ", ".join(each for each, at in OPERATIONS if at == level and OPERATIONS[each, at])
    return S3Error(
        "MethodNotAllowed",
        headers={"Allow": allowed},
        Method=method,
        ResourceType=level.upper(),
        AllowedMethods=allowed,
    )


def _refuse_preflight(request: HttpRequest) -> None:
    if "origin" not in request.headers:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    raise S3Error("AccessForbidden", Method=request.headers.get("access-control-request-method", ""))


def _has_copy_source(request: HttpRequest) -> bool:
    # A presigned URL may carry the header as a parameter.
    name = "x-amz-copy-source"
    return name in request.headers or any(each.lower() == name for each in request.query.names)
