"""The answer to a GET or HEAD of a transformed object: conditions, ranges, lengths and ETags of the *result*.

Both edges use it: the gateway with an embedded target, and the target's own listener. Every rule is a row of the
contract for transformed responses; the raw object's size, ETag and checksums never show.
"""

from __future__ import annotations

import asyncio
import base64
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from transom.s3compat.conditions import Conditions, if_range
from transom.s3compat.dates import http_date
from transom.s3compat.errors import S3Error
from transom.s3compat.ranges import content_range, parse_range
from transom.s3compat.reply import Reply
from transom.target.errors import NoSuchVersion, SlowDown, SourceChanged
from transom.target.etl.outputs import HEAD_SIZE, DirectRun, OpenResult, not_ready
from transom.target.etl.plan import Plan, identify
from transom.target.etl.runs import Wanted
from transom.target.respond import ClientLeftError, Departure
from transom.target.service import Target
from transom.target.store.base import ObjectInfo

_SMALL = 256 * 1024
_RETRIES = 3
_UNWATCHED_S = 0.05


@dataclass(frozen=True, slots=True)
class Ask:
    """A read of a transformed object. `headers` are the client's: range and conditions are its own affair.

    `streams` is False where a body can't end without a length (HTTP/1.0). `checksums` asks for checksums.
    `departure` tells when the client leaves: a run for it alone ends then.
    """

    method: str
    bucket: str
    key: str
    plan: Plan
    headers: Mapping[str, str]
    version_id: str = ""
    part_number: int | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    streams: bool = True
    checksums: bool = False
    departure: Departure | None = field(default=None, compare=False)


async def answer(target: Target, ask: Ask, source: ObjectInfo | None = None) -> Reply:
    """Answer `ask`; raises TargetError and S3Error. `source` spares a lookup when the caller has just made it."""
    if ask.version_id not in ("", "null"):
        raise NoSuchVersion("the object has no such version")
    for attempt in range(_RETRIES):
        if source is None or attempt:
            source = await target.store.head(ask.bucket, ask.key)
        try:
            return await _Answer(target, ask, source).reply()
        except SourceChanged:
            if attempt == _RETRIES - 1:
                raise
    raise AssertionError("unreachable")


