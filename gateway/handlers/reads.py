"""GetObject and HeadObject of an object as it is stored. Transforms and views are answered elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.checksum_headers import checksum_headers
from transom.gateway.handlers.versions import check_version
from transom.s3compat.conditions import Conditions, if_range
from transom.s3compat.dates import http_date
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import GetObject, HeadObject, Read
from transom.s3compat.ranges import content_range, parse_range
from transom.s3compat.reply import Reply
from transom.target.store.base import ObjectInfo, ObjectReader

WHOLE_BODY_MAX = 256 * 1024  # up to here a body is one `bytes`: no generator, and the reader is closed at once
_NS = 1_000_000_000
_CONDITIONAL = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
_KEPT_ON_304 = ("cache-control", "expires")


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes [start, stop) that an answer carries; `part` is the index of the part asked for, if one was."""

    start: int
    stop: int
    partial: bool = False
    part: int | None = None


class ReaderBody:
    """A body streamed from a reader, which it closes at its end, on an error, and on `aclose`, even if never begun."""

    def __init__(self, reader: ObjectReader, start: int, stop: int) -> None:
        self._reader = reader
        self._chunks = reader.chunks(start, stop)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except BaseException:
            self._reader.close()
            raise

    async def aclose(self) -> None:
        """Let go of the object; whoever stops before the end calls this."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
        self._reader.close()


def check_read(call: Call, op: Read) -> None:
    """Refuse what no read may ask, of a stored object or of a transformed one: other versions, anonymous overrides."""
    if op.version_id is not None:
        check_version(op.version_id)
    if op.response_overrides and not call.principal.access_key:
        raise S3Error("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")


async def plain_get(ctx: GatewayContext, call: Call, op: GetObject) -> Reply:
    """Answer GetObject with the stored bytes."""
    check_read(call, op)
    bucket = await access.known_bucket(ctx, op)
    reader = await access.open_object(ctx, call, bucket, op.key)
    handed_over = False
    try:
        info = reader.info
        refusal = _judge_conditions(call, info)
        if refusal is not None:
            return refusal
        span = find_span(call.request.headers, op.part_number, info)
        headers = answer_headers(info, span, op)
        status = 206 if span.partial else 200
        if span.stop - span.start <= WHOLE_BODY_MAX:
            return Reply(status, headers, await _read_whole(reader, span))
        handed_over = True
        return Reply(status, headers, ReaderBody(reader, span.start, span.stop))
    finally:
        if not handed_over:
            reader.close()


async def plain_head(ctx: GatewayContext, call: Call, op: HeadObject) -> Reply:
    """Answer HeadObject: what plain_get would say, without opening the object."""
    check_read(call, op)
    bucket = await access.known_bucket(ctx, op)
    info = await access.readable_object(ctx, call, bucket, op.key)
    refusal = _judge_conditions(call, info)
    if refusal is not None:
        return refusal
    span = find_span(call.request.headers, op.part_number, info)
    return Reply(206 if span.partial else 200, answer_headers(info, span, op))


def find_span(headers: Mapping[str, str], part_number: int | None, info: ObjectInfo) -> Span:
    """Work out which bytes are asked for, by part number or Range; InvalidRange, InvalidPartNumber."""
    if part_number is not None:
        return _part_span(part_number, info)
    wanted = parse_range(headers.get("range"))
    if wanted is None or not if_range(headers, info.etag, info.modified_ns / _NS):
        return Span(0, info.size)
    start, stop = wanted.resolve(info.size)
    return Span(start, stop, partial=True)


def answer_headers(info: ObjectInfo, span: Span, op: Read) -> list[tuple[str, str]]:
    """Return the headers of a 200 or 206 about the object."""
    attributes = info.attributes
    content = attributes.content
    overrides = op.response_overrides
    headers = [
        ("content-length", str(span.stop - span.start)),
        ("content-type", overrides.get("content-type") or info.content_type),
        ("etag", f'"{info.etag}"'),
        ("last-modified", http_date(info.modified_ns // _NS)),
        ("accept-ranges", "bytes"),
    ]
    if span.partial and info.size:
        headers.append(("content-range", content_range(span.start, span.stop, info.size)))
    if overrides:
        content = {**content, **overrides}
    if len(content) > ("content-type" in content):
        headers += [(name, value) for name, value in content.items() if name != "content-type" and value]
    for name, value in attributes.metadata.items():
        headers.append(("x-amz-meta-" + name, value))
    if attributes.tags:
        headers.append(("x-amz-tagging-count", str(len(attributes.tags))))
    if attributes.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", attributes.storage_class))
    headers += _span_checksums(info, span, asked=op.checksum_mode)
    if span.part is not None and info.parts:
        headers.append(("x-amz-mp-parts-count", str(len(info.parts))))
    return headers


def _judge_conditions(call: Call, info: ObjectInfo) -> Reply | None:
    headers = call.request.headers
    if not any(name in headers for name in _CONDITIONAL):
        return None
    verdict = Conditions.parse(headers).check(info.etag, info.modified_ns / _NS)
    if verdict == "failed":
        raise S3Error("PreconditionFailed", Condition="If-Match" if "if-match" in headers else "If-Unmodified-Since")
    if verdict == "not-modified":
        content = info.attributes.content
        kept = [(name, content[name]) for name in _KEPT_ON_304 if name in content]
        etag, modified = f'"{info.etag}"', http_date(info.modified_ns // _NS)
        return Reply(304, [("etag", etag), ("last-modified", modified), *kept])
    return None


def _part_span(number: int, info: ObjectInfo) -> Span:
    if not info.parts:
        if number > 1:
            raise S3Error("InvalidPartNumber", ActualPartCount="1", PartNumberRequested=str(number))
        return Span(0, info.size, partial=info.size > 0, part=0)
    start = 0
    for index, part in enumerate(info.parts):
        # The parts of a finished object are counted from 1 without gaps, whatever numbers they were uploaded under.
        if index + 1 == number:
            return Span(start, start + part.size, partial=info.size > 0, part=index)
        start += part.size
    raise S3Error("InvalidPartNumber", ActualPartCount=str(len(info.parts)), PartNumberRequested=str(number))


def _span_checksums(info: ObjectInfo, span: Span, *, asked: bool) -> list[tuple[str, str]]:
    """Checksums of just the bytes sent, when asked for: never the whole object's on a 206, there a part's own."""
    if not asked or not info.checksums:
        return []
    if span.part is not None and info.parts:
        own = info.parts[span.part].checksums
        checksums: Mapping[str, str] = {name: own[name] for name in info.checksums if name in own}
    elif span.partial:
        return []
    else:
        checksums = info.checksums
    return checksum_headers(checksums, info.checksum_type)


async def _read_whole(reader: ObjectReader, span: Span) -> bytes:
    if span.start == span.stop:
        return b""
    data = reader.at_once(span.start, span.stop)
    if data is not None:
        return data
    pieces = [chunk async for chunk in reader.chunks(span.start, span.stop)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
