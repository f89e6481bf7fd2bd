"""CopyObject, and the opening of what a copy reads: its source may belong to somebody else."""

from __future__ import annotations

from dataclasses import replace

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.bodies import MAX_BODY, Recomputing
from transom.gateway.handlers.conditions import conflicts, write_condition
from transom.gateway.handlers.new_objects import stored_attributes
from transom.gateway.handlers.versions import check_version
from transom.s3compat import documents
from transom.s3compat.conditions import Conditions
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import CopyObject, CopySource
from transom.s3compat.reply import Reply
from transom.target.store.base import Attributes, Bucket, ObjectInfo, ObjectReader

_NS = 1_000_000_000
_TOO_LARGE = f"The specified copy source is larger than the maximum allowable size for a copy source: {MAX_BODY}"
_TO_ITSELF = (
    "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
    "metadata, storage class, website redirect location or encryption attributes."
)


async def open_source(ctx: GatewayContext, call: Call, source: CopySource, conditions: Conditions) -> ObjectReader:
    """Open the object a copy reads, when the caller may and the conditions hold; the caller closes the reader."""
    check_version(source.version_id)
    bucket = await ctx.store.bucket(source.bucket)
    expected = call.request.effective_headers.get("x-amz-source-expected-bucket-owner")
    if expected is not None and expected != bucket.owner:
        raise S3Error("AccessDenied", "The source bucket's owner is not the one given.")
    reader = await access.open_object(ctx, call, bucket, source.key)
    info = reader.info
    if conditions and conditions.check_copy(info.etag, info.modified_ns / _NS) != "ok":
        reader.close()
        raise S3Error("PreconditionFailed")
    return reader


async def copy_object(ctx: GatewayContext, call: Call, op: CopyObject) -> Reply:
    """Write an object with another's bytes, which stream through."""
    bucket = await access.writable_bucket(ctx, call, op)
    condition = await write_condition(ctx, op.bucket, op.key, op.write_if)
    reader = await open_source(ctx, call, op.source, op.source_if)
    try:
        source = reader.info
        _check_copy(op, source)
        attributes = _attributes(call, op, bucket, source.attributes)
        async with conflicts(op.write_if):
            info = await ctx.store.put(
                op.bucket,
                op.key,
                reader.chunks(),
                attributes,
                intake=copied_checksums(source, op.checksum_algorithm),
                condition=condition,
            )
    finally:
        reader.close()
    return Reply(200, [("content-type", "application/xml")], documents.copy_object(info))


def copied_checksums(source: ObjectInfo, algorithm: str) -> Recomputing:
    """Return the intake of a whole copy: the checksums asked for, else of the source's kinds, computed if need be."""
    known = {} if source.checksum_type == "COMPOSITE" else source.checksums
    if algorithm:
        return Recomputing((algorithm,), {name: value for name, value in known.items() if name == algorithm})
    return Recomputing(tuple(source.checksums), known)


def _check_copy(op: CopyObject, source: ObjectInfo) -> None:
    if source.size > MAX_BODY:
        raise S3Error("InvalidRequest", _TOO_LARGE)
    to_itself = (op.source.bucket, op.source.key) == (op.bucket, op.key)
    reclassed = op.storage_class is not None and op.storage_class != source.attributes.storage_class
    if to_itself and op.metadata_directive == "COPY" and not reclassed:
        raise S3Error("InvalidRequest", _TO_ITSELF)


def _attributes(call: Call, op: CopyObject, bucket: Bucket, source: Attributes) -> Attributes:
    written = stored_attributes(op.attributes, call.principal, bucket)
    kept = source if op.metadata_directive == "COPY" else written
    return replace(
        written,
        content=kept.content,
        metadata=kept.metadata,
        tags=source.tags if op.tagging_directive == "COPY" else written.tags,
        storage_class=op.storage_class or "STANDARD",
    )
