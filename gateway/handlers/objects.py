"""PutObject, DeleteObject and DeleteObjects: the writes of single objects."""

from __future__ import annotations

import asyncio

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.bodies import MAX_LONG_DOCUMENT, Body, read_document
from transom.gateway.handlers.checksum_headers import checksum_headers
from transom.gateway.handlers.conditions import conflicts, write_condition
from transom.gateway.handlers.new_objects import stored_attributes
from transom.gateway.handlers.versions import check_version
from transom.s3compat import documents
from transom.s3compat.errors import S3Error, from_target
from transom.s3compat.operations import DeleteObject, DeleteObjects, DoomedObject, PutObject, parse_delete_objects
from transom.s3compat.reply import Reply
from transom.target.errors import TargetError
from transom.target.store.base import WriteCondition

DELETES_AT_ONCE = 64  # enough for the store to commit them in groups


async def put_object(ctx: GatewayContext, call: Call, op: PutObject) -> Reply:
    """Store the body; nothing of it is read before the write is known to be allowed."""
    bucket = await access.writable_bucket(ctx, call, op)
    attributes = stored_attributes(op.attributes, call.principal, bucket)
    condition = await write_condition(ctx, op.bucket, op.key, op.write_if)
    body = Body(call)
    async with conflicts(op.write_if):
        info = await ctx.store.put(
            op.bucket, op.key, body.pieces(), attributes, intake=body.intake, condition=condition
        )
    return Reply(200, [("etag", f'"{info.etag}"'), *checksum_headers(info.checksums, info.checksum_type)])


async def delete_object(ctx: GatewayContext, call: Call, op: DeleteObject) -> Reply:
    """Remove an object; one that isn't there is as good as removed."""
    check_version(op.version_id)
    await access.writable_bucket(ctx, call, op)
    await ctx.store.delete(op.bucket, op.key, condition=_only_if(op.write_if.if_match))
    return Reply(204, [])


async def delete_objects(ctx: GatewayContext, call: Call, op: DeleteObjects) -> Reply:
    """Remove up to a thousand objects, each by itself: one's failure is told beside the others' success."""
    await access.writable_bucket(ctx, call, op)
    request = parse_delete_objects(await read_document(call, limit=MAX_LONG_DOCUMENT))
    gate = asyncio.Semaphore(DELETES_AT_ONCE)

    async def remove(doomed: DoomedObject) -> S3Error | None:
        async with gate:
            try:
                check_version(doomed.version_id)
                await ctx.store.delete(op.bucket, doomed.key, condition=_only_if(doomed.etag))
            except (S3Error, TargetError) as error:
                return from_target(error)
        return None

    outcomes = await asyncio.gather(*map(remove, request.objects))
    deleted = [doomed for doomed, error in zip(request.objects, outcomes, strict=True) if error is None]
    failed = [(doomed, error) for doomed, error in zip(request.objects, outcomes, strict=True) if error is not None]
    document = documents.delete_objects([] if request.quiet else deleted, failed)
    return Reply(200, [("content-type", "application/xml")], document)


def _only_if(etag: str | None) -> WriteCondition | None:
    return None if etag is None else WriteCondition(if_match=etag)
