"""The management REST: a small Starlette app whose routes, schemas and OpenAPI are one table."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from transom import __version__
from transom.gateway.admin import etls, jobs, monitoring, views
from transom.gateway.admin.context import Admin, Verb
from transom.gateway.admin.errors import ApiError, failure
from transom.gateway.admin.models import (
    ErrorShown,
    EtlBody,
    EtlShown,
    EtlsShown,
    JobErrorsShown,
    JobShown,
    JobsShown,
    PluginShown,
    ViewBody,
    ViewShown,
)
from transom.gateway.admin.spec_body import OVERRIDES, WAIT
from transom.gateway.app import Authenticator, drained, http_request
from transom.gateway.context import Call, Principal
from transom.gateway.handlers.bodies import MAX_DOCUMENT, MAX_LONG_DOCUMENT, read_document
from transom.plugins.args import schema
from transom.s3compat.errors import S3Error
from transom.target.jobs.order import Order

_SIGNATURE = ("AWSAccessKeyId", "Signature", "Expires")
_log = structlog.get_logger("transom.admin")


async def plugins(admin: Admin, _r: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """List what is installed, and what could not be imported."""
    transformers = admin.registry.transformers
    shown = [
        PluginShown(
            name=name,
            version=transformer.version,
            distribution=transformers.origin(name).distribution,
            deterministic=transformer.deterministic,
            releases_gil=transformer.releases_gil,
            extension=transformer.extension,
            args_schema=schema(transformer),
            doc=(transformer.__doc__ or "").strip().partition("\n")[0],
        )
        for name, transformer in transformers.items()
    ]
    return 200, {"plugins": [each.model_dump() for each in shown], "missing": dict(transformers.missing)}


async def description(_a: Admin, _r: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Describe this API."""
    return 200, openapi()


VERBS: tuple[Verb, ...] = (
    Verb("GET", "/plugins", "List installed transformers", plugins),
    Verb("GET", "/etls", "List ETLs", etls.etls, gives=EtlsShown),
    Verb(
        "POST",
        "/etls",
        "Make or change ETLs by their specs, and start them",
        etls.init_etls,
        text=True,
        gives=EtlsShown,
        limit=MAX_LONG_DOCUMENT,
        query=(*OVERRIDES, WAIT),
    ),
    Verb("GET", "/etls/{name}", "Show an ETL", etls.etl, gives=EtlShown),
    Verb("PUT", "/etls/{name}", "Make an ETL of a plugin, or change it", etls.put_etl, takes=EtlBody, gives=EtlShown),
    Verb("DELETE", "/etls/{name}", "Remove an ETL", etls.remove_etl),
    Verb("POST", "/etls/{name}/start", "Start an ETL", etls.start_etl, gives=EtlShown, query=(WAIT,)),
    Verb("POST", "/etls/{name}/stop", "Stop an ETL", etls.stop_etl, gives=EtlShown),
    Verb("POST", "/etls/{name}/restart", "Restart an ETL's workers", etls.restart_etl, gives=EtlShown, query=(WAIT,)),
    Verb("GET", "/etls/{name}/logs", "Read workers' logs", monitoring.etl_logs, query=("target", "offset")),
    Verb("GET", "/etls/{name}/errors", "List an ETL's newest errors", monitoring.etl_errors, query=("limit",)),
    Verb("GET", "/etls/{name}/metrics", "Show an ETL's numbers", monitoring.etl_metrics),
    Verb("GET", "/etls/{name}/health", "Tell whether an ETL can be used", monitoring.etl_health),
    Verb("GET", "/views", "List views", views.views),
    Verb("GET", "/views/{name}", "Show a view", views.view, gives=ViewShown),
    Verb("PUT", "/views/{name}", "Make or change a view", views.put_view, takes=ViewBody, gives=ViewShown),
    Verb("DELETE", "/views/{name}", "Remove a view", views.remove_view),
    Verb("GET", "/jobs", "List jobs, page by page", jobs.jobs, gives=JobsShown, query=("before", "limit")),
    Verb("POST", "/jobs", "Start a job", jobs.start_job, takes=Order, gives=JobShown, limit=jobs.MAX_ORDER),
    Verb("GET", "/jobs/{name}", "Show a job", jobs.job, gives=JobShown, query=("wait_ms",)),
    Verb("POST", "/jobs/{name}/abort", "Stop a job", jobs.abort_job, gives=JobShown),
    Verb("POST", "/jobs/{name}/retry", "Start a job again for what it failed on", jobs.retry_job, gives=JobShown),
    Verb(
        "GET",
        "/jobs/{name}/errors",
        "List all that a job failed on, page by page",
        jobs.job_errors,
        gives=JobErrorsShown,
        query=("after", "limit"),
    ),
    Verb("DELETE", "/jobs/{name}", "Remove a job", jobs.remove_job),
    Verb("GET", "/openapi.json", "This description", description),
)


