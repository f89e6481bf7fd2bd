from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import pytest
from handlers_client import Answer, Client, completion, md5

PARTS = [b"a" * 150, b"b" * 200, b"c" * 10]
WHOLE = b"".join(PARTS)
ETAG = md5(b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in PARTS)) + "-3"


async def complete(
    client: Client, upload_id: str, document: str | bytes, path: str = "/bkt/k", **headers: str
) -> Answer:
    body = document.encode() if isinstance(document, str) else document
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client("POST", path, {"uploadId": upload_id}, headers=named, body=body)


async def test_parts_become_one_object_with_what_its_start_said(client: Client) -> None:
    upload_id, document = await client.multipart(
        "/bkt/k", PARTS, content_type="text/plain", x_amz_meta_a="1", x_amz_tagging="t=v"
    )
    assert (await client.get("/bkt/k")).code == "NoSuchKey"
    done = await complete(client, upload_id, document)
    assert done.xml["ETag"] == f'"{ETAG}"'
    assert done.xml["Location"] == "http://localhost:9000/bkt/k"
    assert (done.xml["Bucket"], done.xml["Key"]) == ("bkt", "k")
    got = await client.get("/bkt/k")
    assert (got.body, got.etag) == (WHOLE, ETAG)
    assert got.headers["content-type"] == "text/plain"
    assert got.headers["x-amz-meta-a"] == "1"
    assert got.headers["x-amz-tagging-count"] == "1"
    assert "x-amz-mp-parts-count" not in got.headers


async def test_completing_again_answers_the_same(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS)
    first, second = await complete(client, upload_id, document), await complete(client, upload_id, document)
    assert (first.status, second.status) == (200, 200)
    assert first.xml["ETag"] == second.xml["ETag"]


async def test_part_number_reads_one_part(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS)
    await complete(client, upload_id, document)
    for number, part in enumerate(PARTS, 1):
        for read in (client.get, client.head):
            answer = await read("/bkt/k", {"partNumber": number})
            assert (answer.status, answer.headers["content-length"]) == (206, str(len(part)))
            assert answer.headers["x-amz-mp-parts-count"] == "3"
            assert answer.etag == ETAG
        assert (await client.get("/bkt/k", {"partNumber": number})).body == part
    refused = await client.get("/bkt/k", "partNumber=4")
    assert (refused.status, refused.code) == (416, "InvalidPartNumber")


async def test_ranges_cross_parts(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS)
    await complete(client, upload_id, document)
    got = await client.get("/bkt/k", range="bytes=140-355")
    assert (got.status, got.body) == (206, WHOLE[140:356])


@pytest.mark.parametrize("document", [b"", b"<CompleteMultipartUpload></CompleteMultipartUpload>", b"<nonsense"])
async def test_completing_without_parts_is_malformed(client: Client, document: bytes) -> None:
    upload_id, _ = await client.multipart("/bkt/k", [])
    refused = await complete(client, upload_id, document)
    assert (refused.status, refused.code) == (400, "MalformedXML")


async def test_completing_names_what_was_uploaded(client: Client) -> None:
    upload_id, _ = await client.multipart("/bkt/k", PARTS)
    tags = [md5(part) for part in PARTS]
    missing = await complete(client, upload_id, completion([(9, tags[0])]))
    assert (missing.status, missing.code) == (400, "InvalidPart")
    assert (await complete(client, upload_id, completion([(1, "f" * 32)]))).code == "InvalidPart"
    order = await complete(client, upload_id, completion([(2, tags[1]), (1, tags[0])]))
    assert order.code == "InvalidPartOrder"
    small = await complete(client, upload_id, completion([(1, tags[0]), (2, tags[1]), (3, tags[2])]))
    assert small.status == 200
    assert (await complete(client, "no-such-upload", completion([(1, tags[0])]))).code == "NoSuchUpload"


