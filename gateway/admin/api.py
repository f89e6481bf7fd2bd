"""The management REST: a small Starlette app whose routes, schemas and OpenAPI are one table."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from transom import __version__
from transom.cluster.catalog import Catalog
from transom.cluster.records import BadRecord, CatalogError, EtlRecord, Exists, InUse, Missing, ViewRecord
from transom.gateway.admin.models import ErrorShown, EtlBody, EtlShown, PluginShown, ViewBody, ViewShown
from transom.gateway.app import Authenticator, drained, http_request
from transom.gateway.context import Call, Principal
from transom.gateway.handlers.bodies import read_document
from transom.gateway.views import find_view
from transom.plugins.args import has_defaults, schema
from transom.s3compat.errors import S3Error, from_target
from transom.target.errors import NoSuchBucket, TargetError
from transom.target.etl.registry import Registry
from transom.target.store.base import Store

_STATUS: dict[type[CatalogError], tuple[int, str]] = {
    Exists: (409, "AlreadyExists"),
    Missing: (404, "NotFound"),
    InUse: (409, "InUse"),
    BadRecord: (400, "InvalidArgument"),
}
_log = structlog.get_logger("transom.admin")


class ApiError(Exception):
    """A call that fails; the message is public."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Verb:
    """One method of one path: what it takes and gives, and who answers."""

    method: str
    path: str
    summary: str
    answer: Callable[[Admin, Request, Principal, Any], Awaitable[tuple[int, Any]]]
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Admin:
    """What the management REST works on."""

    registry: Registry
    catalog: Catalog
    store: Store
    authenticator: Authenticator

    # --- plugins --------------------------------------------------------------------------------

    async def plugins(self, _r: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """List what is installed, and what could not be imported."""
        transformers = self.registry.transformers
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

    # --- ETLs -----------------------------------------------------------------------------------

    async def etls(self, _r: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """List ETLs, the implicit ones too."""
        return 200, {"etls": [_etl_shown(record) for record in self.registry.records()]}

    async def etl(self, request: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """Show one ETL."""
        return 200, _etl_shown(self._etl(request.path_params["name"]))

    async def put_etl(self, request: Request, principal: Principal, body: EtlBody) -> tuple[int, Any]:
        """Make an ETL, or change one: a new revision."""
        self.registry.check(body.plugin, body.args)
        record = EtlRecord(name=request.path_params["name"], owner=principal.owner, **body.model_dump())
        kept, new = await asyncio.to_thread(self.catalog.put_etl, record)
        return (201 if new else 200), _etl_shown(kept)

    async def start_etl(self, request: Request, principal: Principal, _b: None) -> tuple[int, Any]:
        """Let a stopped ETL run again."""
        return await self._set_state(request, principal, "running")

    async def stop_etl(self, request: Request, principal: Principal, _b: None) -> tuple[int, Any]:
        """Refuse new runs of an ETL; those under way end as they would."""
        return await self._set_state(request, principal, "stopped")

    async def remove_etl(self, request: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """Forget an ETL that no view uses."""
        await asyncio.to_thread(self.catalog.remove_etl, request.path_params["name"])
        return 204, None

    async def _set_state(self, request: Request, principal: Principal, state: Any) -> tuple[int, Any]:
        record = self._etl(request.path_params["name"])
        kept = await asyncio.to_thread(self.catalog.put_state, record.name, state, owner=principal.owner)
        return 200, _etl_shown(kept)

    def _etl(self, name: str) -> EtlRecord:
        record = {each.name: each for each in self.registry.records()}.get(name)
        if record is None:
            raise ApiError(404, "NotFound", f"no ETL named '{name}'")
        return record

    # --- views ----------------------------------------------------------------------------------

    async def views(self, _r: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """List the views that were made; implicit ones need no record."""
        return 200, {"views": [_view_shown(view) for view in self.catalog.snapshot().views.values()]}

    async def view(self, request: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """Show one view."""
        return 200, _view_shown(self.catalog.view(request.path_params["name"]))

    async def put_view(self, request: Request, principal: Principal, body: ViewBody) -> tuple[int, Any]:
        """Make a view of a bucket, or change one."""
        name = request.path_params["name"]
        record = _view_record(name, principal, body)
        if find_view(self.catalog, body.bucket) is not None:
            raise ApiError(400, "InvalidArgument", f"'{body.bucket}' is a view; a view is of a bucket")
        await self.store.bucket(body.bucket)
        if await self._is_bucket(name):
            raise ApiError(409, "AlreadyExists", f"a bucket named '{name}' exists")
        args_json = None if body.args is None else json.dumps(body.args)
        self.registry.plan(record.pipeline, args_json)
        implicit = [t.name for t in self.registry.transformers.values() if has_defaults(t)]
        kept, new = await asyncio.to_thread(self.catalog.put_view, record, implicit=implicit)
        return (201 if new else 200), _view_shown(kept)

    async def remove_view(self, request: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """Forget a view; its source is not touched."""
        await asyncio.to_thread(self.catalog.remove_view, request.path_params["name"])
        return 204, None

    async def _is_bucket(self, name: str) -> bool:
        try:
            await self.store.bucket(name)
        except NoSuchBucket:
            return False
        return True

    async def openapi(self, _r: Request, _p: Principal, _b: None) -> tuple[int, Any]:
        """Describe this API."""
        return 200, openapi()


VERBS: tuple[Verb, ...] = (
    Verb("GET", "/plugins", "List installed transformers", Admin.plugins),
    Verb("GET", "/etls", "List ETLs", Admin.etls),
    Verb("GET", "/etls/{name}", "Show an ETL", Admin.etl, gives=EtlShown),
    Verb("PUT", "/etls/{name}", "Make or change an ETL", Admin.put_etl, takes=EtlBody, gives=EtlShown),
    Verb("DELETE", "/etls/{name}", "Remove an ETL", Admin.remove_etl),
    Verb("POST", "/etls/{name}/start", "Start an ETL", Admin.start_etl, gives=EtlShown),
    Verb("POST", "/etls/{name}/stop", "Stop an ETL", Admin.stop_etl, gives=EtlShown),
    Verb("GET", "/views", "List views", Admin.views),
    Verb("GET", "/views/{name}", "Show a view", Admin.view, gives=ViewShown),
    Verb("PUT", "/views/{name}", "Make or change a view", Admin.put_view, takes=ViewBody, gives=ViewShown),
    Verb("DELETE", "/views/{name}", "Remove a view", Admin.remove_view),
    Verb("GET", "/openapi.json", "This description", Admin.openapi),
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
        good: dict[str, Any] = {"description": "Done"}
        entry: dict[str, Any] = {
            "summary": verb.summary,
            "operationId": verb.answer.__name__,
            "responses": {"2XX": good},
        }
        entry["responses"]["default"] = {"description": "Refused", "content": _content("Error")}
        if "{name}" in verb.path:
            entry["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
        for model in (verb.takes, verb.gives):
            if model is not None:
                schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        if verb.takes is not None:
            entry["requestBody"] = {"required": True, "content": _content(verb.takes.__name__)}
        if verb.gives is not None:
            good["content"] = _content(verb.gives.__name__)
        paths.setdefault(f"/-/api/v1{verb.path}", {})[verb.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "Transom management API", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


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
            failure = _failure(error)
            if failure is None:
                _log.exception("internal error", request_id=request_id, path=request.url.path)
                failure = ApiError(500, "InternalError", S3Error("InternalError").message)
            response = _refusal(failure, request, request_id)
        await response(scope, receive, send)

    async def _answer(self, request: Request, request_id: str) -> tuple[int, Any]:
        principal, raw = await _authorise(self.admin.authenticator, request, request_id)
        verb = self._verb(request.method)
        body = None if verb.takes is None else verb.takes.model_validate_json(raw or b"{}")
        return await verb.answer(self.admin, request, principal, body)

    def _verb(self, method: str) -> Verb:
        if not self.verbs:
            raise ApiError(404, "NotFound", "nothing is served at this path")
        verb = self.verbs.get("GET" if method == "HEAD" else method)
        if verb is None:
            allowed = ", ".join(self.verbs)
            raise ApiError(405, "MethodNotAllowed", f"this path takes {allowed}", {"Allow": allowed})
        return verb


def _failure(error: Exception) -> ApiError | None:
    """What a call that raised is refused with; None for what nobody foresaw."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"]) or "body"
        return ApiError(400, "InvalidArgument", f"{where}: {detail['msg']}")
    if isinstance(error, CatalogError):
        return ApiError(*_STATUS.get(type(error), (500, "InternalError")), str(error))
    if isinstance(error, S3Error | TargetError):
        mapped = from_target(error)
        return ApiError(mapped.status, mapped.code, mapped.message, mapped.headers)
    return None


def _refusal(failure: ApiError, request: Request, request_id: str) -> Response:
    _log.info("refused", request_id=request_id, path=request.url.path, code=failure.code, message=failure.message)
    shown = ErrorShown(code=failure.code, message=failure.message, request_id=request_id)
    return JSONResponse(shown.model_dump(), failure.status, failure.headers)


async def _authorise(authenticator: Authenticator, request: Request, request_id: str) -> tuple[Principal, bytes]:
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
    return principal, await read_document(Call(http, address, identity, principal, request_id, receive))


def _check_admin(principal: Principal) -> None:
    if not principal.access_key:
        raise ApiError(403, "AccessDenied", "sign the request with an admin key")
    if not principal.admin:
        raise ApiError(403, "AccessDenied", f"access key {principal.access_key} is not an admin's")


def _etl_shown(record: EtlRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in EtlShown.model_fields}
    fields["args"] = dict(record.args)
    return EtlShown(**fields).model_dump()


def _view_shown(view: ViewRecord) -> dict[str, Any]:
    return ViewShown(
        name=view.name,
        bucket=view.bucket,
        etl=">>".join(view.pipeline),
        args=list(view.args),
        ext=dict(view.extensions),
        sizes=view.sizes,
        owner=view.owner,
        created_ns=view.created_ns,
    ).model_dump()


def _view_record(name: str, principal: Principal, body: ViewBody) -> ViewRecord:
    pipeline = tuple(stage.strip() for stage in body.etl.split(">>"))
    args = body.args
    if args is None:
        args = ()
    elif not isinstance(args, list) or len(pipeline) == 1:
        args = (args,)
    return ViewRecord(
        name=name,
        bucket=body.bucket,
        pipeline=pipeline,
        args=tuple(args),
        extensions=tuple(body.ext.items()),
        sizes=body.sizes,
        owner=principal.owner,
    )


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
