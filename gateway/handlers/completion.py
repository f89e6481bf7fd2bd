"""CompleteMultipartUpload: matching the parts named, and the checksum of the object they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.bodies import MAX_LONG_DOCUMENT, read_document
from transom.gateway.handlers.conditions import conflicts, write_condition
from transom.s3compat import documents
from transom.s3compat.checksums import composite, full_object
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import CompletedPart, CompleteMultipartUpload, parse_complete_multipart_upload
from transom.s3compat.reply import Reply
from transom.target import errors
from transom.target.store.base import ObjectInfo, Part, Upload

_PAGE = 1000


async def complete_multipart_upload(ctx: GatewayContext, call: Call, op: CompleteMultipartUpload) -> Reply:
    """Make the object of its parts; asked again with the same parts, answer the same."""
    await access.writable_bucket(ctx, call, op)
    document = await read_document(call, limit=MAX_LONG_DOCUMENT)
    if not document.strip():
        raise S3Error("MalformedXML")
    named = parse_complete_multipart_upload(document)
    try:
        upload = await ctx.store.upload(op.bucket, op.key, op.upload_id)
    except errors.NoSuchUpload:
        # Completed before, perhaps: then the store remembers what of.
        info = await ctx.store.complete_upload(op.bucket, op.key, op.upload_id, _numbers_and_etags(named))
    else:
        info = await _complete(ctx, op, upload, named)
    return Reply(200, [("content-type", "application/xml")], documents.complete_multipart_upload(info, _location(call)))


async def _complete(
    ctx: GatewayContext, op: CompleteMultipartUpload, upload: Upload, named: Sequence[CompletedPart]
) -> ObjectInfo:
    condition = await write_condition(ctx, op.bucket, op.key, op.write_if)
    parts = _match(named, await _uploaded(ctx, op))
    if op.object_size is not None and op.object_size != sum(part.size for part in parts):
        raise S3Error("InvalidRequest", "The x-amz-mp-object-size given does not match the size of the parts.")
    kind = _checksum_type(op, upload)
    checksums = _checksums(op, upload, kind, parts)
    async with conflicts(op.write_if):
        return await ctx.store.complete_upload(
            op.bucket,
            op.key,
            op.upload_id,
            _numbers_and_etags(named),
            checksums=checksums,
            checksum_type=kind if checksums else "",
            condition=condition,
        )


async def _uploaded(ctx: GatewayContext, op: CompleteMultipartUpload) -> dict[int, Part]:
    found: dict[int, Part] = {}
    after = 0
    while page := await ctx.store.parts(op.bucket, op.key, op.upload_id, after=after, limit=_PAGE):
        found.update((part.number, part) for part in page)
        after = page[-1].number
        if len(page) < _PAGE:
            break
    return found


def _match(named: Sequence[CompletedPart], uploaded: Mapping[int, Part]) -> list[Part]:
    """Return the parts named, each with the ETag and the checksums that the completion claims for it."""
    parts = []
    for claim in named:
        part = uploaded.get(claim.number)
        if part is None or part.etag != claim.etag or not claim.checksums.items() <= part.checksums.items():
            raise S3Error("InvalidPart", PartNumber=str(claim.number), ETag=claim.etag)
        parts.append(part)
    return parts


def _checksum_type(op: CompleteMultipartUpload, upload: Upload) -> str:
    if op.checksum_type and upload.checksum_type and op.checksum_type != upload.checksum_type:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {upload.checksum_type} checksum type. "
            f"The complete request must use the same checksum type.",
        )
    return upload.checksum_type or op.checksum_type or "COMPOSITE"


def _checksums(op: CompleteMultipartUpload, upload: Upload, kind: str, parts: Sequence[Part]) -> Mapping[str, str]:
    """Compute the object's checksum from its parts', and compare what the client claims it to be."""
    names = {upload.checksum_algorithm} if upload.checksum_algorithm else set(op.checksums)
    if unexpected := set(op.checksums) - names:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {upload.checksum_algorithm.lower()}, "
            f"actual checksum Type: {min(unexpected).lower()}",
        )
    made = {}
    for name in names:
        if not all(name in part.checksums for part in parts):
            raise S3Error("InvalidRequest", f"Not every part was uploaded with a {name} checksum.")
        if kind == "FULL_OBJECT":
            made[name] = full_object(name, [(part.checksums[name], part.size) for part in parts])
        else:
            made[name] = composite(name, [part.checksums[name] for part in parts])
        claimed = op.checksums.get(name)
        # A composite may be claimed with or without its count of parts.
        if claimed is not None and claimed not in (made[name], made[name].partition("-")[0]):
            raise S3Error("BadDigest", f"The {name} you specified did not match the calculated checksum.")
    return made


def _numbers_and_etags(named: Sequence[CompletedPart]) -> list[tuple[int, str]]:
    return [(part.number, part.etag) for part in named]


def _location(call: Call) -> str:
    return f"{call.request.scheme}://{call.request.host}{call.request.raw_path}"
