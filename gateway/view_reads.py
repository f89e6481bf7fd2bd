"""Reads of a view: which object a key stands for, what is known of its result, the result's bytes, and listings.

Who may read is not judged here. Callers judge the source first: `source` makes nothing, all the rest may run an ETL.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.gateway.context import Transforms
from transom.gateway.renaming import Entry, Window, renamed_page
from transom.gateway.views import View, find_view
from transom.s3compat.errors import CATALOGUE, ERROR_HEADER, S3Error, from_target
from transom.s3compat.reply import Reply
from transom.target.answer import Ask
from transom.target.errors import EtlSkipped, NoSuchKey, TargetError
from transom.target.etl.outputs import not_ready
from transom.target.etl.plan import Plan
from transom.target.service import Described, Target
from transom.target.store.base import Listing, ObjectInfo, ObjectReader, Store

_SIZES_AT_ONCE = 8
_PAGE_S = 2.0  # the least patient client waits about 3 s for a first byte
_BUSY_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Views:
    """Finds views by name."""

    store: Store
    catalog: Catalog
    target: Target
    transforms: Transforms

    def __call__(self, name: str) -> ViewReads | None:
        """The view of that name, made or implicit; None for a plain bucket."""
        view = find_view(self.catalog, name)
        return None if view is None else ViewReads(name, view, self.store, self.target, self.transforms)


@dataclass(frozen=True, slots=True)
class ViewReads:
    """One view, for reading."""

    name: str
    view: View
    store: Store
    target: Target
    transforms: Transforms

    async def source(self, key: str) -> ObjectInfo:
        """The source object that a key of the view stands for; raises NoSuchKey."""
        for candidate in self.view.renaming.sources(key):
            try:
                return await self.store.head(self.view.bucket, candidate)
            except NoSuchKey:
                continue
        raise NoSuchKey("the view has no such key")

    async def info(self, key: str, source: ObjectInfo) -> ObjectInfo:
        """The result's exact size, ETag and type; it is made first where that is the only way to know them."""
        plan = self._plan()
        described = self.target.describe(plan, source)
        info = self._info(key, source, described)
        if described.size is not None and plan.deterministic:
            return replace(info, size=described.size)
        size, etag = await self._made(plan, source)
        return replace(info, size=size, etag=etag)

    async def open(self, key: str, source: ObjectInfo) -> ObjectReader:
        """A reader of the result, for copies."""
        return _ViewReader(await self.info(key, source), source, self._plan(), self.transforms)

    async def list_objects(
        self, *, prefix: str, delimiter: str, after: str, limit: int, admits: Callable[[ObjectInfo], bool]
    ) -> Listing:
        """A page of listed keys with their results' ETags, sizes by the view's policy.

        Nothing is made of a source that `admits` says no to. With `materialise` a page ends, and says that it goes on,
        before the first key whose size takes too long; if that is the first of all, SlowDown is raised. The work goes
        on either way, and whoever asks again joins it.
        """
        plan = self._plan()
        entries, next_after = await self._sources(Window(prefix, delimiter, after, limit))
        lines = {entry.shown: self._line(plan, entry.shown, entry.source) for entry in entries if entry.source}
        if self.view.sizes == "materialise":
            late = [line for line in lines.values() if not line.exact and not line.left_out and admits(line.source)]
            await self._make_all(plan, late)
        names = sorted((entry.shown for entry in entries), key=str.encode)
        ready = list(itertools.takewhile(lambda name: name not in lines or not lines[name].late, names))
        if len(ready) < len(names):
            if not ready:
                raise not_ready()
            next_after = ready[-1]
        shown = [lines[name] for name in ready if name in lines and not lines[name].left_out]
        sizes = "" if all(line.exact for line in shown) else "source"
        return Listing([line.info for line in shown], [name for name in ready if name not in lines], next_after, sizes)

    def _line(self, plan: Plan, key: str, source: ObjectInfo) -> _Line:
        """What is known without a run."""
        try:
            described = self.target.describe(plan, source)
        except EtlSkipped:
            return _Line(source, source, left_out=True)
        info = self._info(key, source, described)
        if described.size is None:
            return _Line(source, info)
        return _Line(source, replace(info, size=described.size), exact=True)

    async def _make_all(self, plan: Plan, lines: Sequence[_Line]) -> None:
        """Find the true sizes of as many as can be had soon, of the first in any case within the wait budget."""
        if not lines:
            return
        places = asyncio.Semaphore(_SIZES_AT_ONCE)
        tasks = []
        for line in lines:
            line.late = True
            tasks.append(asyncio.ensure_future(self._make(plan, line, places)))
        try:
            await asyncio.wait(tasks, timeout=_PAGE_S)
            if lines[0].late:
                await asyncio.wait(tasks[:1], timeout=max(0.0, self.target.limits.wait_s - _PAGE_S))
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for each in ended:
            if isinstance(each, Exception):
                raise each

    async def _make(self, plan: Plan, line: _Line, places: asyncio.Semaphore) -> None:
        """Find the true size by making the result. Where it can't be made the line stays: the GET says why."""
        async with places:
            while True:
                try:
                    size, etag = await self._made(plan, line.source)
                except EtlSkipped:
                    line.left_out, line.late = True, False
                    return
                except (S3Error, TargetError) as failure:
                    error = from_target(failure)
                else:
                    line.info, line.exact, line.late = replace(line.info, size=size, etag=etag), True, False
                    return
                if error.code == "ServiceUnavailable":
                    raise error
                if error.code != "SlowDown":
                    line.late = False
                    return
                await asyncio.sleep(_BUSY_PAUSE_S)  # merely late or busy: never shown with the source's size

    def _plan(self) -> Plan:
        return self.target.registry.plan(self.view.pipeline, self.view.args_json)

    async def _sources(self, window: Window) -> tuple[list[Entry], str | None]:
        if self.view.renaming:
            return await renamed_page(self.store, self.view.bucket, self.view.renaming, window)
        page = await self.store.list_objects(
            self.view.bucket,
            prefix=window.prefix,
            delimiter=window.delimiter,
            after=window.after,
            limit=window.limit,
        )
        entries = [Entry(info.key, info) for info in page.objects]
        return entries + [Entry(prefix, None) for prefix in page.prefixes], page.next_after

    async def _made(self, plan: Plan, source: ObjectInfo) -> tuple[int, str]:
        """Size and ETag, of a result that is made if need be."""
        ask = Ask("HEAD", source.bucket, source.key, plan, headers={})
        reply = await self.transforms.answer(ask, source, None, explicit=False)
        _raise_for(reply)
        headers = dict(reply.headers)
        return int(headers["content-length"]), headers["etag"].strip('"')

    def _info(self, key: str, source: ObjectInfo, described: Described) -> ObjectInfo:
        """What the view shows of a source object, still with the source's size."""
        attributes = source.attributes
        content = {name: value for name, value in attributes.content.items() if name == "cache-control"}
        if described.content_type:
            content["content-type"] = described.content_type
        return ObjectInfo(
            bucket=self.name,
            key=key,
            size=source.size,
            etag=described.etag,
            modified_ns=max(source.modified_ns, described.identity.modified_s * 1_000_000_000),
            attributes=replace(attributes, content=content),
        )


