"""GetObjectAttributes: chosen facts about an object, without its bytes."""

from __future__ import annotations

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.versions import check_version
from transom.s3compat import documents
from transom.s3compat.dates import http_date
from transom.s3compat.operations import GetObjectAttributes
from transom.s3compat.reply import Reply


async def get_object_attributes(ctx: GatewayContext, call: Call, op: GetObjectAttributes) -> Reply:
    """Tell the attributes asked for; the parts a page at a time."""
    check_version(op.version_id)
    bucket = await access.known_bucket(ctx, op)
    info = await access.readable_object(ctx, call, bucket, op.key)
    headers = [("content-type", "application/xml"), ("last-modified", http_date(info.modified_ns // 1_000_000_000))]
    return Reply(200, headers, documents.object_attributes(op, info))
