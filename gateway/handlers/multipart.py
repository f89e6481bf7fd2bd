"""Multipart uploads under way: start, part, part by copy, abort, and the listing of parts."""

from __future__ import annotations

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.bodies import MAX_BODY, AlsoComputing, Body, Recomputing
from transom.gateway.handlers.checksum_headers import checksum_headers
from transom.gateway.handlers.copies import open_source
from transom.gateway.handlers.new_objects import stored_attributes
from transom.s3compat import documents
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import (
    AbortMultipartUpload,
    CreateMultipartUpload,
    ListParts,
    UploadPart,
    UploadPartCopy,
)
from transom.s3compat.ranges import resolve_copy_range
from transom.s3compat.reply import Reply
from transom.target.store.base import Intake, Upload

_XML = ("content-type", "application/xml")


async def create_multipart_upload(ctx: GatewayContext, call: Call, op: CreateMultipartUpload) -> Reply:
    """Start an upload; what the object will say of itself is settled here."""
    bucket = await access.writable_bucket(ctx, call, op)
    upload = await ctx.store.create_upload(
        op.bucket,
        op.key,
        stored_attributes(op.attributes, call.principal, bucket),
        checksum_algorithm=op.checksum_algorithm,
        checksum_type=op.checksum_type,
    )
    headers = [_XML]
    if upload.checksum_algorithm:
        headers.append(("x-amz-checksum-algorithm", upload.checksum_algorithm))
        headers.append(("x-amz-checksum-type", upload.checksum_type))
    return Reply(200, headers, documents.create_multipart_upload(op.bucket, op.key, upload.upload_id))


async def upload_part(ctx: GatewayContext, call: Call, op: UploadPart) -> Reply:
    """Store a part; nothing of it is read before the upload is known to be under way."""
    await access.writable_bucket(ctx, call, op)
    upload = await ctx.store.upload(op.bucket, op.key, op.upload_id)
    body = Body(call)
    intake: Intake = body.intake
    if upload.checksum_algorithm and upload.checksum_algorithm != op.checksum_algorithm:
        intake = AlsoComputing(intake, upload.checksum_algorithm)
    part = await ctx.store.put_part(op.bucket, op.key, op.upload_id, op.part_number, body.pieces(), intake=intake)
    return Reply(200, [("etag", f'"{part.etag}"'), *checksum_headers(part.checksums, "")])


async def upload_part_copy(ctx: GatewayContext, call: Call, op: UploadPartCopy) -> Reply:
    """Make a part of another object's bytes, which stream through."""
    await access.writable_bucket(ctx, call, op)
    upload = await ctx.store.upload(op.bucket, op.key, op.upload_id)
    reader = await open_source(ctx, call, op.source, op.source_if)
    try:
        start, stop = 0, reader.info.size
        if op.source_range is not None:
            start, stop = resolve_copy_range(op.source_range, stop)
        if stop - start > MAX_BODY:
            raise S3Error("EntityTooLarge", ProposedSize=str(stop - start), MaxSizeAllowed=str(MAX_BODY))
        intake = Recomputing((upload.checksum_algorithm,) if upload.checksum_algorithm else ())
        part = await ctx.store.put_part(
            op.bucket, op.key, op.upload_id, op.part_number, reader.chunks(start, stop), intake=intake
        )
    finally:
        reader.close()
    return Reply(200, [_XML], documents.upload_part_copy(part))


async def abort_multipart_upload(ctx: GatewayContext, call: Call, op: AbortMultipartUpload) -> Reply:
    """Drop an upload and its parts."""
    await access.writable_bucket(ctx, call, op)
    await ctx.store.abort_upload(op.bucket, op.key, op.upload_id)
    return Reply(204, [])


async def list_parts(ctx: GatewayContext, call: Call, op: ListParts) -> Reply:
    """List an upload's parts, a page at a time; nothing is ever being uploaded to a bucket that takes no writes."""
    bucket = await access.known_bucket(ctx, op)
    if not access.can_write(call.principal, bucket):
        access.refuse()
    if bucket.read_only:
        raise S3Error("NoSuchUpload", UploadId=op.upload_id)
    upload: Upload = await ctx.store.upload(op.bucket, op.key, op.upload_id)
    found = await ctx.store.parts(op.bucket, op.key, op.upload_id, after=op.part_number_marker, limit=op.limit + 1)
    page, truncated = found[: op.limit], op.limit > 0 and len(found) > op.limit
    return Reply(200, [_XML], documents.list_parts(op, upload, page, truncated=truncated))
