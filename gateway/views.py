"""Views: read-only virtual buckets, by name, and the `Store` in which they stand beside the real ones.

A view grants nothing: its bucket carries the owner and ACL of its source. What is in it is read elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transom.cluster.catalog import Catalog
from transom.cluster.records import IMPLICIT_VIEW_MARK, ViewRecord
from transom.gateway.renaming import Renaming
from transom.target.errors import ReadOnlyStore
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
    Whole,
    WriteCondition,
)

_STAGE_SEPARATORS = ("~", ">>")
_KEYS_AS_STORED = Renaming()


@dataclass(frozen=True, slots=True)
class View:
    """A view, made or implicit, as a read needs it."""

    bucket: str
    pipeline: tuple[str, ...]
    args_json: str | None = None
    renaming: Renaming = _KEYS_AS_STORED
    sizes: str = "materialise"


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
    return View(record.bucket, record.pipeline, args_json, Renaming(record.extensions), record.sizes)


class ViewStore(Store):
    """The store as clients see it: real buckets, and views among them, which take no writes.

    It reads no view's objects: whoever wants one judges access to its source before anything is made of it.
    """

    def __init__(self, inner: Store, catalog: Catalog) -> None:
        self.inner = inner
        self._catalog = catalog

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
        """See Store; not for views."""
        self._refuse_unjudged(bucket)
        return await self.inner.head(bucket, key)

    async def open(self, bucket: str, key: str) -> ObjectReader:
        """See Store; not for views."""
        self._refuse_unjudged(bucket)
        return await self.inner.open(bucket, key)

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """See Store; not for views."""
        self._refuse_unjudged(bucket)
        return await self.inner.list_objects(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

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

    async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
        """See Store."""
        self._refuse_view(bucket)
        return await self.inner.put_many(bucket, objects)

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
        """Nothing to let go of: the store below is closed by whoever built it."""

    def _refuse_view(self, bucket: str) -> None:
        if find_view(self._catalog, bucket) is not None:
            raise ReadOnlyStore(f"{bucket} is a view: it takes no writes. Write to its source bucket.")

    def _refuse_unjudged(self, bucket: str) -> None:
        if find_view(self._catalog, bucket) is not None:
            raise RuntimeError(f"{bucket} is a view: it is read through `GatewayContext.view_of`")
