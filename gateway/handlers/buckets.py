"""Buckets: list, make, find, remove, and the little that S3 lets one ask of them."""

from __future__ import annotations

import re

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access, acls
from transom.gateway.handlers.bodies import has_body, read_document
from transom.s3compat import documents, tokens
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import (
    CreateBucket,
    DeleteBucket,
    GetBucketLocation,
    GetBucketVersioning,
    HeadBucket,
    ListBuckets,
    parse_create_bucket,
)
from transom.s3compat.reply import Reply
from transom.target import errors

_XML = ("content-type", "application/xml")
_US_EAST_1 = "us-east-1"
_LOCATION = re.compile(r"[A-Za-z0-9-]{0,32}")


async def list_buckets(ctx: GatewayContext, call: Call, op: ListBuckets) -> Reply:
    """List the caller's own buckets; an anonymous one has none."""
    after = tokens.decode(op.continuation_token) if op.continuation_token else ""
    own = [
        bucket
        for bucket in await ctx.store.buckets()
        if access.owns(call.principal, bucket.owner) and bucket.name > after and bucket.name.startswith(op.prefix)
    ]
    page = own[: op.max_buckets]
    token = tokens.encode(page[-1].name) if len(own) > len(page) else None
    document = documents.list_buckets(page, owner=call.principal.owner, prefix=op.prefix, next_token=token)
    return Reply(200, [_XML], document)


async def create_bucket(ctx: GatewayContext, call: Call, op: CreateBucket) -> Reply:
    """Make a bucket. Making one's own again is no error, as long as it wouldn't change its ACL."""
    if not call.principal.owner:
        raise S3Error("AccessDenied")
    acl = acls.bucket_acl(op.acl, call.principal.owner)
    location = parse_create_bucket(await read_document(call)) if has_body(call) else ""
    # Clients name the region they are set to. There is but one here, so that any will do.
    if not _LOCATION.fullmatch(location):
        raise S3Error("InvalidLocationConstraint", LocationConstraint=location)
    try:
        await ctx.store.create_bucket(op.bucket, owner=call.principal.owner, acl=acl)
    except errors.BucketExists as error:
        await _check_recreation(ctx, call, op, acl, error.owner)
    return Reply(200, [("location", f"/{op.bucket}")])


async def head_bucket(ctx: GatewayContext, call: Call, op: HeadBucket) -> Reply:
    """Say that the bucket is there and may be listed, and in which region."""
    await access.listable_bucket(ctx, call, op)
    return Reply(200, [_XML, ("x-amz-bucket-region", ctx.region), ("x-amz-access-point-alias", "false")])


async def delete_bucket(ctx: GatewayContext, call: Call, op: DeleteBucket) -> Reply:
    """Remove an empty bucket of the caller's own."""
    await access.owned_bucket(ctx, call, op)
    await ctx.store.delete_bucket(op.bucket)
    return Reply(204, [])


async def get_bucket_location(ctx: GatewayContext, call: Call, op: GetBucketLocation) -> Reply:
    """Tell the region, empty for us-east-1 as S3 has it."""
    await access.listable_bucket(ctx, call, op)
    return Reply(200, [_XML], documents.bucket_location("" if ctx.region == _US_EAST_1 else ctx.region))


async def get_bucket_versioning(ctx: GatewayContext, call: Call, op: GetBucketVersioning) -> Reply:
    """Say that versioning was never turned on."""
    await access.listable_bucket(ctx, call, op)
    return Reply(200, [_XML], documents.bucket_versioning())


async def _check_recreation(ctx: GatewayContext, call: Call, op: CreateBucket, acl: str, owner: str) -> None:
    if not access.owns(call.principal, owner):
        raise S3Error("BucketAlreadyExists", BucketName=op.bucket)
    try:
        kept = (await ctx.store.bucket(op.bucket)).acl
    except errors.NoSuchBucket:
        raise S3Error("OperationAborted") from None
    if kept != acl:
        raise S3Error("BucketAlreadyExists", "The bucket exists with another ACL.", BucketName=op.bucket)
