"""Views over the management REST: list, show, make, change, remove."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import Request

from transom.cluster.records import ViewRecord
from transom.gateway.admin.context import Admin
from transom.gateway.admin.errors import ApiError
from transom.gateway.admin.models import ViewBody, ViewShown
from transom.gateway.context import Principal
from transom.gateway.views import find_view
from transom.plugins.args import has_defaults
from transom.target.errors import NoSuchBucket


async def views(admin: Admin, _r: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """List the views that were made; implicit ones need no record."""
    return 200, {"views": [_shown(view) for view in admin.catalog.snapshot().views.values()]}


async def view(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Show one view."""
    return 200, _shown(admin.catalog.view(request.path_params["name"]))


async def put_view(admin: Admin, request: Request, principal: Principal, body: ViewBody) -> tuple[int, Any]:
    """Make a view of a bucket, or change one."""
    name = request.path_params["name"]
    record = _record(name, principal, body)
    if find_view(admin.catalog, body.bucket) is not None:
        raise ApiError(400, "InvalidArgument", f"'{body.bucket}' is a view; a view is of a bucket")
    await admin.store.bucket(body.bucket)
    if await _is_bucket(admin, name):
        raise ApiError(409, "AlreadyExists", f"a bucket named '{name}' exists")
    args_json = None if body.args is None else json.dumps(body.args)
    admin.registry.plan(record.pipeline, args_json)
    implicit = [t.name for t in admin.registry.transformers.values() if has_defaults(t)]
    kept, new = await asyncio.to_thread(admin.catalog.put_view, record, implicit=implicit)
    return (201 if new else 200), _shown(kept)


async def remove_view(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Forget a view; its source is not touched."""
    await asyncio.to_thread(admin.catalog.remove_view, request.path_params["name"])
    return 204, None


async def _is_bucket(admin: Admin, name: str) -> bool:
    try:
        await admin.store.bucket(name)
    except NoSuchBucket:
        return False
    return True


def _shown(view: ViewRecord) -> dict[str, Any]:
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


def _record(name: str, principal: Principal, body: ViewBody) -> ViewRecord:
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
