"""What a handler is given: the gateway's parts, the request under way, and who signed it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from transom.s3compat.addressing import Address
from transom.s3compat.auth import Identity
from transom.s3compat.reply import Reply
from transom.s3compat.request import HttpRequest
from transom.target.answer import Ask
from transom.target.respond import Departure
from transom.target.store.base import Listing, ObjectInfo, ObjectReader, Store


@dataclass(frozen=True, slots=True)
class Principal:
    """Who signed the request; an anonymous one has no access key and no owner."""

    access_key: str
    owner: str
    admin: bool


ANONYMOUS = Principal(access_key="", owner="", admin=False)


@dataclass(slots=True)
class Call:
    """One request under way. `receive` gives the next piece of the raw body, None at its end.

    `departure` tells when the client leaves, to whoever works for it alone.
    """

    request: HttpRequest
    address: Address
    identity: Identity
    principal: Principal
    request_id: str
    receive: Callable[[], Awaitable[bytes | None]]
    departure: Departure | None = None


class Transforms(Protocol):
    """Where transformed objects come from: the target in this process, or the one that owns the object."""

    async def answer(self, ask: Ask, source: ObjectInfo, call: Call | None, *, explicit: bool) -> Reply:
        """Answer a read of a transformed object. `explicit` tells that the query alone named the ETLs.

        `call` is None where the gateway reads for itself (a copy from a view, a size for a listing).
        """

    async def close(self) -> None:
        """Let go of connections."""


class ReadableView(Protocol):
    """A view, for reading. `source` makes nothing; whoever asks for more has judged access to the source first."""

    async def source(self, key: str) -> ObjectInfo:
        """The source object that a key of the view stands for; raises NoSuchKey."""

    async def info(self, key: str, source: ObjectInfo) -> ObjectInfo:
        """The result's exact size, ETag and type; may run the ETL."""

    async def open(self, key: str, source: ObjectInfo) -> ObjectReader:
        """A reader of the result; runs the ETL. The caller closes it."""

    async def list_objects(
        self, *, prefix: str, delimiter: str, after: str, limit: int, admits: Callable[[ObjectInfo], bool]
    ) -> Listing:
        """A page of the view's keys. Nothing is made of a source that `admits` says no to."""


def _no_view(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """The gateway's parts, built once by `transom.gateway.process.build` and handed down.

    `view_of` gives the view that a bucket's name stands for, None for a plain bucket; only read-only ones are views.
    """

    store: Store
    region: str = "us-east-1"
    view_of: Callable[[str], ReadableView | None] = _no_view
