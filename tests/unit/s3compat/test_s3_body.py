from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from s3_signing import chunked_body, presigned, signed, verify, with_header

from transom.s3compat.auth import ANONYMOUS, Identity
from transom.s3compat.body import body_decoder, payload_length, verifier
from transom.s3compat.checksums import Checksum
from transom.s3compat.errors import S3Error
from transom.s3compat.request import HttpRequest

DATA = bytes(range(256)) * 300
CHUNKS = [DATA[:65536], DATA[65536:]]
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def decode(
    request: HttpRequest, identity: Identity, wire: bytes, *, step: int = 1000
) -> tuple[bytes, Mapping[str, str]]:
    """Take a body in and check it, as a handler does; return payload and checksums."""
    decoder = body_decoder(request, identity)
    check = verifier(request, identity, decoder)
    payload = bytearray()
    for position in range(0, len(wire), step):
        for piece in decoder.feed(wire[position : position + step]):
            check.update(piece)
            payload += piece
    decoder.end()
    digest = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    return bytes(payload), check.finish(len(payload), digest)


def refused(request: HttpRequest, identity: Identity, wire: bytes) -> S3Error:
    with pytest.raises(S3Error) as caught:
        decode(request, identity, wire)
    return caught.value


def plain(body: bytes = DATA, **headers: str) -> tuple[HttpRequest, Identity]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = signed("PUT", body=body, headers={"Content-Length": str(len(body)), **named})
    return request, verify(request)


def streamed(kind: str, length: int = len(DATA), **headers: str) -> tuple[HttpRequest, Identity]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {"x-amz-decoded-content-length": str(length), "content-encoding": "aws-chunked"}
    request = signed("PUT", headers=named, streaming=kind)
    return request, verify(request)


# --- plain bodies -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_a_plain_body_is_its_payload(step: int) -> None:
    assert decode(*plain(DATA[:5000]), DATA[:5000], step=step) == (DATA[:5000], {})


def test_a_plain_body_that_is_not_what_was_signed_is_refused() -> None:
    request, identity = plain()
    assert refused(request, identity, DATA[:-1] + b"!").code == "XAmzContentSHA256Mismatch"
    assert refused(request, identity, DATA[:-1]).code == "IncompleteBody"
    assert refused(request, identity, DATA + b"!").code == "IncompleteBody"


def test_content_md5_is_checked() -> None:
    right = base64.b64encode(hashlib.md5(DATA, usedforsecurity=False).digest()).decode()
    wrong = base64.b64encode(hashlib.md5(b"", usedforsecurity=False).digest()).decode()
    assert decode(*plain(content_md5=right), DATA)[0] == DATA
    assert refused(*plain(content_md5=wrong), DATA).code == "BadDigest"


@pytest.mark.parametrize("value", ["", "YWJyYWNhZGFicmE=", "AWS HAHAHA", "é"])
def test_a_malformed_content_md5_is_refused_before_any_body(value: str) -> None:
    request = HttpRequest("PUT", "/b/k", "", {"content-length": "1", "content-md5": value})
    with pytest.raises(S3Error, match="InvalidDigest"):
        verifier(request, ANONYMOUS, body_decoder(request, ANONYMOUS))


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_checksum_header_is_checked_and_kept(name: str) -> None:
    checksum = Checksum(name)
    checksum.update(DATA)
    header = "x_amz_checksum_" + name.lower()
    assert decode(*plain(**{header: checksum.b64()}), DATA)[1] == {name: checksum.b64()}
    wrong = Checksum(name)
    error = refused(*plain(**{header: wrong.b64()}), DATA)
    assert (error.code, name in error.message) == ("BadDigest", True)


