"""The tags of objects."""

from __future__ import annotations

from collections.abc import Mapping

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.bodies import read_document
from transom.gateway.handlers.versions import check_version
from transom.s3compat import documents
from transom.s3compat.operations import DeleteObjectTagging, GetObjectTagging, PutObjectTagging, parse_tagging
from transom.s3compat.reply import Reply


async def get_object_tagging(ctx: GatewayContext, call: Call, op: GetObjectTagging) -> Reply:
    """Tell the tags, sorted by key."""
    check_version(op.version_id)
    bucket = await access.known_bucket(ctx, op)
    info = await access.readable_source(ctx, call, bucket, op.key)
    document = documents.tagging(dict(sorted(info.attributes.tags.items())))
    return Reply(200, [("content-type", "application/xml")], document)


async def put_object_tagging(ctx: GatewayContext, call: Call, op: PutObjectTagging) -> Reply:
    """Replace the tags."""
    check_version(op.version_id)
    await access.writable_bucket(ctx, call, op)
    await ctx.store.head(op.bucket, op.key)
    await _set_tags(ctx, op, parse_tagging(await read_document(call)))
    return Reply(200, [])


async def delete_object_tagging(ctx: GatewayContext, call: Call, op: DeleteObjectTagging) -> Reply:
    """Remove the tags."""
    check_version(op.version_id)
    await access.writable_bucket(ctx, call, op)
    await _set_tags(ctx, op, {})
    return Reply(204, [])


async def _set_tags(ctx: GatewayContext, op: PutObjectTagging | DeleteObjectTagging, tags: Mapping[str, str]) -> None:
    await ctx.store.update(op.bucket, op.key, tags=tags)
