"""The address from which workers fetch the objects that they transform: an ETL's secret, and only what a run holds.

It serves the store's bytes as they are; who may ask the worker for what was settled before the run began.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aiohttp import web

from transom.target.errors import NoSuchBucket, NoSuchKey
from transom.target.etl.keeper.places import PULL_PREFIX, pull_offset
from transom.target.store.base import ObjectReader, Store

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_NOTHING = "no transform of such an object is under way for this ETL\n"


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a worker asks for."""

    etl: str
    secret: str
    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class PullListener:
    """Answers the workers of one target.

    `secret_of` gives the secret of an ETL that may fetch, None for any other; `held` tells whether a run holds an
    offset of `transom.target.etl.keeper.places.pull_offset`.
    """

    store: Store
    secret_of: Callable[[str], str | None]
    held: Callable[[int], bool]

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. All that isn't to be had looks alike."""
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="GET or HEAD\n", headers={"Allow": "GET, HEAD"})
        fetch = parse(request.raw_path)
        if fetch is None or not self._is_known(fetch):
            return web.Response(status=404, text=_NOTHING)
        try:
            reader = await self.store.open(fetch.bucket, fetch.key)
        except (NoSuchBucket, NoSuchKey):
            return web.Response(status=404, text=_NOTHING)
        try:
            if not self.held(pull_offset(fetch.etl, fetch.bucket, fetch.key, reader.info.etag)):
                return web.Response(status=404, text=_NOTHING)
            return await _send(request, reader)
        finally:
            reader.close()

    def _is_known(self, fetch: Fetch) -> bool:
        secret = self.secret_of(fetch.etl)
        # compared even where there is none, so that the time taken tells nothing either
        same = hmac.compare_digest((secret or secrets.token_hex()).encode(), fetch.secret.encode())
        return secret is not None and same


def parse(raw_path: str) -> Fetch | None:
    """Read the path as it was sent; None for any other than an object's. A query says nothing here.

    AIStore's workers differ in whether they encode the slashes between bucket and key.
    """
    if not raw_path.startswith(PULL_PREFIX):
        return None
    etl, _, rest = raw_path[len(PULL_PREFIX) :].partition("?")[0].partition("/")
    secret, _, name = rest.partition("/")
    try:
        bucket, slash, key = unquote_to_bytes(name).decode().partition("/")
    except UnicodeDecodeError:
        return None
    return Fetch(etl, secret, bucket, key) if bucket and slash and key else None


async def _send(request: web.BaseRequest, reader: ObjectReader) -> web.StreamResponse:
    info = reader.info
    wanted = _wanted(request.headers.get("Range", ""), info.size)
    if wanted is None:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{info.size}"})
    start, stop = wanted
    response = web.StreamResponse(
        headers={"Content-Type": info.content_type, "Accept-Ranges": "bytes", "ETag": f'"{info.etag}"'}
    )
    response.content_length = stop - start
    if (start, stop) != (0, info.size):
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size}"
    await response.prepare(request)
    if request.method == "GET":
        # a store that can't go on raises: the connection breaks, and no short body passes for the object
        async for chunk in reader.chunks(start, stop):
            await response.write(chunk)
    await response.write_eof()
    return response


def _wanted(header: str, size: int) -> tuple[int, int] | None:
    """The bytes [start, stop) that a Range header asks for; all of them without one that is understood.

    None where there are no such bytes.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < start:
            return 0, size  # not a range: as if nothing was said
    return (start, stop) if start < stop else None