def test_an_algorithm_named_without_a_value_is_computed() -> None:
    assert decode(*plain(x_amz_sdk_checksum_algorithm="crc32"), DATA)[1] == {"CRC32": crc32(DATA)}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_amz_checksum_crc32": "AAAA"}, "BadDigest"),
        ({"x_amz_checksum_crc32": "not base64"}, "BadDigest"),
        ({"x_amz_checksum_crc32": "AAAAAA==", "x_amz_checksum_crc32c": "AAAAAA=="}, "InvalidRequest"),
        ({"x_amz_checksum_crc32": "AAAAAA==", "x_amz_sdk_checksum_algorithm": "SHA1"}, "InvalidRequest"),
        ({"x_amz_sdk_checksum_algorithm": "ROT13"}, "InvalidRequest"),
        ({"x_amz_checksum_sha512": "AAAA"}, "NotImplemented"),
        ({"x_amz_trailer": "x-amz-checksum-crc32"}, "BadDigest"),
    ],
)
def test_checksum_headers_that_make_no_sense_are_refused(headers: dict[str, str], code: str) -> None:
    assert refused(*plain(**headers), DATA).code == code


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_checksum_in_a_presigned_url_is_checked_and_kept(name: str) -> None:
    right, wrong = Checksum(name), Checksum(name)
    right.update(DATA)
    wrong.update(DATA[1:])
    parameter = f"X-Amz-Checksum-{name.title()}="
    assert decode(*in_url(parameter + quote(right.b64(), safe="")), DATA)[1] == {name: right.b64()}
    assert refused(*in_url(parameter + quote(wrong.b64(), safe="")), DATA).code == "BadDigest"
    assert refused(*in_url(parameter + "AAAA"), DATA).code == "BadDigest"


def test_the_checksum_of_nothing_in_a_presigned_url_claims_nothing() -> None:
    url = in_url("x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32")
    assert decode(*url, DATA)[1] == {"CRC32": crc32(DATA)}
    assert refused(*plain(x_amz_checksum_crc32="AAAAAA=="), DATA).code == "BadDigest"


def in_url(parameters: str) -> tuple[HttpRequest, Identity]:
    request = presigned("PUT", f"/bucket/key?{parameters}")
    request = with_header(request, "content-length", str(len(DATA)))
    return request, verify(request)


def test_the_objects_checksum_on_a_completion_is_not_taken_for_the_documents() -> None:
    headers = {"content-length": "6", "x-amz-checksum-crc32": "AAAAAA=="}
    request = signed("POST", "/b/k?uploadId=1", headers=headers, body=b"<xml/>")
    assert decode(request, verify(request), b"<xml/>") == (b"<xml/>", {})


def test_content_encoding_alone_makes_no_framing() -> None:
    request, identity = plain(content_encoding="aws-chunked")
    assert decode(request, identity, DATA)[0] == DATA


def test_the_decoded_length_is_the_payloads_where_it_is_framed() -> None:
    lengths = {"content-length": "90", "x-amz-decoded-content-length": "3"}
    plain_request = HttpRequest("PUT", "/b/k", "", lengths)
    assert payload_length(plain_request, ANONYMOUS) == 90
    assert payload_length(plain_request, Identity("a", "v4-header", UNSIGNED_TRAILER)) == 3
    framed = HttpRequest("PUT", "/b/k", "", {**lengths, "content-encoding": "aws-chunked"})
    assert payload_length(framed, ANONYMOUS) == 3


def test_a_length_is_demanded() -> None:
    framed = Identity("a", "v4-header", UNSIGNED_TRAILER)
    for headers, identity in (({}, ANONYMOUS), ({"content-length": "9"}, framed)):
        with pytest.raises(S3Error) as caught:
            payload_length(HttpRequest("PUT", "/b/k", "", headers), identity)
        assert (caught.value.code, caught.value.status) == ("MissingContentLength", 411)
    assert payload_length(HttpRequest("PUT", "/b/k", "", {"transfer-encoding": "chunked"}), ANONYMOUS) is None
    assert payload_length(HttpRequest("PUT", "/b/k", "", {}, http_version="2"), ANONYMOUS) is None


@pytest.mark.parametrize("value", ["-1", "", "ten", "٣", "9" * 5000])
def test_a_length_that_is_no_number_is_refused(value: str) -> None:
    request = HttpRequest("PUT", "/b/k", "", {"content-length": value})
    with pytest.raises(S3Error, match="InvalidArgument"):
        body_decoder(request, ANONYMOUS)


