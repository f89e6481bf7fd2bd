"""Bodies and documents: however the wire cuts them, what comes out is what went in."""

from __future__ import annotations

import base64
import hashlib
import zlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from transom.s3compat import xml
from transom.s3compat.auth import ChunkSigner, Identity
from transom.s3compat.body import body_decoder, verifier
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import parse_complete_multipart_upload, parse_delete_objects
from transom.s3compat.request import HttpRequest

payloads = st.lists(st.binary(min_size=1, max_size=60), max_size=5)
SIGNER = ChunkSigner(b"k" * 32, "20240101T000000Z", "20240101/us-east-1/s3/aws4_request", "0" * 64)


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(wire) + 1) for place in places} | {0, len(wire)})
    return [wire[start:stop] for start, stop in pairwise(edges)]


def trailer_of(data: bytes) -> str:
    return "x-amz-checksum-crc32:" + base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def framed(chunks: list[bytes], *, signed: bool) -> bytes:
    previous, wire = SIGNER.seed, b""
    for chunk in [*chunks, b""]:
        previous = SIGNER.chunk(previous, hashlib.sha256(chunk).hexdigest())
        extension = f";chunk-signature={previous}" if signed else ""
        wire += f"{len(chunk):x}{extension}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    line = trailer_of(b"".join(chunks)).encode()
    wire += line + b"\r\n"
    if signed:
        signature = SIGNER.trailer(previous, line + b"\n")
        wire += f"x-amz-trailer-signature:{signature}\r\n".encode()
    return wire + b"\r\n"


def decode(pieces: list[bytes], length: int, *, signed: bool) -> bytes:
    payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" if signed else "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    headers = {"x-amz-decoded-content-length": str(length), "x-amz-trailer": "x-amz-checksum-crc32"}
    request = HttpRequest("PUT", "/b/k", "", headers)
    identity = Identity("a", "v4-header", payload, SIGNER if signed else None)
    decoder = body_decoder(request, identity)
    check = verifier(request, identity, decoder)
    data = b""
    for piece in pieces:
        for out in decoder.feed(piece):
            check.update(out)
            data += out
    decoder.end()
    check.finish(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
    return data


@given(payloads, st.lists(st.integers(0, 2000), max_size=12), st.booleans())
def test_a_framed_body_comes_out_whole_however_it_is_cut(chunks: list[bytes], places: list[int], signed: bool) -> None:
    data = b"".join(chunks)
    assert decode(cut(framed(chunks, signed=signed), places), len(data), signed=signed) == data


@given(payloads, st.integers(0, 10**6), st.integers(1, 255), st.lists(st.integers(0, 2000), max_size=3))
def test_a_signed_body_with_one_byte_changed_never_passes_for_another(
    chunks: list[bytes], place: int, flip: int, places: list[int]
) -> None:
    wire = bytearray(framed(chunks, signed=True))
    wire[place % len(wire)] ^= flip
    data = b"".join(chunks)
    try:
        # White space and letter case in the framing may change; the payload may not.
        assert decode(cut(bytes(wire), places), len(data), signed=True) == data
    except S3Error as error:
        assert error.status in (400, 403)


@given(payloads, st.integers(0, 10**6), st.booleans())
def test_a_cut_body_never_passes(chunks: list[bytes], place: int, signed: bool) -> None:
    wire = framed(chunks, signed=signed)
    kept = wire[: place % (len(wire) - 2)]  # the very last empty line may be missing
    try:
        decode([kept], len(b"".join(chunks)), signed=signed)
    except S3Error as error:
        assert error.code in (
            "IncompleteBody",
            "MalformedTrailerError",
            "SignatureDoesNotMatch",
            "InvalidRequest",
            "BadDigest",
        )
    else:
        raise AssertionError("a cut body was taken for whole")


@given(st.binary(max_size=200), st.booleans())
def test_no_body_does_harm(wire: bytes, signed: bool) -> None:
    try:
        decode([wire], 5, signed=signed)
    except S3Error as error:
        assert error.status in (400, 403)


# --- XML ----------------------------------------------------------------------------------------

# XML 1.0 holds no other control characters; those go out as references that only lenient parsers take back.
readable = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t\n\r", exclude_characters="\ufffe\uffff"),
    min_size=1,
    max_size=20,
)


@given(st.lists(readable, min_size=1, max_size=5), readable)
def test_what_is_written_is_read_back(keys: list[str], name: str) -> None:
    rows = [("Contents", [{"Key": key, "Owner": {"ID": name}} for key in keys])]
    document = xml.to_xml(
        "Result", {"Name": name, "Listed": keys, "Count": len(keys), "Yes": True, "No": None}, rows=rows
    )
    read = xml.parse(document, "Result")
    assert (xml.text(read, "Name"), xml.many(read, "Listed")) == (name, keys)
    assert (read["Count"], read["Yes"], "No" in read) == (str(len(keys)), "true", False)
    assert [(each["Key"], each["Owner"]["ID"]) for each in xml.elements(read, "Contents")] == [
        (key, name) for key in keys
    ]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_any_text_at_all_can_be_written(value: str) -> None:
    document = xml.to_xml("Result", {"Key": value}, rows=[("Row", [{"Key": value}])])
    assert document.startswith(b"<?xml") and document.endswith(b"</Row></Result>")


@given(st.lists(readable, min_size=1, max_size=5))
def test_keys_to_delete_come_back(keys: list[str]) -> None:
    body = xml.to_xml("Delete", {"Object": [{"Key": key} for key in keys]})
    assert [doomed.key for doomed in parse_delete_objects(body).objects] == keys


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6, unique=True).map(sorted))
def test_completed_parts_come_back(numbers: list[int]) -> None:
    parts = [{"PartNumber": number, "ETag": f'"{number:032x}"'} for number in numbers]
    read = parse_complete_multipart_upload(xml.to_xml("CompleteMultipartUpload", {"Part": parts}))
    assert [(part.number, part.etag) for part in read] == [(number, f"{number:032x}") for number in numbers]


@given(st.binary(max_size=120))
def test_no_document_does_harm(body: bytes) -> None:
    try:
        xml.parse(b"<Delete>" + body + b"</Delete>", "Delete")
    except S3Error as error:
        assert error.status == 400