async def test_small_parts_are_refused_but_for_the_last(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", [b"x" * 10, b"y" * 10])
    refused = await complete(client, upload_id, document)
    assert (refused.status, refused.code) == (400, "EntityTooSmall")


async def test_part_sent_again_replaces_the_first(client: Client) -> None:
    upload_id, _ = await client.multipart("/bkt/k", [b"first"])
    again = await client("PUT", "/bkt/k", {"partNumber": 1, "uploadId": upload_id}, body=b"second")
    await complete(client, upload_id, completion([(1, again.etag)]))
    assert (await client.get("/bkt/k")).body == b"second"


async def test_part_named_twice_counts_as_named_last(client: Client) -> None:
    """A client that sent a part twice at once may list both answers."""
    upload_id, _ = await client.multipart("/bkt/k", [b"first"])
    again = await client("PUT", "/bkt/k", {"partNumber": 1, "uploadId": upload_id}, body=b"second")
    done = await complete(client, upload_id, completion([(1, md5(b"first")), (1, again.etag)]))
    assert done.status == 200
    assert (await client.get("/bkt/k")).body == b"second"


async def test_abort(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS)
    assert (await client("DELETE", "/bkt/k", {"uploadId": upload_id})).status == 204
    assert (await client("DELETE", "/bkt/k", {"uploadId": upload_id})).code == "NoSuchUpload"
    assert (await complete(client, upload_id, document)).code == "NoSuchUpload"


async def test_part_of_no_upload_reads_no_body(client: Client) -> None:
    refused = await client("PUT", "/bkt/k", "partNumber=1&uploadId=nothing", body=b"x" * 100)
    assert (refused.status, refused.code) == (404, "NoSuchUpload")
    assert client.pieces_taken == 0


async def test_list_parts_a_page_at_a_time(client: Client) -> None:
    upload_id, _ = await client.multipart("/bkt/k", PARTS)
    first = (await client.get("/bkt/k", {"uploadId": upload_id, "max-parts": 2})).xml
    assert [(part["PartNumber"], part["Size"]) for part in first["Part"]] == [("1", "150"), ("2", "200")]
    assert (first["IsTruncated"], first["NextPartNumberMarker"]) == ("true", "2")
    assert first["Initiator"]["ID"] == first["Owner"]["ID"] == "alice"
    second = (await client.get("/bkt/k", {"uploadId": upload_id, "part-number-marker": 2})).xml
    assert [part["PartNumber"] for part in second["Part"]] == ["3"]
    assert second["IsTruncated"] == "false"
    assert (await client.get("/bkt/k", "uploadId=nothing")).code == "NoSuchUpload"
    assert (await client.as_("bob").get("/bkt/k", {"uploadId": upload_id})).code == "AccessDenied"


async def test_conditional_completion(client: Client) -> None:
    async def attempt(**headers: str) -> tuple[int, str]:
        upload_id, document = await client.multipart("/bkt/k", PARTS)
        answer = await complete(client, upload_id, document, **headers)
        return answer.status, answer.code

    assert await attempt(if_match="*") == (404, "NoSuchKey")
    assert await attempt(if_none_match="*") == (200, "")
    assert await attempt(if_none_match="*") == (412, "PreconditionFailed")
    assert await attempt(if_none_match=ETAG) == (412, "PreconditionFailed")
    assert await attempt(if_none_match="other") == (200, "")
    assert await attempt(if_match=f'"{ETAG}"') == (200, "")
    assert await attempt(if_match="other") == (412, "PreconditionFailed")


async def test_size_claimed_must_be_right(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS)
    assert (await complete(client, upload_id, document, x_amz_mp_object_size="1")).code == "InvalidRequest"
    assert (await complete(client, upload_id, document, x_amz_mp_object_size=str(len(WHOLE)))).status == 200


# --- checksums ----------------------------------------------------------------------------------


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


SHA256 = base64.b64encode(hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in PARTS)).digest()).decode() + "-3"


async def test_composite_checksum_even_where_parts_came_without(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS, x_amz_checksum_algorithm="SHA256")
    bad = await complete(client, upload_id, document, x_amz_checksum_sha256=sha256(b"other"))
    assert (bad.status, bad.code) == (400, "BadDigest")
    done = await complete(client, upload_id, document, x_amz_checksum_sha256=SHA256)
    assert (done.xml["ChecksumSHA256"], done.xml["ChecksumType"]) == (SHA256, "COMPOSITE")
    asked = await client.head("/bkt/k", x_amz_checksum_mode="ENABLED")
    assert asked.headers["x-amz-checksum-sha256"] == SHA256
    part = await client.get("/bkt/k", "partNumber=2", x_amz_checksum_mode="ENABLED")
    assert part.headers["x-amz-checksum-sha256"] == sha256(PARTS[1])
    again = await complete(client, upload_id, document, x_amz_checksum_sha256=SHA256)
    assert again.xml["ChecksumSHA256"] == SHA256


async def test_full_object_checksum_is_that_of_the_bytes(client: Client) -> None:
    started = {"x_amz_checksum_algorithm": "CRC32", "x_amz_checksum_type": "FULL_OBJECT"}
    upload_id, document = await client.multipart("/bkt/k", PARTS, **started)
    done = await complete(client, upload_id, document, x_amz_checksum_crc32=crc32(WHOLE))
    assert (done.xml["ChecksumCRC32"], done.xml["ChecksumType"]) == (crc32(WHOLE), "FULL_OBJECT")


