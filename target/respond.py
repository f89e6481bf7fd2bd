"""Sends a `Reply` through ASGI, and makes sure that a body which can't be finished never looks finished.

Both servers leave the closing chunk (or END_STREAM) unsent when the app raises after the response started; that is
what a late failure does here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from transom.s3compat.reply import Reply

_log = logging.getLogger("transom.http")


class UnfinishedBodyError(Exception):
    """The response was begun and can't be finished; the server must break the connection."""


class ClientLeftError(Exception):
    """The client left before there was an answer; none is due."""


class Departure:
    """Tells that the client has left. The server is asked for it once, and only if somebody wants to know."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> asyncio.Task[None]:
        """The task that ends when the client leaves; the same one every time. Don't cancel it: `close`."""
        if self._task is None:
            self._task = asyncio.ensure_future(_disconnected(self._receive))
        return self._task

    async def close(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


async def respond(reply: Reply, scope: Scope, departure: Departure, send: Send) -> int:
    """Send the reply and return the number of body bytes sent. Raises UnfinishedBodyError."""
    body = reply.body
    if not isinstance(body, bytes):
        return await _stream(reply, body, departure, send)
    headers = _encoded(reply)
    if reply.status not in (204, 304) and "content-length" not in dict(reply.headers):
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if scope["method"] == "HEAD":
        body = b""
    await departure.close()
    await send({"type": "http.response.body", "body": body})
    return len(body)


def _encoded(reply: Reply) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), _latin(value)) for name, value in reply.headers]


async def lifespan(receive: Receive, send: Send) -> None:
    """Agree to the server's start and end: an app's parts live as long as their process, which closes them."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _stream(reply: Reply, body: AsyncIterator[bytes], departure: Departure, send: Send) -> int:
    sent = 0
    gone = departure.watch()
    try:
        headers = _encoded(reply)
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        async for piece in body:
            sent += len(piece)
            if gone.done():
                _log.info("the client left after %d bytes", sent)
                return sent
            _check_length(sent, length, at_most=True)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        _check_length(sent, length, at_most=False)
        await send({"type": "http.response.body", "body": b""})
    except UnfinishedBodyError:
        raise
    except Exception as error:
        raise UnfinishedBodyError(f"after {sent} bytes: {error}") from error
    finally:
        await departure.close()
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
    return sent


def _check_length(sent: int, length: int | None, *, at_most: bool) -> None:
    if length is not None and (sent > length or (sent < length and not at_most)):
        raise UnfinishedBodyError(f"the body has {'more than' if at_most else 'only'} {sent} of {length} bytes")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _latin(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8")