def build_admin(admin: Admin) -> Starlette:
    """The ASGI app, to be mounted under /-/api/v1."""
    resources = {verb.path: _Resource(admin) for verb in VERBS}
    for verb in VERBS:
        resources[verb.path].verbs[verb.method] = verb
    nothing = Route("/{rest:path}", _Resource(admin))
    return Starlette(routes=[*(Route(path, resource) for path, resource in resources.items()), nothing])


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the management REST."""
    schemas: dict[str, Any] = {"Error": ErrorShown.model_json_schema()}
    paths: dict[str, Any] = {}
    for verb in VERBS:
        for model in (verb.takes, verb.gives):
            if model is not None:
                _describe(schemas, model)
        paths.setdefault(f"/-/api/v1{verb.path}", {})[verb.method.lower()] = _operation(verb)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Transom management API", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(verb: Verb) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Done"}
    refused = {"description": "Refused", "content": _content("Error")}
    entry: dict[str, Any] = {
        "summary": verb.summary,
        "operationId": verb.answer.__name__,
        "responses": {"2XX": good, "default": refused},
    }
    parameters = [_parameter("query", name) for name in verb.query]
    if "{name}" in verb.path:
        parameters.insert(0, _parameter("path", "name"))
    if parameters:
        entry["parameters"] = parameters
    if verb.text:
        entry["requestBody"] = {"required": True, "content": {"application/yaml": {"schema": {"type": "string"}}}}
    elif verb.takes is not None:
        entry["requestBody"] = {"required": True, "content": _content(verb.takes.__name__)}
    if verb.gives is not None:
        good["content"] = _content(verb.gives.__name__)
    return entry


def _describe(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    described = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(described.pop("$defs", {}))
    schemas[model.__name__] = described


def _parameter(where: str, name: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": {"type": "string"}}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


@dataclass(frozen=True, slots=True)
class _Resource:
    """What one path answers, by method; a path with no verbs is one at which there is nothing.

    An ASGI app rather than an endpoint, so that no method and no path is answered before it is known who asks.
    """

    admin: Admin
    verbs: dict[str, Verb] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the error boundary."""
        request, request_id = Request(scope, receive), secrets.token_hex(8).upper()
        try:
            status, answer = await self._answer(request, request_id)
            response = Response(status_code=204) if answer is None else JSONResponse(answer, status)
        except ClientDisconnect:
            return
        except Exception as error:
            failed = failure(error)
            if failed is None:
                _log.exception("internal error", request_id=request_id, path=request.url.path)
                failed = ApiError(500, "InternalError", S3Error("InternalError").message)
            response = _refusal(failed, request, request_id)
        await response(scope, receive, send)

    async def _answer(self, request: Request, request_id: str) -> tuple[int, Any]:
        known = self.verbs.get(request.method)
        limit = MAX_DOCUMENT if known is None else known.limit
        principal, raw = await _authorise(self.admin.authenticator, request, request_id, limit)
        verb = self._verb(request.method)
        _check_query(verb, request)
        body = raw if verb.takes is None else verb.takes.model_validate_json(raw or b"{}")
        return await verb.answer(self.admin, request, principal, body)

    def _verb(self, method: str) -> Verb:
        if not self.verbs:
            raise ApiError(404, "NotFound", "nothing is served at this path")
        verb = self.verbs.get("GET" if method == "HEAD" else method)
        if verb is None:
            allowed = ", ".join(self.verbs)
            raise ApiError(405, "MethodNotAllowed", f"this path takes {allowed}", {"Allow": allowed})
        return verb


def _check_query(verb: Verb, request: Request) -> None:
    """Refuse what would be passed over: a misspelt parameter. Those of a signature are the authenticator's."""
    for name in request.query_params:
        if name not in verb.query and name not in _SIGNATURE and not name.lower().startswith("x-amz-"):
            known = ", ".join(verb.query) or "none"
            raise ApiError(400, "InvalidArgument", f"there is no parameter {name!r} here; there are: {known}")


def _refusal(failed: ApiError, request: Request, request_id: str) -> Response:
    _log.info("refused", request_id=request_id, path=request.url.path, code=failed.code, message=failed.message)
    shown = ErrorShown(code=failed.code, message=failed.message, request_id=request_id)
    return JSONResponse(shown.model_dump(), failed.status, failed.headers)


async def _authorise(
    authenticator: Authenticator, request: Request, request_id: str, limit: int
) -> tuple[Principal, bytes]:
    """Check signature, right and body; return who asks and the body."""
    http = http_request(request.scope)
    stream = request.stream()

    async def receive() -> bytes | None:
        return await anext(stream, None)

    try:
        address, identity, principal = authenticator(http)
        _check_admin(principal)
    except (S3Error, ApiError):
        await drained(http, receive)
        raise
    return principal, await read_document(Call(http, address, identity, principal, request_id, receive), limit=limit)


def _check_admin(principal: Principal) -> None:
    if not principal.access_key:
        raise ApiError(403, "AccessDenied", "sign the request with an admin key")
    if not principal.admin:
        raise ApiError(403, "AccessDenied", f"access key {principal.access_key} is not an admin's")
