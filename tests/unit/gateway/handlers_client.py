"""Drives the handlers as the gateway does, without sockets or signatures: parse, dispatch, collect the body."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import xmltodict

from transom.gateway.context import ANONYMOUS, Call, GatewayContext, Principal
from transom.gateway.handlers import HANDLERS
from transom.s3compat.addressing import split
from transom.s3compat.errors import S3Error, from_target
from transom.s3compat.identity import Identity
from transom.s3compat.operations import parse
from transom.s3compat.reply import Reply
from transom.s3compat.request import HttpRequest
from transom.target.errors import TargetError
from transom.target.store.base import Store

OWNERS = {
    "alice": Principal(access_key="AKALICE", owner="alice", admin=True),
    "bob": Principal(access_key="AKBOB", owner="bob", admin=False),
    "": ANONYMOUS,
}


@dataclass
class Answer:
    """What came back; `code` is the S3 error code, "" on success."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    code: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def xml(self) -> Any:
        """The content of the document's root; lists where `many` says so."""
        many = ("Contents", "CommonPrefixes", "Part", "Upload", "Version", "Deleted", "Error", "Tag", "Grant")

        def listed(path: Any, name: str, _value: Any) -> bool:
            return name in many or (name == "Bucket" and bool(path) and path[-1][0] == "Buckets")

        (root,) = xmltodict.parse(self.body, force_list=listed).values()
        return root or {}

    @property
    def etag(self) -> str:
        return self.headers["etag"].strip('"')


@dataclass
class Client:
    """One user's view of the handlers over a store."""

    store: Store
    owner: str = "alice"
    pieces_taken: int = 0
    during_body: Callable[[], Awaitable[object]] | None = None  # runs once, when the body is first asked for

    def as_(self, owner: str) -> Client:
        return Client(self.store, owner)

    async def __call__(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[bytes] | None = None,
    ) -> Answer:
        pieces = [] if body is None else [body] if isinstance(body, bytes) else list(body)
        sent = {"host": "localhost:9000", **(headers or {})}
        if (body is not None or method in ("PUT", "POST")) and "transfer-encoding" not in sent:
            sent.setdefault("content-length", str(sum(map(len, pieces))))
        waiting = iter(pieces)

        async def receive() -> bytes | None:
            self.pieces_taken += 1
            if self.during_body is not None:
                interrupt, self.during_body = self.during_body, None
                await interrupt()
            return next(waiting, None)

        query_string = query if isinstance(query, str) else urlencode(query)
        request = HttpRequest(method, quote(path), query_string, sent)
        try:
            return await _answer(await self._dispatch(request, receive))
        except (S3Error, TargetError) as error:
            refused = from_target(error)
            return Answer(refused.status, refused.headers, b"", refused.code, refused.fields)

    async def _dispatch(self, request: HttpRequest, receive: Any) -> Reply:
        principal = OWNERS[self.owner]
        address = split(request.raw_path, request.host, ())
        scheme = "v4-header" if principal.access_key else "anonymous"
        identity = Identity(principal.access_key, scheme, payload="UNSIGNED-PAYLOAD")  # type: ignore[arg-type]
        call = Call(request, address, identity, principal, "request-id", receive)
        op = parse(request, address)
        return await HANDLERS[type(op)](GatewayContext(self.store), call, op)

    async def put(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self("PUT", path, headers=named, body=body)

    async def get(self, path: str, query: Mapping[str, Any] | str = "", **headers: str) -> Answer:
        return await self("GET", path, query, headers={name.replace("_", "-"): v for name, v in headers.items()})

    async def head(self, path: str, query: Mapping[str, Any] | str = "", **headers: str) -> Answer:
        return await self("HEAD", path, query, headers={name.replace("_", "-"): v for name, v in headers.items()})

    async def multipart(self, path: str, bodies: Sequence[bytes], **headers: str) -> tuple[str, str]:
        """Start an upload and send its parts; returns the upload id and the body of the completion."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        started = await self("POST", path, "uploads=", headers=named)
        upload_id = started.xml["UploadId"]
        tags = []
        for number, body in enumerate(bodies, 1):
            part = await self("PUT", path, {"partNumber": number, "uploadId": upload_id}, body=body)
            tags.append((number, part.etag))
        return upload_id, completion(tags)


def completion(parts: Sequence[tuple[int, str]]) -> str:
    named = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts)
    return f"<CompleteMultipartUpload>{named}</CompleteMultipartUpload>"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def _answer(reply: Reply) -> Answer:
    body = reply.body if isinstance(reply.body, bytes) else b"".join([piece async for piece in reply.body])
    return Answer(reply.status, dict(reply.headers), body)
