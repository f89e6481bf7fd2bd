"""Transforms on other targets: a signed redirect for clients that follow, a streamed relay for those that don't.

A target that can't be reached is passed over for the next in rank; one that dies in mid-answer costs the client
nothing where the rest can be had under the same ETag.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
import structlog
import yarl

from transom.cluster.grants import Grant, GrantExpired, expiry, sign
from transom.cluster.health import Health, probe
from transom.cluster.map import MapFile
from transom.cluster.map import Target as Node
from transom.cluster.placement import rank
from transom.gateway.config import ClusterConfig
from transom.gateway.context import Call
from transom.gateway.following import follows
from transom.s3compat.errors import S3Error
from transom.s3compat.reply import Reply
from transom.target.answer import Ask
from transom.target.app import CHANGED, CHECKSUM_MODE, NO_STREAM, PART_NUMBER, RELAY_AGENT, REQUEST_ID
from transom.target.errors import EtlChanged
from transom.target.respond import ClientLeftError
from transom.target.store.base import ObjectInfo

_TO_TARGET = frozenset({"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
_NOT_RELAYED = frozenset({"transfer-encoding", "connection", "keep-alive", "date", "server", REQUEST_ID})
_CHUNK = 256 * 1024
_MAX_RESUMES = 8
_ATTEMPTS_FOR_S = 15.0
_RETRY_PAUSE_S = 0.2
_RESUME_PAUSE_S = 1.0
_SILENT_S = 1.0
_PORT = re.compile(r":\d+$")
_DOT_SEGMENT = re.compile(r"/\.{1,2}/")  # clients resolve it in a URL, and the signature is then of another key
_log = structlog.get_logger("transom.relay")


@dataclass(slots=True)
class RelayedTransforms:
    """Asks the targets of a cluster map; keeps no data of its own."""

    map_file: MapFile
    health: Health
    secret: bytes
    config: ClusterConfig
    tls: ssl.SSLContext | None = None
    _session: aiohttp.ClientSession | None = field(default=None)

    async def answer(self, ask: Ask, source: ObjectInfo, call: Call | None, *, explicit: bool) -> Reply:  # noqa: ARG002
        """See Transforms."""
        if call is not None and explicit and ask.part_number is None and follows(self.config, call.request.headers):
            ranked = self._ranked(ask)
            if ranked and not _DOT_SEGMENT.search(f"/{ask.key}/"):
                return self._redirect(ask, call, ranked[0])
        return await self._relay(ask, call)

    async def close(self) -> None:
        """See Transforms."""
        if self._session is not None:
            await self._session.close()

    # --- redirect -------------------------------------------------------------------------------

    def _redirect(self, ask: Ask, call: Call, node: Node) -> Reply:
        host = self.config.advertise or _PORT.sub("", call.request.host) or node.host
        try:
            path = sign(self._grant(ask, call, call.identity.expires_at), self.secret)
        except GrantExpired as error:  # a presigned URL in its last moment
            raise S3Error("AccessDenied", "Request has expired") from error
        location = f"{call.request.scheme}://{host}:{node.port}{path}"
        return Reply(307, [("location", location), ("cache-control", "no-store")])

    def _grant(self, ask: Ask, call: Call | None, until: float | None = None) -> Grant:
        return Grant(
            method=ask.method,
            bucket=ask.bucket,
            key=ask.key,
            plan=ask.plan.to_json(),
            principal=call.principal.access_key if call else "",
            expires_at=expiry(time.time(), until),
            version_id=ask.version_id,
            overrides=ask.overrides,
            request_id=call.request_id if call else "",
        )

    def _ranked(self, ask: Ask) -> list[Node]:
        """The targets for a key, the owner first, those known to be dead last."""
        ranked = rank(self.map_file.current(), ask.bucket, ask.key)
        return sorted(ranked, key=lambda node: not self.health.alive(node.id))

    # --- relay ----------------------------------------------------------------------------------

    async def _relay(self, ask: Ask, call: Call | None) -> Reply:
        give_up = time.monotonic() + _ATTEMPTS_FOR_S
        while True:
            response = await self._unless_left(ask, self.fetch(ask, call, _asked_headers(ask)))
            if CHANGED in response.headers:
                response.release()
                raise EtlChanged(f"ETL '{ask.plan.name}' was changed just now. Ask again.", retry_after_s=1)
            status, headers, length = response.status, _answered_headers(response), response.content_length
            if ask.method == "HEAD" or status == HTTPStatus.NOT_MODIFIED or length == 0:
                response.release()
                return Reply(status, headers)
            body = _RelayedBody(self, ask, call, response)
            if length is None or length > _CHUNK:
                return Reply(status, headers, body)
            try:
                return Reply(status, headers, b"".join([piece async for piece in body]))
            except (aiohttp.ClientError, OSError) as error:  # nothing was sent on yet, so it can begin anew
                if time.monotonic() > give_up:
                    raise _no_answer() from error

    async def _unless_left(
        self, ask: Ask, fetching: Coroutine[Any, Any, aiohttp.ClientResponse]
    ) -> aiohttp.ClientResponse:
        """Wait for the target; where the run is for this client alone, only while it is there."""
        if ask.departure is None or ask.plan.cache:
            return await fetching
        task = asyncio.ensure_future(fetching)
        await asyncio.wait({task, ask.departure.watch()}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()  # closes the connection, by which the target knows
            raise ClientLeftError
        return task.result()

    async def fetch(self, ask: Ask, call: Call | None, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask the owner, then the next in rank; waits a little for a restart when none can be reached."""
        give_up = time.monotonic() + _ATTEMPTS_FOR_S
        while True:
            for node in self._ranked(ask):
                try:
                    response = await self._ask(node, ask, call, headers)
                except (aiohttp.ClientConnectionError, OSError) as error:
                    _log.warning("target unreachable", target=node.id, reason=str(error))
                    self.health.mark_dead(node.id)
                    if time.monotonic() > give_up:
                        break
                else:
                    self.health.mark_alive(node.id)
                    return response
            if time.monotonic() > give_up:
                raise _no_answer()
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def _ask(self, node: Node, ask: Ask, call: Call | None, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        path = sign(self._grant(ask, call), self.secret)
        asking = asyncio.ensure_future(
            self._client().request(ask.method, self._url(node, path), headers=headers, allow_redirects=False)
        )
        try:
            while not (await asyncio.wait([asking], timeout=_SILENT_S))[0]:
                await self.make_sure(node.id, node.host, node.port)
            return asking.result()
        finally:
            asking.cancel()

    async def make_sure(self, target_id: str, host: str, port: int) -> None:
        """Raise OSError unless a target that is silent is merely at work: one that hangs is passed over too."""
        if not await probe(host, port, tls=self.tls):
            self.health.mark_dead(target_id)
            raise ConnectionAbortedError("the target hangs")

    def _url(self, node: Node, path: str) -> yarl.URL:
        scheme = "http" if self.tls is None else "https"
        host = f"[{node.host}]" if ":" in node.host else node.host
        return yarl.URL(f"{scheme}://{host}:{node.port}{path}", encoded=True)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=5)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=self.tls or True)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                auto_decompress=False,
                read_bufsize=_CHUNK,
                headers={"User-Agent": RELAY_AGENT},
            )
        return self._session


