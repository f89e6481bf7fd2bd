"""Views: read-only virtual buckets. A `Store` laid over the real one, so every S3 read works on them unchanged.

A view grants nothing: its bucket and objects carry the owner and ACL of their source, and handlers judge those.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from transom.cluster.catalog import Catalog
from transom.cluster.records import IMPLICIT_VIEW_MARK, ViewRecord
from transom.gateway.context import Transforms
from transom.s3compat.errors import CATALOGUE, ERROR_HEADER, S3Error, from_target
from transom.s3compat.reply import Reply
from transom.target.answer import Ask
from transom.target.errors import EtlSkipped, NoSuchKey, ReadOnlyStore, TargetError
from transom.target.etl.plan import Plan
from transom.target.service import Target
from transom.target.store.base import (
    Attributes,
    Bucket,
    Intake,
    Listing,
    ObjectInfo,
    ObjectReader,
    Part,
    Store,
    Upload,
    UploadListing,
    WriteCondition,
)

_SIZES_AT_ONCE = 8
_STAGE_SEPARATORS = ("~", ">>")


@dataclass(frozen=True, slots=True)
class View:
    """A view, made or implicit, as a read needs it. `extensions` maps a source key's extension to the listed one."""

    bucket: str
    pipeline: tuple[str, ...]
    args_json: str | None = None
    extensions: tuple[tuple[str, str], ...] = ()
    sizes: str = "source"

    def listed(self, key: str) -> str:
        """The key that a source key is listed under."""
        stem, dot, extension = key.rpartition(".")
        for source, shown in self.extensions:
            if dot and extension == source:
                return f"{stem}.{shown}"
        return key

    def sources(self, key: str) -> Iterator[str]:
        """The source keys that `key` may stand for, the renamed ones first."""
        stem, dot, extension = key.rpartition(".")
        for source, shown in self.extensions:
            if dot and extension == shown:
                yield f"{stem}.{source}"
        if not (dot and any(extension == source for source, _ in self.extensions)):
            yield key


def implicit_name(bucket: str, via: str) -> str:
    """The name of the implicit view of `bucket` through the pipeline `via`."""
    return f"{bucket}{IMPLICIT_VIEW_MARK}{via.replace('>>', '~')}"


def find_view(catalog: Catalog, name: str) -> View | None:
    """The view that a bucket name stands for, or None for a plain bucket."""
    record = catalog.snapshot().views.get(name)
    if record is not None:
        return _of_record(record)
    bucket, mark, pipeline = name.partition(IMPLICIT_VIEW_MARK)
    if not mark:
        return None
    for separator in _STAGE_SEPARATORS:
        pipeline = pipeline.replace(separator, "\0")
    return View(bucket, tuple(pipeline.split("\0")))


def _of_record(record: ViewRecord) -> View:
    args: Any = list(record.args)
    if len(record.pipeline) == 1:
        args = record.args[0] if record.args else None
    args_json = json.dumps(args) if args not in (None, []) else None
    return View(record.bucket, record.pipeline, args_json, tuple(record.extensions), record.sizes)


