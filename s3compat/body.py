"""A request body as it comes off the wire: plain or aws-chunked, its chunks' and trailer's signatures, its checksums.

A push parser: bytes in, payload out. It reads from no socket and holds no payload back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum, auto

from transom.s3compat import sigv4
from transom.s3compat.checksums import ALGORITHMS, UNSUPPORTED, Checksum, header_name, is_wellformed
from transom.s3compat.errors import S3Error
from transom.s3compat.identity import ChunkSigner, Identity
from transom.s3compat.request import HttpRequest

MAX_LINE_BYTES = 8192
MAX_TRAILERS = 16
MD5_BYTES = 16

_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})\s*(?:;\s*chunk-signature=([0-9a-f]{64})\s*|;[^\r\n]*)?")
_HEX64 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


# --- decoding -----------------------------------------------------------------------------------


class BodyDecoder(ABC):
    """Turns the bytes of a body into its payload. `trailers` is complete once `end` has returned."""

    trailers: Mapping[str, str]

    @abstractmethod
    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes off the wire; return the payload in them, in pieces."""

    @abstractmethod
    def end(self) -> None:
        """Say that no more comes; raises IncompleteBody if more was due."""


class PlainDecoder(BodyDecoder):
    """A body that is its payload."""

    def __init__(self, expected: int | None) -> None:
        self.trailers = {}
        self._expected, self._size = expected, 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data as it is."""
        self._size += len(data)
        if self._expected is not None and self._size > self._expected:
            raise S3Error("IncompleteBody")
        return [data] if data else []

    def end(self) -> None:
        """Check the length."""
        if self._expected is not None and self._size != self._expected:
            raise _incomplete(self._expected, self._size)


class _State(Enum):
    HEAD = auto()  # a chunk's size and signature
    DATA = auto()
    AFTER = auto()  # the CRLF behind a chunk's data
    TRAILER = auto()
    DONE = auto()


class ChunkedDecoder(BodyDecoder):
    """An aws-chunked body. With a signer every chunk is signed, and a trailer too.

    `declared` are the trailer's names from x-amz-trailer, None where the framing has no trailer.
    """

    def __init__(self, expected: int | None, signer: ChunkSigner | None, declared: frozenset[str] | None) -> None:
        self._received: dict[str, str] = {}
        self.trailers = self._received
        self._expected, self._size = expected, 0
        self._signer, self._declared = signer, declared
        self._previous = signer.seed if signer else ""
        self._state = _State.HEAD
        self._line = bytearray()
        self._remaining = 0
        self._claimed = ""
        self._hash = hashlib.sha256()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes, split anywhere."""
        pieces: list[bytes] = []
        position, end = 0, len(data)
        while position < end:
            if self._state is _State.DATA:
                stop = min(end, position + self._remaining)
                piece = data if stop - position == end else data[position:stop]
                self._take(piece)
                pieces.append(piece)
                position = stop
            elif self._state is _State.DONE:
                raise S3Error("IncompleteBody", "The request body goes on after its last chunk.")
            else:
                position = self._read_line(data, position)
        return pieces

    def end(self) -> None:
        """Check that the last chunk came, the trailer is whole, and the length is what was declared."""
        if self._state is _State.TRAILER and not self._line:
            self._finish()  # some clients leave the last empty line out
        if self._state is not _State.DONE:
            raise _incomplete(self._expected, self._size)
        if self._expected is not None and self._size != self._expected:
            raise _incomplete(self._expected, self._size)

    def _take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._expected is not None and self._size > self._expected:
            raise S3Error("IncompleteBody", "The request body is longer than x-amz-decoded-content-length says.")
        if self._signer:
            self._hash.update(piece)
        self._remaining -= len(piece)
        if self._remaining == 0:
            self._check_chunk()
            self._state = _State.AFTER

    def _read_line(self, data: bytes, position: int) -> int:
        """Take up to a line's end, and act on the line if it is whole; return where to go on."""
        newline = data.find(b"\n", position)
        stop = len(data) if newline < 0 else newline + 1
        self._line += data[position:stop]
        if len(self._line) > MAX_LINE_BYTES:
            raise S3Error("IncompleteBody", "A chunk header or trailer line is too long.")
        # Only CRLF ends a line: Amazon's own examples have a bare LF inside a trailer's.
        if self._line.endswith(b"\r\n"):
            line = bytes(self._line[:-2])
            self._line.clear()
            self._on_line(line)
        return stop

    def _on_line(self, line: bytes) -> None:
        if self._state is _State.HEAD:
            self._begin_chunk(line)
        elif self._state is _State.AFTER:
            if line:
                raise S3Error("IncompleteBody", "A chunk is longer than its header says.")
            self._state = _State.HEAD
        elif line.strip():
            self._on_trailer(line)
        else:
            self._finish()

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise S3Error("IncompleteBody", "A chunk header is malformed.")
        if self._signer:
            if match.group(2) is None:
                raise S3Error("SignatureDoesNotMatch", "A chunk carries no signature.")
            self._claimed = match.group(2).decode()
            self._hash = hashlib.sha256()
        self._remaining = int(match.group(1), 16)
        if self._remaining:
            self._state = _State.DATA
        else:
            self._check_chunk()
            self._state = _State.TRAILER

    def _check_chunk(self) -> None:
        if self._signer is None:
            return
        expected = self._signer.chunk(self._previous, self._hash.hexdigest())
        if not hmac.compare_digest(expected, self._claimed):
            raise S3Error("SignatureDoesNotMatch", "The signature of a chunk does not match.")
        self._previous = expected

    def _on_trailer(self, line: bytes) -> None:
        name, colon, value = line.decode("latin-1").partition(":")
        name = name.strip().lower()
        if not colon or name in self._received or len(self._received) >= MAX_TRAILERS:
            raise S3Error("MalformedTrailerError")
        self._received[name] = value.strip()

    def _finish(self) -> None:
        signature = self._received.pop("x-amz-trailer-signature", None)
        if set(self._received) != (self._declared or set()):
            raise S3Error("MalformedTrailerError")
        if self._signer and self._declared is not None:
            lines = "".join(f"{name}:{value}\n" for name, value in sorted(self._received.items()))
            expected = self._signer.trailer(self._previous, lines.encode("latin-1"))
            if not hmac.compare_digest(expected.encode(), (signature or "").encode()):
                raise S3Error("SignatureDoesNotMatch", "The signature of the trailer does not match.")
        self._state = _State.DONE


