"""Who may do what: bucket owners, object owners and canned ACLs. It knows nothing of the operations themselves.

A view or an ETL grants nothing: whoever serves one asks here about the source, on every request.
"""

from __future__ import annotations

from typing import NoReturn

from transom.gateway.context import Call, GatewayContext, Principal, ReadableView
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import BucketOperation
from transom.target import errors
from transom.target.store.base import Bucket, ObjectInfo, ObjectReader

_READ_BY_ALL = frozenset({"public-read", "public-read-write"})
_READ_BY_KEY_HOLDERS = "authenticated-read"
_WRITE_BY_ALL = "public-read-write"


def owns(principal: Principal, owner: str) -> bool:
    """Say whether the principal is that owner; an anonymous one owns nothing, not even what nobody owns."""
    return principal.owner != "" and principal.owner == owner


def can_list(principal: Principal, bucket: Bucket) -> bool:
    """Say whether the principal may list the bucket's keys and uploads."""
    return owns(principal, bucket.owner) or _acl_reads(principal, bucket.acl)


def can_read(principal: Principal, bucket: Bucket, info: ObjectInfo) -> bool:
    """Say whether the principal may read the object; a bucket's owner may read all of it."""
    return (
        owns(principal, bucket.owner)
        or owns(principal, info.attributes.owner)
        or _acl_reads(principal, info.attributes.acl)
    )


def can_write(principal: Principal, bucket: Bucket) -> bool:
    """Say whether the principal may put, replace and delete objects in the bucket."""
    return owns(principal, bucket.owner) or bucket.acl == _WRITE_BY_ALL


def can_administer(principal: Principal, bucket: Bucket, info: ObjectInfo) -> bool:
    """Say whether the principal may see and set the object's ACL."""
    return owns(principal, bucket.owner) or owns(principal, info.attributes.owner)


def object_owner(principal: Principal, bucket: Bucket) -> str:
    """Whose object a write makes: the writer's; what an anonymous one wrote belongs to the bucket's owner."""
    return principal.owner or bucket.owner


def refuse() -> NoReturn:
    """Raise AccessDenied."""
    raise S3Error("AccessDenied")


def refuse_read_only(bucket: Bucket) -> None:
    """Raise MethodNotAllowed for a view, and for any other bucket that takes no writes."""
    if bucket.read_only:
        raise S3Error("MethodNotAllowed", f"The bucket {bucket.name} is read-only.")


async def known_bucket(ctx: GatewayContext, op: BucketOperation) -> Bucket:
    """Return the bucket, or raise NoSuchBucket; AccessDenied when it isn't whose the caller says it must be."""
    bucket = await ctx.store.bucket(op.bucket)
    if op.expected_owner and op.expected_owner != bucket.owner:
        raise S3Error("AccessDenied", "The bucket's owner is not the one given in x-amz-expected-bucket-owner.")
    return bucket


async def listable_bucket(ctx: GatewayContext, call: Call, op: BucketOperation) -> Bucket:
    """Return a bucket whose keys the caller may list, or raise AccessDenied."""
    bucket = await known_bucket(ctx, op)
    if not can_list(call.principal, bucket):
        refuse()
    return bucket


async def writable_bucket(ctx: GatewayContext, call: Call, op: BucketOperation) -> Bucket:
    """Return a bucket the caller may write to, or raise AccessDenied; MethodNotAllowed when nobody may."""
    bucket = await known_bucket(ctx, op)
    if not can_write(call.principal, bucket):
        refuse()
    refuse_read_only(bucket)
    return bucket


async def owned_bucket(ctx: GatewayContext, call: Call, op: BucketOperation) -> Bucket:
    """Return a bucket of the caller's own, or raise AccessDenied."""
    bucket = await known_bucket(ctx, op)
    if not owns(call.principal, bucket.owner):
        refuse()
    return bucket


async def readable_source(ctx: GatewayContext, call: Call, bucket: Bucket, key: str) -> ObjectInfo:
    """Return the stored object that a key stands for, a view's too, when the caller may read it; nothing is made of it.

    Who may not list the bucket doesn't learn that a key is missing.
    """
    view = view_of(ctx, bucket)
    try:
        source = await (ctx.store.head(bucket.name, key) if view is None else view.source(key))
    except errors.NoSuchKey:
        raise _missing(call, bucket, key) from None
    if not can_read(call.principal, bucket, source):
        refuse()
    return source


async def readable_object(ctx: GatewayContext, call: Call, bucket: Bucket, key: str) -> ObjectInfo:
    """Return an object the caller may read; a view's is made, where need be, once that is known."""
    source = await readable_source(ctx, call, bucket, key)
    view = view_of(ctx, bucket)
    return source if view is None else await view.info(key, source)


async def open_object(ctx: GatewayContext, call: Call, bucket: Bucket, key: str) -> ObjectReader:
    """Open an object the caller may read; the caller closes the reader."""
    view = view_of(ctx, bucket)
    if view is not None:
        source = await readable_source(ctx, call, bucket, key)
        return await view.open(key, source)
    try:
        reader = await ctx.store.open(bucket.name, key)
    except errors.NoSuchKey:
        raise _missing(call, bucket, key) from None
    if not can_read(call.principal, bucket, reader.info):
        reader.close()
        refuse()
    return reader


def view_of(ctx: GatewayContext, bucket: Bucket) -> ReadableView | None:
    """Return the view that the bucket is; None for a plain one."""
    return ctx.view_of(bucket.name) if bucket.read_only else None


def _missing(call: Call, bucket: Bucket, key: str) -> S3Error:
    if can_list(call.principal, bucket):
        return S3Error("NoSuchKey", Key=key)
    return S3Error("AccessDenied")


def _acl_reads(principal: Principal, acl: str) -> bool:
    return acl in _READ_BY_ALL or (acl == _READ_BY_KEY_HOLDERS and principal.owner != "")
