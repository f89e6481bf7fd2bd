"""Offline jobs over the management REST: start, list, show, abort, retry, remove, and what they failed on.

What a job does is decided elsewhere: here is who may ask for it, and what is refused before it is queued.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request

from transom.gateway.admin.context import Admin
from transom.gateway.admin.errors import ApiError
from transom.gateway.admin.models import JobErrorShown, JobShown
from transom.gateway.admin.monitoring import number
from transom.gateway.context import Principal
from transom.gateway.handlers.access import owns
from transom.gateway.views import View, find_view
from transom.s3compat.errors import S3Error
from transom.s3compat.names import check_bucket_name
from transom.target.errors import NoSuchBucket
from transom.target.etl.registry import Registry
from transom.target.jobs.check import check_order
from transom.target.jobs.order import Order
from transom.target.jobs.records import ENDED, Job
from transom.target.store.base import Bucket

MAX_ORDER = 64 * 1024 * 1024  # a million keys
MAX_ERRORS = 10_000
MAX_PAGE = 1000
MAX_NUMBER = 2**63 - 1  # of SQLite
MAX_WAIT_MS = 1000  # a server that stops lets requests end
_ERRORS = 1000
_PAGE = 1000
_LOOK_S = 0.01
_LOOK_AGAIN_S = 0.5  # a process killed between its change and telling of it


async def jobs(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """A page of the jobs, the newest first: those that came before the job number `before`."""
    before = number(request, "before", None, low=0, high=MAX_NUMBER)
    limit = number(request, "limit", _PAGE, low=1, high=MAX_PAGE)
    found, following = await asyncio.to_thread(admin.jobs.page, before, limit)
    return 200, {"jobs": [shown(job) for job in found], "next": following}


async def job(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Show one job; with `wait_ms` once it has ended, or so many milliseconds later."""
    until = time.monotonic() + number(request, "wait_ms", 0, low=0, high=MAX_WAIT_MS) / 1000
    while True:
        seen, looked = admin.jobs.stamp(), time.monotonic()
        found = await asyncio.to_thread(admin.jobs.get, request.path_params["name"])
        if found.state in ENDED or looked >= until:
            return 200, shown(found)
        while admin.jobs.stamp() == seen and time.monotonic() < min(until, looked + _LOOK_AGAIN_S):  # noqa: ASYNC110 - it changes elsewhere
            await asyncio.sleep(_LOOK_S)


async def start_job(admin: Admin, _r: Request, principal: Principal, order: Order) -> tuple[int, Any]:
    """Queue a job of the caller's own buckets, once all that can be known to be wrong with it was refused."""
    await _check_source(admin, principal, order.source.bucket)
    if order.destination is not None:
        await _check_destination(admin, principal, order.destination.bucket)
    registry = Registry(admin.registry.transformers, admin.catalog)  # one that no other thread remembers plans in
    await asyncio.to_thread(check_order, order, registry)
    return 202, shown(await asyncio.to_thread(admin.jobs.add, order, principal.owner))


async def abort_job(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Have a job stopped; an ended one stays as it is."""
    return 202, shown(await asyncio.to_thread(admin.jobs.order_abort, request.path_params["name"]))


async def retry_job(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Queue an ended job again for what it failed on."""
    return 202, shown(await asyncio.to_thread(admin.jobs.retry, request.path_params["name"]))


async def remove_job(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Forget an ended job, and its errors."""
    await asyncio.to_thread(admin.jobs.remove, request.path_params["name"])
    return 204, None


async def job_errors(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """A page of the objects that a job failed on: all of them are kept."""
    after = number(request, "after", 0, low=0, high=MAX_NUMBER)
    limit = number(request, "limit", _ERRORS, low=1, high=MAX_ERRORS)
    found = await asyncio.to_thread(admin.jobs.errors, request.path_params["name"], after, limit)
    told = [JobErrorShown(key=e.key, stage=e.stage, code=e.code, message=e.message).model_dump() for e in found]
    return 200, {"errors": told, "next": found[-1].n if len(found) == limit else None}


def shown(job: Job) -> dict[str, Any]:
    """A job as the REST tells it; an order's keys may be a million, so they are counted."""
    order, counts = job.order, job.counts
    asked = order.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "source", "destination", "keys"})
    places = {"source": str(order.source), **({"destination": str(order.destination)} if order.destination else {})}
    return JobShown(
        id=job.id,
        order={"kind": order.kind, **places, **asked},
        keys=job.keys,
        owner=job.owner,
        state=job.state,
        phase=job.phase,
        message=job.message,
        total=counts.total,
        written=counts.written,
        unchanged=counts.unchanged,
        skipped=counts.skipped,
        failed=counts.failed,
        deleted=counts.deleted,
        bytes_in=counts.bytes_in,
        bytes_out=counts.bytes_out,
        runs=job.runs,
        created_s=job.created_s,
        started_s=job.started_s,
        ended_s=job.ended_s,
    ).model_dump()


async def _check_source(admin: Admin, principal: Principal, name: str) -> None:
    """Raise ApiError or NoSuchBucket unless the caller may have the bucket read."""
    view = find_view(admin.catalog, name)
    if view is not None:
        raise ApiError(400, "InvalidArgument", _not_a_view(name, view))
    _own(principal, await admin.store.bucket(name))


async def _check_destination(admin: Admin, principal: Principal, name: str) -> None:
    """Raise ApiError unless the caller may write to the bucket, or the job may make it, once its objects are listed."""
    if find_view(admin.catalog, name) is not None:
        raise ApiError(405, "MethodNotAllowed", f"'{name}' is a view: it takes no writes. Name a bucket")
    try:
        there = _own(principal, await admin.store.bucket(name))
    except NoSuchBucket:
        _check_name(name)
        return
    if there.read_only:
        raise ApiError(405, "MethodNotAllowed", f"the bucket '{name}' is read-only. Name one that takes writes")


def _check_name(name: str) -> None:
    try:
        check_bucket_name(name)
    except S3Error as error:
        rule = "3 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
        raise ApiError(400, error.code, f"'{name}' can't be a bucket's name: those are {rule}") from error


def _own(principal: Principal, bucket: Bucket) -> Bucket:
    if not owns(principal, bucket.owner):
        raise ApiError(403, "AccessDenied", f"the bucket '{bucket.name}' is somebody else's: a job takes one's own")
    return bucket


def _not_a_view(name: str, view: View) -> str:
    pipeline = ">>".join(view.pipeline)
    return f"'{name}' is a view: give its bucket '{view.bucket}' as the source, and '{pipeline}' in the pipeline"