def _incomplete(expected: int | None, size: int) -> S3Error:
    if expected is None:
        return S3Error("IncompleteBody")
    return S3Error("IncompleteBody", NumberBytesExpected=str(expected), NumberBytesProvided=str(size))


def body_decoder(request: HttpRequest, identity: Identity) -> BodyDecoder:
    """Return the decoder for this request's body."""
    payload = identity.payload
    expected = payload_length(request, identity)
    if not is_framed(request, identity):
        return PlainDecoder(expected)
    if payload in (sigv4.STREAMING_SIGNED, sigv4.STREAMING_SIGNED_TRAILER) and identity.chunk is None:
        raise S3Error("InvalidRequest", f"{payload} needs a Signature Version 4 in the Authorization header.")
    if payload == sigv4.STREAMING_SIGNED:
        return ChunkedDecoder(expected, identity.chunk, None)
    return ChunkedDecoder(expected, identity.chunk, _declared_trailers(request.effective_headers))


def payload_length(request: HttpRequest, identity: Identity) -> int | None:
    """Return how long the payload will be, its framing not counted; None where HTTP itself leaves it open.

    S3 demands to be told in advance, and MissingContentLength says so; clients that can't tell, and send HTTP's own
    chunks or HTTP/2, are served all the same.
    """
    headers, framed = request.effective_headers, is_framed(request, identity)
    name = "x-amz-decoded-content-length" if framed else "content-length"
    text = headers.get(name)
    if text is None:
        is_open = headers.get("transfer-encoding", "").lower() == "chunked" or not request.http_version.startswith("1")
        if framed or not is_open:
            raise S3Error("MissingContentLength")
        return None
    if not _LENGTH.fullmatch(text):
        raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=text)
    return int(text)


def is_framed(request: HttpRequest, identity: Identity) -> bool:
    """Tell whether the body is really aws-chunked: Content-Encoding may say so of a body that isn't."""
    if identity.payload.startswith("STREAMING-"):
        return True
    headers = request.effective_headers
    return (
        identity.payload in ("", sigv4.UNSIGNED)
        and "x-amz-decoded-content-length" in headers
        and "aws-chunked" in headers.get("content-encoding", "")
    )


def _declared_trailers(headers: Mapping[str, str]) -> frozenset[str]:
    names = headers.get("x-amz-trailer", "").lower().split(",")
    return frozenset(filter(None, map(str.strip, names)))


# --- verifying ----------------------------------------------------------------------------------