@dataclass(slots=True)
class _Line:
    """A listed object; `exact` tells that its size is the result's, `left_out` that it isn't to be shown.

    `late` is one whose size is being found out.
    """

    source: ObjectInfo
    info: ObjectInfo
    exact: bool = False
    left_out: bool = False
    late: bool = False


class _ViewReader(ObjectReader):
    """Reads a result by asking for it like any client, pinned to one ETag."""

    def __init__(self, info: ObjectInfo, source: ObjectInfo, plan: Plan, transforms: Transforms) -> None:
        self.info = info
        self._source = source
        self._plan = plan
        self._transforms = transforms
        self._body: AsyncIterator[bytes] | None = None
        self._closing: asyncio.Future[None] | None = None

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
        self._body = reply.body
        async for piece in reply.body:
            yield piece
        self._body = None

    def close(self) -> None:
        body, self._body = self._body, None
        close = getattr(body, "aclose", None)
        if close is not None:  # the copy stopped early: nobody reads the rest
            self._closing = asyncio.ensure_future(close())


def _raise_for(reply: Reply) -> None:
    """Raise what another target refused with, its code and reason as it told them."""
    if reply.status < HTTPStatus.BAD_REQUEST:
        return
    headers = dict(reply.headers)
    code, _, message = _utf8(headers.get(ERROR_HEADER, "")).partition(": ")
    if code == "NoSuchKey":
        raise EtlSkipped(message)
    told = {"Retry-After": headers["retry-after"]} if "retry-after" in headers else {}
    if code not in CATALOGUE:
        raise S3Error("InternalError", f"The transformed object could not be read (status {reply.status}).")
    raise S3Error(code, message, headers=told)


def _utf8(value: str) -> str:
    """A header's value, which was read as Latin-1, as it was meant: what fits no Latin-1 is sent as UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