# --- unsigned chunks with a trailer: what today's SDKs send over TLS -----------------------------


def botocore_wire(data: bytes) -> bytes:
    wrapper = AwsChunkedWrapper(io.BytesIO(data), Crc32Checksum, "x-amz-checksum-crc32", chunk_size=10_000)
    return bytes(wrapper.read())


@pytest.mark.parametrize("step", [1, 3, 4096, 10**6])
@pytest.mark.parametrize("data", [b"", b"x", DATA[:30_000]])
def test_what_botocore_frames_is_decoded_and_its_trailer_checked(data: bytes, step: int) -> None:
    request, identity = streamed(UNSIGNED_TRAILER, len(data), x_amz_trailer="x-amz-checksum-crc32")
    assert decode(request, identity, botocore_wire(data), step=step) == (data, {"CRC32": crc32(data)})


def test_an_anonymous_framed_body_is_recognised_by_its_headers() -> None:
    headers = {
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "3",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    request = HttpRequest("PUT", "/b/k", "", headers)
    assert decode(request, ANONYMOUS, botocore_wire(b"abc"))[0] == b"abc"


def test_a_wrong_trailer_is_refused() -> None:
    request, identity = streamed(UNSIGNED_TRAILER, x_amz_trailer="x-amz-checksum-crc32")
    wire = botocore_wire(DATA).replace(crc32(DATA).encode(), crc32(b"").encode())
    assert refused(request, identity, wire).code == "BadDigest"
    assert refused(request, identity, wire.replace(crc32(b"").encode(), b"????")).code == "BadDigest"


@pytest.mark.parametrize(
    "trailer",
    [b"", b"x-amz-checksum-sha1:AAAA\r\n", b"no colon\r\n", b"x-amz-checksum-crc32:A\r\n" * 2, b"a:1\r\n" * 20],
)
def test_a_trailer_other_than_declared_is_refused(trailer: bytes) -> None:
    request, identity = streamed(UNSIGNED_TRAILER, 3, x_amz_trailer="x-amz-checksum-crc32")
    assert refused(request, identity, b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n").code == "MalformedTrailerError"


def test_a_bare_newline_inside_a_trailer_line_is_let_pass() -> None:
    request, identity = streamed(UNSIGNED_TRAILER, 3, x_amz_trailer="x-amz-checksum-crc32")
    wire = f"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:{crc32(b'abc')}\n\r\n\r\n".encode()
    assert decode(request, identity, wire)[1] == {"CRC32": crc32(b"abc")}


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"4",
        b"4\r\nab",
        b"4\r\nabcd",
        b"4\r\nabcd\r\n",
        b"4\r\nabcd\r\n0",
        b"4\r\nabcdX\r\n0\r\n\r\n",
        b"4\r\nabcd\r\n0\r\n\r\nmore",
        b"z\r\nabcd\r\n0\r\n\r\n",
        b"\r\n",
        b"-4\r\nabcd\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nabcd",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"5\r\nabcde\r\n0\r\n\r\n",
        b"4;" + b"x" * 10_000,
    ],
)
def test_broken_framing_is_refused(wire: bytes) -> None:
    request, identity = streamed(UNSIGNED_TRAILER, 4)
    assert refused(request, identity, wire).code == "IncompleteBody"


# --- signed chunks ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 997, 10**6])
def test_signed_chunks_are_verified(step: int) -> None:
    request, identity = streamed(SIGNED)
    assert identity.chunk is not None
    assert decode(request, identity, chunked_body(request, CHUNKS), step=step) == (DATA, {})


def test_signed_chunks_with_a_signed_trailer_are_verified() -> None:
    request, identity = streamed(SIGNED_TRAILER, x_amz_trailer="x-amz-checksum-crc32")
    wire = chunked_body(request, CHUNKS, {"x-amz-checksum-crc32": crc32(DATA)})
    assert decode(request, identity, wire) == (DATA, {"CRC32": crc32(DATA)})