class _Answer:
    def __init__(self, target: Target, ask: Ask, source: ObjectInfo) -> None:
        self._target = target
        self._ask = ask
        self._source = source
        # "null" names the one version there is, as does no version id: one identity, whichever was said
        self._identity = identify(ask.plan, source)
        self._etag = ""

    async def reply(self) -> Reply:
        refusal, generation = await self._choose()
        if refusal is not None:
            return refusal
        ask = self._ask
        wanted = Wanted(ask.plan, self._source, self._identity, generation)
        self._etag = self._identity.etag(generation)
        if ask.part_number is not None and ask.part_number > 1:
            raise S3Error("InvalidPartNumber", ActualPartCount="1", PartNumberRequested=str(ask.part_number))
        if ask.method == "HEAD" and not self._ranged():
            return await self._head(wanted)
        if self._ranged() or ask.part_number is not None:
            return self._finished(await self._target.materialise(wanted))
        return await self._whole(wanted)

    # --- which generation, and whether at all ---------------------------------------------------

    async def _choose(self) -> tuple[Reply | None, int]:
        """Judge the conditions against the result's identity, before any run, and pick the generation to read."""
        conditions = Conditions.parse(self._ask.headers)
        identity = self._identity
        current = self._target.current(identity)
        named = conditions.if_match
        if named and not identity.deterministic and "*" not in named and identity.etag(current) not in named:
            current = self._target.pinned(identity, named)
            pinned = True
        else:
            pinned = bool(named)
        self._etag = identity.etag(current)
        verdict = conditions.check(self._etag, identity.modified_s)
        if verdict == "failed":
            raise S3Error("PreconditionFailed", Condition="If-Match" if named is not None else "If-Unmodified-Since")
        if verdict == "not-modified":
            return Reply(304, self._identity_headers()), current
        if pinned or identity.deterministic:
            return None, current
        if self._ask.method == "HEAD" or self._ranged() or self._ask.part_number is not None:
            return None, await self._target.named(identity)
        return None, await self._target.fresh(identity)

    def _ranged(self) -> bool:
        headers = self._ask.headers
        if "range" not in headers or parse_range(headers["range"]) is None:
            return False
        if "if-range" not in headers:
            return True
        current = self._etag or self._identity.etag(self._target.current(self._identity))
        return if_range(headers, current, self._identity.modified_s)

    # --- the three kinds of answer --------------------------------------------------------------

    async def _head(self, wanted: Wanted) -> Reply:
        opened = self._target.cached(wanted)
        content_type, size = self._target.known_size(wanted.plan, self._source)
        if opened is None and size is None:
            opened = await self._target.materialise(wanted)
        if opened is not None:
            content_type, size = opened.content_type, opened.size
            opened.close()
        if self._ask.part_number is not None and size:
            return Reply(206, [*self._headers(content_type, size), ("content-range", content_range(0, size, size))])
        return Reply(200, self._headers(content_type, size))

    def _finished(self, opened: OpenResult) -> Reply:
        """Answer from the whole result: 200, or 206 and 416 for what is ranged."""
        try:
            start, stop, status = 0, opened.size, HTTPStatus.OK
            wanted = parse_range(self._ask.headers.get("range")) if self._ranged() else None
            if wanted is not None:
                start, stop = wanted.resolve(opened.size)
                status = HTTPStatus.PARTIAL_CONTENT
            elif self._ask.part_number is not None and opened.size:
                status = HTTPStatus.PARTIAL_CONTENT
            headers = self._headers(opened.content_type, stop - start)
            if status == HTTPStatus.PARTIAL_CONTENT:
                headers.append(("content-range", content_range(start, stop, opened.size)))
            if self._ask.method == "HEAD":
                opened.close()
                return Reply(status, headers)
            if stop - start > _SMALL:
                return Reply(status, headers, opened.chunks(start, stop))
            data = opened.read(start, stop)
        except BaseException:
            opened.close()
            raise
        opened.close()
        return Reply(status, headers + self._checksum(data, status), data)

    async def _whole(self, wanted: Wanted) -> Reply:
        opened = self._target.cached(wanted)
        if opened is not None:
            return self._finished(opened)
        if not wanted.plan.cache and wanted.identity.deterministic and not self._target.under_way(wanted):
            return await self._direct(wanted)
        if not self._ask.streams or not wanted.identity.deterministic:
            return self._finished(await self._target.materialise(wanted))
        run = self._target.start(wanted)
        await run.wait(HEAD_SIZE + 1, self._target.limits.wait_s)
        opened = run.opened()
        if opened is not None:
            return self._finished(opened)
        if run.done:  # another process made it
            return self._finished(await self._target.materialise(wanted))
        _, size = self._target.known_size(wanted.plan, self._source)
        return Reply(200, self._headers(run.content_type, size), run.follow())

    async def _direct(self, wanted: Wanted) -> Reply:
        give_up = time.monotonic() + self._target.limits.wait_s
        run = await self._target.direct(wanted, give_up)
        try:
            head = await self._first(run, give_up)
        except SlowDown:
            run.cancel()
            self._target.start(wanted)  # now for the cache: the retry finds it, or joins
            raise
        except BaseException:
            run.cancel()
            raise
        if len(head) <= HEAD_SIZE:
            run.cancel()
            return Reply(200, self._headers(run.content_type, len(head)) + self._checksum(head, 200), head)
        if run.size is None and not self._ask.streams:
            run.cancel()
            return self._finished(await self._target.materialise(wanted))
        return Reply(200, self._headers(run.content_type, run.size), _Fed(run, head))

    async def _first(self, run: DirectRun, give_up: float) -> bytes:
        """The head of a direct run; raises SlowDown past the wait budget, ClientLeftError when nobody waits for it."""
        # most are there before it is worth the while to ask the server whether the client still is
        if await run.ready(min(give_up - time.monotonic(), _UNWATCHED_S)) or await self._ready(run, give_up):
            return await run.next() or b""
        raise not_ready()

    async def _ready(self, run: DirectRun, give_up: float) -> bool:
        """Wait for a direct run with an eye on the client; False past the wait budget."""
        ready = asyncio.ensure_future(run.ready(give_up - time.monotonic()))
        waiting: set[asyncio.Future[Any]] = {ready}
        if self._ask.departure is not None:
            waiting.add(self._ask.departure.watch())
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise ClientLeftError
            return ready.result()
        finally:
            ready.cancel()

    # --- headers ----------------------------------------------------------------------------------

    def _identity_headers(self) -> list[tuple[str, str]]:
        return [("etag", f'"{self._etag}"'), ("last-modified", http_date(self._identity.modified_s))]

    def _headers(self, content_type: str, size: int | None) -> list[tuple[str, str]]:
        headers = {"content-type": content_type, "accept-ranges": "bytes"}
        source = self._source.attributes
        if "cache-control" in source.content:
            headers["cache-control"] = source.content["cache-control"]
        for name, value in source.metadata.items():
            headers["x-amz-meta-" + name] = value
        for name, value in self._ask.overrides:
            headers[name.removeprefix("response-")] = value
        if size is not None:
            headers["content-length"] = str(size)
        return [*headers.items(), *self._identity_headers()]

    def _checksum(self, data: bytes, status: int) -> list[tuple[str, str]]:
        if not self._ask.checksums or status != HTTPStatus.OK:
            return []
        crc = base64.b64encode(zlib.crc32(data).to_bytes(4)).decode()
        return [("x-amz-checksum-crc32", crc), ("x-amz-checksum-type", "FULL_OBJECT")]


class _Fed:
    """The body of a direct run: its head, then the rest; closing it cancels the run, even if never begun."""

    def __init__(self, run: DirectRun, head: bytes) -> None:
        self._run = run
        self._head: bytes | None = head

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._head is not None:
            head, self._head = self._head, None
            return head
        piece = await self._run.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Cancel the run: nobody reads it any more."""
        self._run.cancel()
