"""Monitoring over the management REST: an ETL's logs, errors, metrics and health; and all metrics for Prometheus."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from transom.cluster.records import EtlRecord
from transom.gateway.admin.context import Admin
from transom.gateway.admin.errors import ApiError
from transom.gateway.admin.etls import find
from transom.gateway.admin.looking import looked_at
from transom.gateway.admin.monitor import EXPOSITION_TYPE, health
from transom.gateway.app import http_request
from transom.gateway.context import Principal
from transom.s3compat.errors import S3Error

MAX_ERRORS = 1000
_log = structlog.get_logger("transom.admin")
_ERRORS = 100


async def etl_logs(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """The end of each worker's log; with a target and an offset, what one wrote since."""
    record, target = _record(admin, request), request.query_params.get("target", "")
    offset = number(request, "offset", None, low=0)
    if offset is not None and not target:
        raise ApiError(400, "InvalidArgument", "offset: it is of one target's log; name it with target")
    pieces = await asyncio.to_thread(admin.monitor.logs, record.name, target, offset)
    return 200, {"logs": [asdict(piece) for piece in pieces]}


async def etl_errors(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """The newest errors, each with its object."""
    limit = number(request, "limit", _ERRORS, low=1, high=MAX_ERRORS)
    return 200, {"errors": await asyncio.to_thread(admin.monitor.errors, _record(admin, request).name, limit)}


async def etl_metrics(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """What the ETL did since the server started, and what its workers use."""
    name = _record(admin, request).name
    numbers = await asyncio.to_thread(admin.monitor.numbers, [name])
    workers = await asyncio.to_thread(admin.monitor.workers, name)
    shown = ("target", "revision", "state", "cpu_s", "memory_bytes")
    return 200, {**numbers[name], "workers": [{key: worker.get(key) for key in shown} for worker in workers]}


async def etl_health(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Whether the ETL can be used, and why not."""
    record = _record(admin, request)
    workers = await asyncio.to_thread(admin.monitor.workers, record.name) if record.served else []
    found: Mapping[str, Any] = health(record.state, record.message, workers)
    if found["health"] == "ok" and not record.served:
        found = await looked_at(admin, record)
    return 200, {**found, "state": record.state, "workers": workers}


class Exposition:
    """`GET /-/metrics`, an ASGI app. Signed like everything else, or by HTTP Basic, which is what Prometheus can."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        try:
            self._authorise(request)
            if request.method not in ("GET", "HEAD"):
                raise ApiError(405, "MethodNotAllowed", "this path takes GET", {"Allow": "GET"})  # noqa: TRY301
            names = [record.name for record in self._admin.registry.records()]
            text = await asyncio.to_thread(self._admin.monitor.exposition, names)
            response = Response(text, media_type=None, headers={"content-type": EXPOSITION_TYPE})
        except (ApiError, S3Error) as error:
            response = JSONResponse({"code": error.code, "message": error.message}, error.status, error.headers)
        except Exception:
            _log.exception("internal error", path=request.url.path)
            response = JSONResponse({"code": "InternalError", "message": S3Error("InternalError").message}, 500)
        await response(scope, receive, send)

    def _authorise(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if given.lower().startswith("basic "):
            principal = self._basic(given[len("basic ") :])
        else:
            _, _, principal = self._admin.authenticator(http_request(request.scope))
        if not principal.access_key:
            raise ApiError(403, "AccessDenied", "sign the request, or send an admin's key by HTTP Basic")
        if not principal.admin:
            raise ApiError(403, "AccessDenied", f"access key {principal.access_key} is not an admin's")

    def _basic(self, encoded: str) -> Principal:
        try:
            access, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ApiError(403, "AccessDenied", "the Authorization header is no HTTP Basic") from None
        credentials = self._admin.authenticator.credentials
        known = credentials.secret_of(access)
        if known is None or not hmac.compare_digest(known.encode(), secret.encode()):
            raise ApiError(403, "AccessDenied", "there is no such access key, or its secret is another")
        return credentials.principal(access)


def _record(admin: Admin, request: Request) -> EtlRecord:
    return find(admin, request.path_params["name"])


def number(request: Request, name: str, default: Any, *, low: int, high: int | None = None) -> Any:
    """A whole number in the query, `default` where it isn't given. Raises ApiError."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < low or (high is not None and int(text) > high):
        bounds = f"a number from {low}" + (f" to {high}" if high is not None else "")
        raise ApiError(400, "InvalidArgument", f"{name}: {bounds}, not {text[:20]!r}")
    return int(text)
