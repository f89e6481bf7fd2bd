"""Listings of keys, versions and uploads under way, a page at a time."""

from __future__ import annotations

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.s3compat import documents
from transom.s3compat.operations import Listing as ListingOperation
from transom.s3compat.operations import ListMultipartUploads, ListObjects, ListObjectsV2, ListObjectVersions
from transom.s3compat.reply import Reply
from transom.target.store.base import Listing, ObjectInfo, UploadListing

_XML = ("content-type", "application/xml")
_NOTHING = Listing(objects=(), prefixes=(), next_after=None)
_NO_UPLOADS = UploadListing(uploads=(), prefixes=(), next_after=None)


async def list_objects(ctx: GatewayContext, call: Call, op: ListObjects) -> Reply:
    """List keys, version 1."""
    page = await _page(ctx, call, op, op.after)
    return Reply(
        200,
        [_XML, _region(ctx), *_sizes(page)],
        documents.list_objects(op, page.objects, page.prefixes, page.next_after),
    )


async def list_objects_v2(ctx: GatewayContext, call: Call, op: ListObjectsV2) -> Reply:
    """List keys, version 2."""
    page = await _page(ctx, call, op, op.after)
    return Reply(
        200,
        [_XML, _region(ctx), *_sizes(page)],
        documents.list_objects_v2(op, page.objects, page.prefixes, page.next_after),
    )


async def list_object_versions(ctx: GatewayContext, call: Call, op: ListObjectVersions) -> Reply:
    """List versions: of every key the null version, which is its latest."""
    page = await _page(ctx, call, op, op.key_marker)
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


async def _page(ctx: GatewayContext, call: Call, op: ListingOperation, after: str) -> Listing:
    bucket = await access.listable_bucket(ctx, call, op)
    if not op.limit:
        return _NOTHING  # max-keys=0 is answered as a whole listing of nothing
    view = access.view_of(ctx, bucket)
    if view is None:
        return await ctx.store.list_objects(
            op.bucket, prefix=op.prefix, delimiter=op.delimiter, after=after, limit=op.limit
        )

    def admits(source: ObjectInfo) -> bool:
        return access.can_read(call.principal, bucket, source)

    return await view.list_objects(prefix=op.prefix, delimiter=op.delimiter, after=after, limit=op.limit, admits=admits)


def _region(ctx: GatewayContext) -> tuple[str, str]:
    return ("x-amz-bucket-region", ctx.region)


def _sizes(page: Listing) -> list[tuple[str, str]]:
    """Say that sizes of a view's listing are those of the source objects, where any are."""
    return [("x-transom-sizes", page.sizes)] if page.sizes else []
