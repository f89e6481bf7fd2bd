"""The gateway's ASGI app: request id, authentication, dispatch, and the one error boundary that answers for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from transom.gateway.context import Call, GatewayContext, Principal
from transom.gateway.credentials import Credentials
from transom.gateway.handlers import HANDLERS
from transom.gateway.transforms import TransformReads
from transom.gateway.views import implicit_name
from transom.s3compat.addressing import Address, split
from transom.s3compat.auth import Identity, authenticate
from transom.s3compat.errors import ERROR_HEADER, S3Error, from_target, in_header, render
from transom.s3compat.operations import GetObject, HeadObject, Operation, parse
from transom.s3compat.reply import Reply
from transom.s3compat.request import HttpRequest
from transom.target.access_log import AccessLog, new_request_id
from transom.target.errors import TargetError
from transom.target.respond import ClientLeftError, Departure, UnfinishedBodyError, lifespan, respond

_log = structlog.get_logger("transom.gateway")
_INTERNAL = "/-/"
_DRAINED_SIZE = 64 * 1024
_DRAINED_WITHIN_S = 1.0

Handler = Callable[[GatewayContext, Call, Any], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Finds out who signed a request."""

    credentials: Credentials
    domains: tuple[str, ...]

    def __call__(self, request: HttpRequest) -> tuple[Address, Identity, Principal]:
        """Raises S3Error where a signature is there and isn't right."""
        address = split(request.raw_path, request.host, self.domains)
        identity = authenticate(request, self.credentials.secret_of, time.time(), address=address)
        return address, identity, self.credentials.principal(identity.access_key)


@dataclass(frozen=True, slots=True)
class S3App:
    """Every path but those of the management API."""

    context: GatewayContext
    authenticator: Authenticator
    reads: TransformReads
    access_log: AccessLog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whatever happens: the error boundary."""
        started = time.perf_counter()
        request = http_request(scope)
        seen = _Seen(started, new_request_id(), request.raw_path)
        departure, body = Departure(receive), _Body(receive)
        try:
            reply = await self._reply(request, seen, body, departure)
        except (ClientDisconnect, ClientLeftError):
            _log.info("the client left", request_id=seen.request_id, operation=seen.operation)
            return
        except (S3Error, TargetError) as failure:
            reply = _refusal(failure, request, seen.request_id)
        except Exception:
            _log.exception("internal error", request_id=seen.request_id, operation=seen.operation)
            reply = _refusal(S3Error("InternalError"), request, seen.request_id)
        reply.headers.append(("x-amz-request-id", seen.request_id))
        if not await body.finish(request):
            reply.headers.append(("connection", "close"))
        await self._send(reply, seen, scope, departure, send)

    async def _reply(self, request: HttpRequest, seen: _Seen, body: _Body, departure: Departure) -> Reply:
        address, identity, principal = self.authenticator(request)
        seen.access_key = principal.access_key
        if request.raw_path.startswith(_INTERNAL) and not address.via:
            _refuse_internal(principal)
        if address.via:
            address = replace(address, bucket=implicit_name(address.bucket, address.via), via="")
        call = Call(request, address, identity, principal, seen.request_id, body.next, departure)
        operation = parse(request, address)
        seen.operation = operation.name
        return await self._handle(call, operation)

    async def _handle(self, call: Call, operation: Operation) -> Reply:
        if isinstance(operation, GetObject | HeadObject) and self.reads.wants(operation):
            return await self.reads.read(self.context, call, operation)
        handler: Handler = HANDLERS[type(operation)]
        return await handler(self.context, call, operation)

    async def _send(self, reply: Reply, call: _Seen, scope: Scope, departure: Departure, send: Send) -> None:
        try:
            sent = await respond(reply, scope, departure, send)
        except UnfinishedBodyError as error:
            _log.error("unfinished", request_id=call.request_id, operation=call.operation, reason=str(error))
            raise
        self.access_log.request(
            call.started,
            request_id=call.request_id,
            operation=call.operation,
            method=scope["method"],
            path=call.path,
            status=reply.status,
            bytes=sent,
            key=call.access_key,
        )


@dataclass(slots=True)
class _Seen:
    """What the log says of a request, as far as it got."""

    started: float
    request_id: str
    path: str
    operation: str = ""
    access_key: str = ""


class _Body:
    """The raw request body, piece by piece."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        self.begun = False

    async def finish(self, request: HttpRequest) -> bool:
        """Read what is left of a body that nobody wanted; tell whether the connection can serve another request.

        It can't where the rest is large, and where the client was never told to send it: it keeps its body then, and
        the server would take the next request's first bytes for it.
        """
        if self._ended or not _announces_body(request):
            return True
        if not self.begun and request.headers.get("expect", "").lower() == "100-continue":
            return False
        return await drained(request, self.next)

    async def next(self) -> bytes | None:
        """The next piece, None at the end; raises ClientDisconnect."""
        self.begun = True
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            if piece:
                return piece
        return None


def _announces_body(request: HttpRequest) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def drained(request: HttpRequest, receive: Callable[[], Awaitable[bytes | None]]) -> bool:
    """Read a small body to its end, so that the connection stays usable; tell whether that was done."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > _DRAINED_SIZE:
        return False
    try:
        async with asyncio.timeout(_DRAINED_WITHIN_S):
            while await receive() is not None:
                pass
    except (TimeoutError, ClientDisconnect):
        return False
    return True


def http_request(scope: Scope) -> HttpRequest:
    """Read an ASGI scope."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return HttpRequest(
        method=scope["method"],
        raw_path=scope["raw_path"].decode("latin-1"),
        query_string=scope["query_string"].decode("latin-1"),
        headers=headers,
        scheme=scope["scheme"],
        http_version=scope["http_version"],
    )


def build_app(s3: S3App, admin: ASGIApp, metrics: ASGIApp, health: Mapping[str, object]) -> ASGIApp:
    """Put the parts under one roof."""
    router = Router(
        routes=[Route("/-/health", _health(health)), Route("/-/metrics", metrics), Mount("/-/api/v1", app=admin)],
        default=s3,
        redirect_slashes=False,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["path"].startswith(_INTERNAL):
            await router(scope, receive, send)
        else:
            await s3(scope, receive, send)

    return app


def _health(health: Mapping[str, object]) -> Callable[..., Any]:
    from starlette.responses import JSONResponse

    async def endpoint(_: object) -> JSONResponse:
        return JSONResponse({"status": "ok", **health})

    return endpoint


def _refusal(failure: S3Error | TargetError, request: HttpRequest, request_id: str) -> Reply:
    error = from_target(failure)
    headers = [("content-type", "application/xml"), (ERROR_HEADER, in_header(error)), *error.headers.items()]
    if error.status == 304:  # noqa: PLR2004 - it has no body
        return Reply(304, list(error.headers.items()))
    return Reply(error.status, headers, render(error, resource=request.raw_path, request_id=request_id))


def _refuse_internal(principal: Principal) -> None:
    if not principal.access_key:
        raise S3Error("AccessDenied")
    raise S3Error("InvalidURI", "Nothing is served at this path; '-' can't be a bucket's name.")