class _RelayedBody:
    """A target's answer on its way through; taken up again from another target where the ETag allows it."""

    def __init__(self, relay: RelayedTransforms, ask: Ask, call: Call | None, response: aiohttp.ClientResponse) -> None:
        self._relay = relay
        self._ask = ask
        self._call = call
        self._response = response
        self._sent = 0
        self._resumes = 0
        self._ended = False
        self._first, self._last = _span(response)
        self._etag = response.headers.get("etag", "")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                piece = await self._piece()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                await self._resume(error)
                continue
            if not piece:
                self._response.release()
                self._ended = True
                break
            self._sent += len(piece)
            return piece
        raise StopAsyncIteration

    async def _piece(self) -> bytes:
        while True:
            try:
                async with asyncio.timeout(_SILENT_S):
                    return await self._response.content.readany()
            except TimeoutError:
                url, target_id = self._response.url, self._response.headers.get("x-transom-target", "")
                await self._relay.make_sure(target_id, url.host or "", url.port or 0)

    async def aclose(self) -> None:
        """Leave: the target's side of the connection ends too, unless all of it was read."""
        self._response.close()

    async def _resume(self, error: Exception) -> None:
        """Go on where the dead target stopped. The ETag is pinned, so the bytes are those of the same result."""
        self._response.close()
        self._resumes += 1
        if not self._etag or self._response.status not in (200, 206) or self._resumes > _MAX_RESUMES:
            raise error
        start = self._first + self._sent
        end = "" if self._last is None else str(self._last)
        _log.warning("resuming", key=self._ask.key, at=start, reason=str(error))
        headers = {**_asked_headers(self._ask), "range": f"bytes={start}-{end}", "if-match": self._etag}
        for name in ("if-none-match", "if-modified-since", "if-range", PART_NUMBER):
            headers.pop(name, None)
        response = await self._relay.fetch(self._ask, self._call, headers)
        while response.status == 503 and self._resumes < _MAX_RESUMES:  # noqa: PLR2004 - not ready: join it again
            response.release()
            self._resumes += 1
            await asyncio.sleep(_RESUME_PAUSE_S)
            response = await self._relay.fetch(self._ask, self._call, headers)
        if response.status == 416 and self._last is None:  # noqa: PLR2004 - all of it was sent already
            response.close()
            self._ended = True
            return
        if response.status != 206 or response.headers.get("etag") != self._etag:  # noqa: PLR2004
            response.close()
            raise error
        self._response = response


def _span(response: aiohttp.ClientResponse) -> tuple[int, int | None]:
    content_range = response.headers.get("content-range", "")
    if response.status == 206 and content_range.startswith("bytes "):  # noqa: PLR2004
        first, _, rest = content_range.removeprefix("bytes ").partition("-")
        return int(first), int(rest.partition("/")[0])
    return 0, None


def _asked_headers(ask: Ask) -> dict[str, str]:
    headers = {name: value for name, value in ask.headers.items() if name in _TO_TARGET}
    if ask.part_number is not None:
        headers[PART_NUMBER] = str(ask.part_number)
    if ask.checksums:
        headers[CHECKSUM_MODE] = "ENABLED"
    if not ask.streams:
        headers[NO_STREAM] = "1"
    return headers


def _answered_headers(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    # raw, since aiohttp takes them for UTF-8 and metadata may be in Latin-1
    decoded = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers)
    return [(name, value) for name, value in decoded if name not in _NOT_RELAYED]


def _no_answer() -> S3Error:
    return S3Error("ServiceUnavailable", "No target answers. Try again.", headers={"Retry-After": "1"})
