"""A store over S3: a server's buckets, for the workers of jobs on machines that don't have its data folder.

It reads, writes objects whole, deletes and lists; buckets and uploads are the server's business.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from transom.target.errors import NoSuchKey, PreconditionFailed, SourceChanged, TargetError
from transom.target.jobs.remote_link import S3Link, broken_off, translated
from transom.target.store.base import (
    Attributes,
    Bucket,
    Intake,
    Listing,
    ObjectInfo,
    ObjectReader,
    Whole,
    WriteCondition,
)
from transom.target.store.refusing import RefusingStore

MIB = 1024 * 1024
_CHUNK = MIB
_SPOOL = 8 * MIB  # bodies up to this size are held in memory until they are sent
_ONE_PUT = 5 * 1024 * MIB  # S3's bound; what is larger goes as a multipart upload
_TOGETHER = 8  # requests at once for objects that are stored together
_CONTENT = {
    "content-type": "ContentType",
    "content-encoding": "ContentEncoding",
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-language": "ContentLanguage",
}
T = TypeVar("T")


class RemoteReader(ObjectReader):
    """Reads one version of an object: front to back over one request, elsewhere with a ranged one."""

    def __init__(self, link: S3Link, info: ObjectInfo) -> None:
        self.info = info
        self._link = link
        self._body: Any = None
        self._at = 0

    @property
    def path(self) -> Path | None:
        """None: the file is on another machine."""
        return None

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`. Raises SourceChanged, SlowDown where the answer breaks off."""
        length = min(length, self.info.size - offset)
        if length <= 0:
            return b""
        if self._body is None and offset == 0:
            self._body = self._get()
            self._at = 0
        with broken_off():
            if self._body is None or offset != self._at:
                return bytes(self._get(offset, offset + length).read())
            data: bytes = self._body.read(length)
        self._at += len(data)
        return data

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop)."""
        at, end = start, self.info.size if stop is None else min(stop, self.info.size)
        while at < end:
            piece = await asyncio.to_thread(self.read_at, at, min(_CHUNK, end - at))
            if not piece:
                raise SourceChanged("the object ended before its size")
            yield piece
            at += len(piece)

    def close(self) -> None:
        """Give up what wasn't read."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _get(self, start: int = 0, stop: int | None = None) -> Any:
        spans = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        named = {"Bucket": self.info.bucket, "Key": self.info.key, "IfMatch": f'"{self.info.etag}"'}
        try:
            return self._link.call("get_object", **named, **spans)["Body"]
        except (PreconditionFailed, NoSuchKey) as error:
            raise SourceChanged("the object was changed or deleted while it was read") from error