async def test_part_checksums_claimed_in_the_completion_are_compared(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS[:1], x_amz_checksum_algorithm="CRC32")
    claim = "<ETag>", f"<ChecksumCRC32>{crc32(b'other')}</ChecksumCRC32><ETag>"
    assert (await complete(client, upload_id, document.replace(*claim))).code == "InvalidPart"
    claim = "<ETag>", f"<ChecksumCRC32>{crc32(PARTS[0])}</ChecksumCRC32><ETag>"
    assert (await complete(client, upload_id, document.replace(*claim))).status == 200


# --- parts by copy ------------------------------------------------------------------------------


async def part_copy(client: Client, upload_id: str, source: str, wanted: str | None = None, number: int = 1) -> Answer:
    headers = {"x-amz-copy-source": source}
    if wanted is not None:
        headers["x-amz-copy-source-range"] = wanted
    return await client("PUT", "/bkt/k", {"partNumber": number, "uploadId": upload_id}, headers=headers)


async def test_parts_copied_from_objects(client: Client) -> None:
    await client.put("/bkt/source%name?x", WHOLE)
    upload_id, _ = await client.multipart("/bkt/k", [], x_amz_checksum_algorithm="CRC32")
    first = await part_copy(client, upload_id, "bkt/source%25name%3Fx", "bytes=0-149")
    second = await part_copy(client, upload_id, "/bkt/source%25name%3Fx", number=2)
    assert first.xml["ETag"] == f'"{md5(WHOLE[:150])}"'
    assert first.xml["ChecksumCRC32"] == crc32(WHOLE[:150])
    done = await complete(client, upload_id, completion([(1, first.xml["ETag"]), (2, second.xml["ETag"])]))
    assert done.status == 200
    assert (await client.get("/bkt/k")).body == WHOLE[:150] + WHOLE


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("bytes=0-21", "InvalidRange"),
        ("0-2", "InvalidArgument"),
        ("bytes=0", "InvalidArgument"),
        ("bytes=hello-world", "InvalidArgument"),
        ("bytes=0-2,3-5", "InvalidArgument"),
    ],
)
async def test_ranges_of_part_copies_are_strict(client: Client, wanted: str, code: str) -> None:
    await client.put("/bkt/source", b"12345")
    upload_id, _ = await client.multipart("/bkt/k", [])
    assert (await part_copy(client, upload_id, "bkt/source", wanted)).code == code


async def test_part_copies_need_the_source(client: Client) -> None:
    bob = client.as_("bob")
    await bob("PUT", "/bobs")
    await bob.put("/bobs/k", b"x")
    upload_id, _ = await client.multipart("/bkt/k", [])
    assert (await part_copy(client, upload_id, "bobs/k")).code == "AccessDenied"
    assert (await part_copy(client, upload_id, "bkt/none")).code == "NoSuchKey"
    assert (await part_copy(client, upload_id, "nowhere/none")).code == "NoSuchBucket"


# --- attributes ---------------------------------------------------------------------------------


async def attributes(client: Client, wanted: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await client("GET", "/bkt/k", "attributes=", headers={"x-amz-object-attributes": wanted, **named})).xml


async def test_attributes_of_a_multipart_object(client: Client) -> None:
    upload_id, document = await client.multipart("/bkt/k", PARTS, x_amz_checksum_algorithm="SHA256")
    await complete(client, upload_id, document)
    found = await attributes(client, "ETag,Checksum,ObjectParts,StorageClass,ObjectSize")
    assert (found["ETag"], found["ObjectSize"], found["StorageClass"]) == (ETAG, str(len(WHOLE)), "STANDARD")
    assert found["Checksum"]["ChecksumSHA256"] == SHA256
    assert found["ObjectParts"]["PartsCount"] == "3"
    assert [part["ChecksumSHA256"] for part in found["ObjectParts"]["Part"]] == [sha256(part) for part in PARTS]
    page = (await attributes(client, "ObjectParts", x_amz_max_parts="1", x_amz_part_number_marker="1"))["ObjectParts"]
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == ("true", "2")
    assert [part["PartNumber"] for part in page["Part"]] == ["2"]


async def test_attributes_of_a_plain_object(client: Client) -> None:
    await client.put("/bkt/k", b"foo")
    found = await attributes(client, "ETag,ObjectParts,ObjectSize")
    assert (found["ETag"], found["ObjectSize"]) == (md5(b"foo"), "3")
    assert "ObjectParts" not in found
    assert "StorageClass" not in found