class Verifier:
    """Checks a payload while it is written; satisfies the store's Intake.

    What the headers claim is checked for form at once: InvalidDigest, BadDigest, InvalidRequest.
    """

    def __init__(self, request: HttpRequest, identity: Identity, decoder: BodyDecoder) -> None:
        self._decoder = decoder
        self._content_md5 = _content_md5(request.headers)
        self._sha256_hex = identity.payload.lower() if _HEX64.fullmatch(identity.payload) else ""
        self._sha256 = hashlib.sha256() if self._sha256_hex else None
        algorithm, self._claimed, self._in_trailer = _claimed_checksum(request)
        self._checksum = Checksum(algorithm) if algorithm else None
        self._expected = payload_length(request, identity)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the payload."""
        if self._sha256:
            self._sha256.update(chunk)
        if self._checksum:
            self._checksum.update(chunk)

    def finish(self, size: int, md5_hex: str) -> Mapping[str, str]:
        """Return the checksums to keep, as {"CRC32": base64}, or raise what the payload fails.

        Raises IncompleteBody, BadDigest, XAmzContentSHA256Mismatch, InvalidRequest.
        """
        if self._expected is not None and size != self._expected:
            raise _incomplete(self._expected, size)
        if self._sha256 and self._sha256.hexdigest() != self._sha256_hex:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self._sha256_hex,
                S3ComputedContentSHA256=self._sha256.hexdigest(),
            )
        if self._content_md5 and self._content_md5 != md5_hex:
            calculated = base64.b64encode(bytes.fromhex(md5_hex)).decode()
            raise S3Error("BadDigest", ExpectedDigest=self._content_md5, CalculatedDigest=calculated)
        return self._finish_checksum()

    def _finish_checksum(self) -> Mapping[str, str]:
        if self._checksum is None:
            return {}
        name, computed = self._checksum.name, self._checksum.b64()
        claimed = self._claimed
        if self._in_trailer:
            claimed = self._decoder.trailers.get(header_name(name), "")
            _check_form(name, claimed)
        if claimed and base64.b64decode(claimed) != base64.b64decode(computed):
            raise S3Error("BadDigest", f"The {name} you specified did not match the calculated checksum.")
        return {name: computed}


def verifier(request: HttpRequest, identity: Identity, decoder: BodyDecoder) -> Verifier:
    """Return what checks this request's payload."""
    return Verifier(request, identity, decoder)


def _content_md5(headers: Mapping[str, str]) -> str:
    """Return Content-MD5 in hex, "" where there is none."""
    text = headers.get("content-md5")
    if text is None:
        return ""
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise S3Error("InvalidDigest", ContentMD5=text) from error
    if len(digest) != MD5_BYTES:
        raise S3Error("InvalidDigest", ContentMD5=text)
    return digest.hex()


def _claimed_checksum(request: HttpRequest) -> tuple[str, str, bool]:
    """Return (algorithm, value, whether the value comes in the trailer); the algorithm is "" where none is named."""
    if request.method == "POST" and request.query.has("uploadId"):
        return "", "", False  # CompleteMultipartUpload states the checksum of the object, not of its own body
    headers = request.effective_headers
    declared = _declared_trailers(headers)
    for name in UNSUPPORTED:
        if header_name(name) in headers or header_name(name) in declared:
            raise S3Error("NotImplemented", f"The {name} checksum is not implemented", Header=header_name(name))
    values = {name: headers[header_name(name)] for name in ALGORITHMS if header_name(name) in headers}
    trailing = [name for name in ALGORITHMS if header_name(name) in declared]
    if len(values) + len(trailing) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    named = headers.get("x-amz-sdk-checksum-algorithm", "").upper()
    if named and named not in ALGORITHMS:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    for name, value in values.items():
        _check_form(name, value)
        _check_named(name, named)
        return name, "" if _is_placeholder(request, name, value) else value, False
    for name in trailing:
        _check_named(name, named)
        return name, "", True
    return named, "", False


def _is_placeholder(request: HttpRequest, name: str, value: str) -> bool:
    """Tell whether a URL was presigned with the checksum of nothing, as Amazon's SDK for JavaScript does for any body.

    It can't know the body yet. Then the value claims nothing, and the checksum is computed.
    """
    return header_name(name) not in request.headers and value == Checksum(name).b64()


def _check_form(name: str, value: str) -> None:
    # Amazon calls this InvalidRequest; the public S3 tests want the code of a value that doesn't match, which it can't.
    if not is_wellformed(name, value):
        raise S3Error("BadDigest", f"Value for {header_name(name)} header is invalid.")


def _check_named(name: str, named: str) -> None:
    if named and named != name:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