class RemoteStore(RefusingStore):
    """The buckets of the server that `link` leads to; what is written belongs to the link's key's owner.

    Bodies whose size isn't known wait in `scratch` until they are whole.
    """

    def __init__(self, link: S3Link, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="remote-store")

    def _check_bucket(self, name: str) -> None:
        self._link.call("head_bucket", Bucket=name)

    async def _call(self, call: Callable[..., T], *args: Any, **parameters: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **parameters))

    # --- reading ----------------------------------------------------------------------------------

    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket. Its owner isn't known here."""
        await self._call(self._check_bucket, name)
        return Bucket(name, "", 0)

    async def buckets(self) -> Sequence[Bucket]:
        """Those of the key's owner."""
        found = (await self._call(self._link.call, "list_buckets"))["Buckets"]
        return [Bucket(each["Name"], "", _ns(each["CreationDate"])) for each in found]

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        return await self._call(self._head, bucket, key)

    async def open(self, bucket: str, key: str) -> ObjectReader:
        """Raises NoSuchBucket, NoSuchKey."""
        return RemoteReader(self._link, await self.head(bucket, key))

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """One page; of the attributes nothing is known here."""
        page = await self._call(
            self._link.call,
            "list_objects_v2",
            Bucket=bucket,
            Prefix=prefix,
            Delimiter=delimiter,
            StartAfter=after,
            MaxKeys=limit,
        )
        found = [
            ObjectInfo(bucket, each["Key"], each["Size"], each["ETag"].strip('"'), _ns(each["LastModified"]))
            for each in page.get("Contents", ())
        ]
        prefixes = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
        last = max([info.key for info in found] + prefixes, key=str.encode, default="")
        return Listing(found, prefixes, last if page["IsTruncated"] else None)

    def _head(self, bucket: str, key: str) -> ObjectInfo:
        told = self._link.call("head_object", Bucket=bucket, Key=key)
        tags: dict[str, str] = {}
        if told.get("TagCount") or "x-amz-tagging-count" in told["ResponseMetadata"]["HTTPHeaders"]:
            tagging = self._link.call("get_object_tagging", Bucket=bucket, Key=key)
            tags = {each["Key"]: each["Value"] for each in tagging["TagSet"]}
        headers = told["ResponseMetadata"]["HTTPHeaders"]
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size=told["ContentLength"],
            etag=told["ETag"].strip('"'),
            modified_ns=_ns(told["LastModified"]),
            attributes=Attributes(
                content={name: headers[name] for name in (*_CONTENT, "expires") if name in headers},
                metadata=told["Metadata"],
                tags=tags,
                storage_class=told.get("StorageClass", "STANDARD"),
            ),
        )

    # --- writing ----------------------------------------------------------------------------------

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
        """Store an object whole. One of more than 5 GiB goes as a multipart upload, and has the ETag of one."""
        md5 = hashlib.md5(usedforsecurity=False)
        with tempfile.SpooledTemporaryFile(_SPOOL, dir=str(self._scratch)) as spool:
            async for chunk in body:
                md5.update(chunk)
                if intake is not None:
                    intake.update(chunk)
                spool.write(chunk)
            size = spool.tell()
            if intake is not None:
                intake.finish(size, md5.hexdigest())
            spool.seek(0)
            said = {**_said(attributes), **_conditional(condition)}
            if size > _ONE_PUT:
                return await self._call(self._upload, bucket, key, spool, said)
            return await self._call(self._put, bucket, key, spool, size, attributes, said)

    async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
        """Store small objects, some at a time."""
        await self.bucket(bucket)
        last = {each.key: each for each in objects}
        stored = await asyncio.gather(*(self._put_whole(bucket, each) for each in last.values()))
        by_key = dict(zip(last, stored, strict=True))
        return [by_key[each.key] for each in objects]

    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """Remove an object; True, for S3 doesn't say whether there was one."""
        await self._call(self._link.call, "delete_object", Bucket=bucket, Key=key, **_conditional(condition))
        return True

    async def _put_whole(self, bucket: str, whole: Whole) -> ObjectInfo | Exception:
        size = len(whole.data)
        try:
            said = _said(whole.attributes)
            return await self._call(self._put, bucket, whole.key, whole.data, size, whole.attributes, said)
        except (TargetError, OSError) as error:
            return error

    def _put(self, bucket: str, key: str, body: Any, size: int, attributes: Attributes, said: dict[str, Any]) -> Any:
        answer = self._link.call("put_object", Bucket=bucket, Key=key, Body=body, **said)
        return ObjectInfo(bucket, key, size, answer["ETag"].strip('"'), time.time_ns(), attributes)

    def _upload(self, bucket: str, key: str, body: Any, said: dict[str, Any]) -> ObjectInfo:
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(multipart_chunksize=64 * MIB, use_threads=False)
        with translated():
            self._link.client.upload_fileobj(body, bucket, key, ExtraArgs=said, Config=parts)
        return self._head(bucket, key)

    async def close(self) -> None:
        """Let go of connections and threads."""
        self._threads.shutdown()
        self._link.close()


def _said(attributes: Attributes) -> dict[str, Any]:
    """The parameters of a put that carry an object's attributes."""
    said: dict[str, Any] = {_CONTENT[name]: value for name, value in attributes.content.items() if name in _CONTENT}
    with suppress(KeyError):
        said["Expires"] = attributes.content["expires"]
    if not all(value.isascii() for value in attributes.metadata.values()):
        raise TargetError("the object's metadata has characters that can't be sent from another machine: ASCII only")
    said["Metadata"] = dict(attributes.metadata)
    if attributes.tags:
        said["Tagging"] = urlencode(attributes.tags, quote_via=quote)
    if attributes.acl != "private":
        said["ACL"] = attributes.acl
    if attributes.storage_class != "STANDARD":
        said["StorageClass"] = attributes.storage_class
    return said


def _conditional(condition: WriteCondition | None) -> dict[str, str]:
    said: dict[str, str] = {}
    if condition is not None and condition.if_none_match_any:
        said["IfNoneMatch"] = "*"
    if condition is not None and condition.if_match is not None:
        said["IfMatch"] = condition.if_match
    return said


def _ns(when: Any) -> int:
    return int(when.timestamp() * 1_000_000_000)
