"""Conditional writes: what If-Match and If-None-Match ask, as a condition the store checks in the same step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from transom.gateway.context import GatewayContext
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import WriteIf
from transom.target import errors
from transom.target.store.base import ObjectInfo, WriteCondition


async def write_condition(ctx: GatewayContext, bucket: str, key: str, asked: WriteIf) -> WriteCondition | None:
    """Judge the conditions against what is there now, before any body is read, and return what must still hold.

    Raises PreconditionFailed; NoSuchKey for an If-Match on a missing object. The store judges again as it writes.
    """
    if not asked:
        return None
    try:
        present: ObjectInfo | None = await ctx.store.head(bucket, key)
    except errors.NoSuchKey:
        present = None
    if asked.if_match is not None:
        if present is None:
            raise S3Error("NoSuchKey", Key=key)
        if asked.if_match not in ("*", present.etag):
            raise S3Error("PreconditionFailed", Condition="If-Match")
    if present is not None and asked.if_none_match in ("*", present.etag):
        raise S3Error("PreconditionFailed", Condition="If-None-Match")
    if asked.if_match is not None and asked.if_none_match is None:
        return WriteCondition(if_match=asked.if_match)
    if asked.if_none_match == "*" or present is None:
        return WriteCondition(if_none_match_any=True)
    return WriteCondition(if_match=present.etag)


@asynccontextmanager
async def conflicts(asked: WriteIf) -> AsyncIterator[None]:
    """Name a condition that stopped holding while the write was under way as S3 does.

    `If-None-Match: "etag"` says nothing of other objects, so losing to one of those is a conflict to try again.
    """
    try:
        yield
    except errors.NoSuchKey:
        if asked.if_match is None:
            raise S3Error("ConditionalRequestConflict") from None
        raise
    except errors.PreconditionFailed:
        if asked.if_match is None and asked.if_none_match != "*" and asked.if_none_match is not None:
            raise S3Error("ConditionalRequestConflict") from None
        raise