def test_an_empty_signed_body_is_verified() -> None:
    request, identity = streamed(SIGNED, 0)
    assert decode(request, identity, chunked_body(request, []))[0] == b""


@pytest.mark.parametrize("at", [100, 70_000])
def test_a_changed_byte_in_a_signed_chunk_is_refused(at: int) -> None:
    request, identity = streamed(SIGNED)
    wire = bytearray(chunked_body(request, CHUNKS))
    wire[at] ^= 1
    assert refused(request, identity, bytes(wire)).code == "SignatureDoesNotMatch"


def test_signed_chunks_in_another_order_are_refused() -> None:
    request, identity = streamed(SIGNED, 8)
    wire = chunked_body(request, [b"abcd", b"efgh"])
    first, second = wire[: wire.index(b"efgh") - 84 - 3], wire
    one = wire[: 4 + wire.index(b"abcd") + 2]
    two = wire[len(one) : wire.index(b"efgh") + 6]
    assert first is not None
    assert refused(request, identity, two + one + second[len(one) + len(two) :]).code == "SignatureDoesNotMatch"


def test_a_signed_body_cut_at_a_chunk_is_refused() -> None:
    request, identity = streamed(SIGNED)
    wire = chunked_body(request, CHUNKS)
    assert refused(request, identity, wire[: wire.rindex(b"0;chunk")]).code == "IncompleteBody"


def test_an_end_forged_onto_a_cut_signed_body_is_refused() -> None:
    request, identity = streamed(SIGNED, 65536)
    wire = chunked_body(request, CHUNKS)
    first = wire[: 65536 + 200]
    cut = first[: first.index(CHUNKS[0][:100]) + 65536 + 2]
    assert (
        refused(request, identity, cut + b"0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n").code
        == "SignatureDoesNotMatch"
    )


def test_a_chunk_without_a_signature_is_refused() -> None:
    request, identity = streamed(SIGNED, 3)
    assert refused(request, identity, b"3\r\nabc\r\n0\r\n\r\n").code == "SignatureDoesNotMatch"


def test_a_changed_or_missing_trailer_signature_is_refused() -> None:
    request, identity = streamed(SIGNED_TRAILER, 3, x_amz_trailer="x-amz-checksum-crc32")
    wire = chunked_body(request, [b"abc"], {"x-amz-checksum-crc32": crc32(b"abc")})
    changed = wire.replace(crc32(b"abc").encode(), crc32(b"abd").encode())
    assert refused(request, identity, changed).code == "SignatureDoesNotMatch"
    start = wire.index(b"x-amz-trailer-signature")
    assert refused(request, identity, wire[:start] + b"\r\n").code == "SignatureDoesNotMatch"


def test_a_trailer_on_a_framing_without_one_is_refused() -> None:
    request, identity = streamed(SIGNED, 3)
    wire = chunked_body(request, [b"abc"])
    assert refused(request, identity, wire[:-2] + b"x-amz-meta-a:b\r\n\r\n").code == "MalformedTrailerError"


def test_signed_chunks_without_a_signature_to_start_from_are_refused() -> None:
    request = HttpRequest("PUT", "/b/k", "", {"x-amz-decoded-content-length": "3"})
    with pytest.raises(S3Error, match="InvalidRequest"):
        body_decoder(request, Identity("", "anonymous", SIGNED))


def test_a_body_shorter_than_declared_is_refused_even_when_its_framing_ends() -> None:
    request, identity = streamed(UNSIGNED_TRAILER, 10)
    error = refused(request, identity, b"3\r\nabc\r\n0\r\n\r\n")
    assert error.fields == {"NumberBytesExpected": "10", "NumberBytesProvided": "3"}
    whole = streamed(UNSIGNED_TRAILER, 3)
    assert decode(*whole, b"3\r\nabc\r\n0\r\n")[0] == b"abc"  # the last empty line may be missing


def test_without_any_declared_length_a_plain_body_ends_where_it_ends() -> None:
    request = HttpRequest("PUT", "/b/k", "", {"transfer-encoding": "chunked"})
    assert decode(request, ANONYMOUS, DATA)[0] == DATA
