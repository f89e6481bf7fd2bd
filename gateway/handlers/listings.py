"""Listings of keys, versions and uploads under way, a page at a time."""

from __future__ import annotations

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.s3compat import documents
from transom.s3compat.operations import Listing as ListingOperation
from transom.s3compat.operations import ListMultipartUploads, ListObjects, ListObjectsV2, ListObjectVersions
from transom.s3compat.reply import Reply
from transom.target.store.base import Listing, UploadListing

_XML = ("content-type", "application/xml")
_NOTHING = Listing(objects=(), prefixes=(), next_after=None)
_NO_UPLOADS = UploadListing(uploads=(), prefixes=(), next_after=None)


async def list_objects(ctx: GatewayContext, call: Call, op: ListObjects) -> Reply:
    """List keys, version 1."""
    await access.listable_bucket(ctx, call, op)
    page = await _page(ctx, op, op.after)
    return Reply(
        200,
        [_XML, _region(ctx), *_sizes(page)],
        documents.list_objects(op, page.objects, page.prefixes, page.next_after),
    )


async def list_objects_v2(ctx: GatewayContext, call: Call, op: ListObjectsV2) -> Reply:
    """List keys, version 2."""
    await access.listable_bucket(ctx, call, op)
    page = await _page(ctx, op, op.after)
    return Reply(
        200,
        [_XML, _region(ctx), *_sizes(page)],
        documents.list_objects_v2(op, page.objects, page.prefixes, page.next_after),
    )


async def list_object_versions(ctx: GatewayContext, call: Call, op: ListObjectVersions) -> Reply:
    """List versions: of every key the null version, which is its latest."""
    await access.listable_bucket(ctx, call, op)
    page = await _page(ctx, op, op.key_marker)
    return Reply(
        200, [_XML, *_sizes(page)], documents.list_object_versions(op, page.objects, page.prefixes, page.next_after)
    )


async def list_multipart_uploads(ctx: GatewayContext, call: Call, op: ListMultipartUploads) -> Reply:
    """List uploads under way."""
    await access.listable_bucket(ctx, call, op)
    page = _NO_UPLOADS
    if op.limit:
        page = await ctx.store.uploads(
            op.bucket,
            prefix=op.prefix,
            delimiter=op.delimiter,
            after=(op.key_marker, op.upload_id_marker),
            limit=op.limit,
        )
    return Reply(200, [_XML], documents.list_multipart_uploads(op, page.uploads, page.prefixes, page.next_after))


async def _page(ctx: GatewayContext, op: ListingOperation, after: str) -> Listing:
    if not op.limit:
        return _NOTHING  # max-keys=0 is answered as a whole listing of nothing
    return await ctx.store.list_objects(
        op.bucket, prefix=op.prefix, delimiter=op.delimiter, after=after, limit=op.limit
    )


def _region(ctx: GatewayContext) -> tuple[str, str]:
    return ("x-amz-bucket-region", ctx.region)


def _sizes(page: Listing) -> list[tuple[str, str]]:
    """Say of a view's listing what its sizes are: with "source", those of results not yet made are the source's."""
    return [("x-transom-sizes", page.sizes)] if page.sizes else []
