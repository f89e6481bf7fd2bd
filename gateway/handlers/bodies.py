"""Request bodies on their way in: declared length, decoding, bounds and checks. It never looks at what they mean.

Nothing is read before the first `async for`: a refused write leaves its body, and a `100 Continue`, unasked.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping

from transom.gateway.context import Call
from transom.s3compat.body import body_decoder, payload_length, verifier
from transom.s3compat.checksums import Checksum
from transom.s3compat.errors import S3Error
from transom.target.store.base import Intake

MIB = 1024 * 1024
MAX_BODY = 5 * 1024 * MIB
MAX_DOCUMENT = MIB
MAX_LONG_DOCUMENT = 4 * MIB  # ten thousand parts with a checksum each, or a thousand keys to delete


class Body:
    """One request's payload: take its `pieces` once, beside the `intake` that checks it.

    Raises MissingContentLength and EntityTooLarge at once, from what the headers declare.
    """

    def __init__(self, call: Call, *, limit: int = MAX_BODY) -> None:
        declared = payload_length(call.request, call.identity)
        if declared is not None and declared > limit:
            raise _too_large(declared, limit)
        self._call = call
        self._limit = limit
        self._decoder = body_decoder(call.request, call.identity)
        self.intake: Intake = verifier(call.request, call.identity, self._decoder)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the decoded payload as it arrives."""
        decoder, size = self._decoder, 0
        while (raw := await self._call.receive()) is not None:
            for piece in decoder.feed(raw):
                size += len(piece)
                if size > self._limit:
                    raise _too_large(size, self._limit)
                yield piece
        decoder.end()


class AlsoComputing:
    """An intake that computes one more checksum, when the client sent none of that kind."""

    def __init__(self, intake: Intake, algorithm: str) -> None:
        self._intake = intake
        self._algorithm = algorithm
        self._checksum = Checksum(algorithm)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._intake.update(chunk)
        self._checksum.update(chunk)

    def finish(self, size: int, md5_hex: str) -> Mapping[str, str]:
        """Return the inner intake's checksums and the one computed here."""
        return {self._algorithm: self._checksum.b64(), **self._intake.finish(size, md5_hex)}


class Recomputing:
    """An intake for bytes that are copied: checks nothing, computes the named checksums."""

    def __init__(self, algorithms: tuple[str, ...], known: Mapping[str, str] | None = None) -> None:
        self._known = known or {}
        self._checksums = {name: Checksum(name) for name in algorithms if name not in self._known}

    def update(self, chunk: bytes) -> None:
        """Take the next bytes."""
        for checksum in self._checksums.values():
            checksum.update(chunk)

    def finish(self, size: int, md5_hex: str) -> Mapping[str, str]:  # noqa: ARG002 - the Intake protocol's
        """Return what was known before and what was computed."""
        return {**self._known, **{name: checksum.b64() for name, checksum in self._checksums.items()}}


async def read_document(call: Call, *, limit: int = MAX_DOCUMENT) -> bytes:
    """Read and verify a small body, such as XML, whole; empty when there is none."""
    if not has_body(call):
        return b""
    body = Body(call, limit=limit)
    pieces: list[bytes] = []
    digest = hashlib.md5(usedforsecurity=False)
    async for piece in body.pieces():
        body.intake.update(piece)
        digest.update(piece)
        pieces.append(piece)
    data = b"".join(pieces)
    body.intake.finish(len(data), digest.hexdigest())
    return data


def has_body(call: Call) -> bool:
    """Say whether the request announces a body, or may have one unannounced, as over HTTP/2."""
    headers = call.request.headers
    if "content-length" in headers:
        return headers["content-length"] != "0"
    return "transfer-encoding" in headers or not call.request.http_version.startswith("1")


def _too_large(size: int, limit: int) -> S3Error:
    if limit == MAX_BODY:
        return S3Error("EntityTooLarge", ProposedSize=str(size), MaxSizeAllowed=str(limit))
    return S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(limit))