class ViewStore(Store):
    """The store as clients see it: real buckets, and views over them."""

    def __init__(self, inner: Store, catalog: Catalog, target: Target, transforms: Transforms) -> None:
        self.inner = inner
        self._catalog = catalog
        self._target = target
        self._transforms = transforms

    def plan(self, view: View) -> Plan:
        """Plan a view's pipeline; raises NoSuchEtl, EtlArgsInvalid, EtlUnavailable."""
        return self._target.registry.plan(view.pipeline, view.args_json)

    async def source(self, view: View, key: str) -> ObjectInfo:
        """The source object that `key` of the view stands for. Raises NoSuchKey."""
        for candidate in view.sources(key):
            try:
                return await self.inner.head(view.bucket, candidate)
            except NoSuchKey:
                continue
        raise NoSuchKey("the view has no such key")

    # --- reads ----------------------------------------------------------------------------------

    async def bucket(self, name: str) -> Bucket:
        """See Store."""
        view = find_view(self._catalog, name)
        if view is None:
            return await self.inner.bucket(name)
        return replace(await self.inner.bucket(view.bucket), name=name, read_only=True)

    async def buckets(self) -> Sequence[Bucket]:
        """Every bucket and every made view; implicit views are not listed."""
        found = {bucket.name: bucket for bucket in await self.inner.buckets()}
        for record in self._catalog.snapshot().views.values():
            source = found.get(record.bucket)
            if source is not None:
                view = Bucket(record.name, source.owner, record.created_ns, source.acl, read_only=True)
                found.setdefault(record.name, view)
        return [found[name] for name in sorted(found)]

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """The result's exact size, ETag and type; made first where that is the only way to know the size."""
        view = find_view(self._catalog, bucket)
        if view is None:
            return await self.inner.head(bucket, key)
        source = await self.source(view, key)
        described = self._target.describe(self.plan(view), source)
        size = described.size
        if size is None:
            size = await self._made_size(self.plan(view), source)
        return _derived(
            bucket, key, source, described.etag, described.content_type, size, described.identity.modified_s
        )

    async def open(self, bucket: str, key: str) -> ObjectReader:
        """A reader of the result, for copies from a view."""
        view = find_view(self._catalog, bucket)
        if view is None:
            return await self.inner.open(bucket, key)
        source = await self.source(view, key)
        return _ViewReader(await self.head(bucket, key), source, self.plan(view), self._transforms)

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """Source keys, renamed if the view says so, with the results' ETags; sizes by the view's policy."""
        view = find_view(self._catalog, bucket)
        if view is None:
            return await self.inner.list_objects(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        plan = self.plan(view)
        page = await self._source_page(view, prefix, delimiter, after, limit)
        places = asyncio.Semaphore(_SIZES_AT_ONCE)

        async def entry(source: ObjectInfo) -> ObjectInfo | None:
            async with places:
                return await self._entry(bucket, view, plan, source)

        entries = await asyncio.gather(*(entry(source) for source in page.objects))
        shown = {info.key: info for info in entries if info is not None and info.key.startswith(prefix)}
        return Listing(
            [shown[key] for key in sorted(shown, key=str.encode)], page.prefixes, page.next_after, view.sizes
        )

    async def _source_page(self, view: View, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        if not view.extensions:
            return await self.inner.list_objects(
                view.bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit
            )
        # a prefix or a marker that reaches into a renamed extension means another source key
        head, dot, _ = prefix.rpartition(".")
        source_prefix = head + dot if dot and "/" not in prefix[len(head) :] else prefix
        if after:
            with suppress(NoSuchKey):
                after = (await self.source(view, after)).key
        return await self.inner.list_objects(
            view.bucket, prefix=source_prefix, delimiter=delimiter, after=after, limit=limit
        )

    async def _entry(self, bucket: str, view: View, plan: Plan, source: ObjectInfo) -> ObjectInfo | None:
        try:
            described = self._target.describe(plan, source)
            size = described.size
            if size is None and view.sizes == "materialise":
                size = await self._size_or_none(plan, source)
        except EtlSkipped:
            return None
        shown = source.size if size is None else size
        modified_s = described.identity.modified_s
        return _derived(
            bucket, view.listed(source.key), source, described.etag, described.content_type, shown, modified_s
        )

    async def _size_or_none(self, plan: Plan, source: ObjectInfo) -> int | None:
        try:
            return await self._made_size(plan, source)
        except S3Error as error:
            if error.code == "SlowDown":  # a client that got the source's size would cut the result short
                raise
            return None  # listed all the same: the reason comes with the GET

    async def _made_size(self, plan: Plan, source: ObjectInfo) -> int:
        ask = Ask("HEAD", source.bucket, source.key, plan, headers={})
        try:
            reply = await self._transforms.answer(ask, source, None, explicit=False)
        except TargetError as error:
            raise error if isinstance(error, EtlSkipped) else from_target(error) from error
        _raise_for(reply)
        return int(dict(reply.headers)["content-length"])

    async def parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.parts(bucket, key, upload_id, after=after, limit=limit)

    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.upload(bucket, key, upload_id)

    async def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadListing:
        """Nothing is ever being uploaded to a view."""
        if find_view(self._catalog, bucket) is not None:
            return UploadListing((), (), None)
        return await self.inner.uploads(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    # --- writes: refused on views -----------------------------------------------------------------

    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        """See Store; a view's name is taken."""
        self._refuse_view(name)
        return await self.inner.create_bucket(name, owner=owner, acl=acl)

    async def delete_bucket(self, name: str) -> None:
        """See Store."""
        self._refuse_view(name)
        await self.inner.delete_bucket(name)

    async def set_bucket_acl(self, name: str, acl: str) -> None:
        """See Store."""
        self._refuse_view(name)
        await self.inner.set_bucket_acl(name, acl)

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        attributes: Attributes,
        *,
        intake: Intake | None = None,
        condition: WriteCondition | None = None,
    ) -> ObjectInfo:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.put(bucket, key, body, attributes, intake=intake, condition=condition)

    async def update(
        self, bucket: str, key: str, *, tags: Mapping[str, str] | None = None, acl: str | None = None
    ) -> ObjectInfo:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.update(bucket, key, tags=tags, acl=acl)

    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.delete(bucket, key, condition=condition)

    async def create_upload(
        self, bucket: str, key: str, attributes: Attributes, *, checksum_algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.create_upload(
            bucket, key, attributes, checksum_algorithm=checksum_algorithm, checksum_type=checksum_type
        )

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterator[bytes],
        *,
        intake: Intake | None = None,
    ) -> Part:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.put_part(bucket, key, upload_id, number, body, intake=intake)

    async def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        *,
        checksums: Mapping[str, str] | None = None,
        checksum_type: str = "",
        condition: WriteCondition | None = None,
    ) -> ObjectInfo:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.complete_upload(
            bucket, key, upload_id, parts, checksums=checksums, checksum_type=checksum_type, condition=condition
        )

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """See Store."""
        self._refuse_view(bucket)
        await self.inner.abort_upload(bucket, key, upload_id)

    async def close(self) -> None:
        """See Store."""
        await self._transforms.close()
        await self.inner.close()

    def _refuse_view(self, bucket: str) -> None:
        if find_view(self._catalog, bucket) is not None:
            raise ReadOnlyStore(f"{bucket} is a view: it takes no writes. Write to its source bucket.")


class _ViewReader(ObjectReader):
    """Reads a result by asking for it like any client, pinned to one ETag."""

    def __init__(self, info: ObjectInfo, source: ObjectInfo, plan: Plan, transforms: Transforms) -> None:
        self.info = info
        self._source = source
        self._plan = plan
        self._transforms = transforms

    @property
    def path(self) -> Path | None:
        return None

    def read_at(self, offset: int, length: int) -> bytes:
        raise NotImplementedError("a view is read through `chunks`; transforms read sources, never views")

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        stop = self.info.size if stop is None else min(stop, self.info.size)
        if start >= stop:
            return
        headers = {"range": f"bytes={start}-{stop - 1}", "if-match": f'"{self.info.etag}"'}
        ask = Ask("GET", self._source.bucket, self._source.key, self._plan, headers)
        reply = await self._transforms.answer(ask, self._source, None, explicit=False)
        _raise_for(reply)
        if isinstance(reply.body, bytes):
            yield reply.body
            return
        async for piece in reply.body:
            yield piece

    def close(self) -> None:
        pass


def _derived(
    bucket: str, key: str, source: ObjectInfo, etag: str, content_type: str, size: int, modified_s: int
) -> ObjectInfo:
    attributes = source.attributes
    content = {name: value for name, value in attributes.content.items() if name == "cache-control"}
    if content_type:
        content["content-type"] = content_type
    return ObjectInfo(
        bucket=bucket,
        key=key,
        size=size,
        etag=etag,
        modified_ns=max(source.modified_ns, modified_s * 1_000_000_000),
        attributes=replace(attributes, content=content),
    )


def _raise_for(reply: Reply) -> None:
    """Raise what another target refused with, its code and reason as it told them."""
    if reply.status < HTTPStatus.BAD_REQUEST:
        return
    headers = dict(reply.headers)
    code, _, message = headers.get(ERROR_HEADER, "").partition(": ")
    if code == "NoSuchKey":
        raise EtlSkipped(message)
    told = {"Retry-After": headers["retry-after"]} if "retry-after" in headers else {}
    if code not in CATALOGUE:
        raise S3Error("InternalError", f"The transformed object could not be read (status {reply.status}).")
    raise S3Error(code, message, headers=told)
