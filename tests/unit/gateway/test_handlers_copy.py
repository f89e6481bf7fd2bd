from __future__ import annotations

import base64
import zlib

import pytest
from handlers_client import Answer, Client


async def copy(client: Client, source: str, path: str = "/bkt/copy", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client("PUT", path, headers={"x-amz-copy-source": source, **named})


@pytest.fixture
async def source(client: Client) -> Client:
    await client.put("/bkt/k", b"foo", content_type="audio/ogg", x_amz_meta_a="1", x_amz_tagging="t=v")
    return client


async def test_copy_keeps_bytes_and_what_is_said_of_them(source: Client) -> None:
    done = await copy(source, "bkt/k")
    original, copied = await source.get("/bkt/k"), await source.get("/bkt/copy")
    assert done.xml["ETag"] == original.headers["etag"]
    assert done.xml["LastModified"].endswith("Z")
    assert copied.body == b"foo"
    for name in ("etag", "content-type", "x-amz-meta-a", "x-amz-tagging-count"):
        assert copied.headers[name] == original.headers[name]


async def test_directives_replace_metadata_and_tags(source: Client) -> None:
    await copy(source, "bkt/k", x_amz_metadata_directive="REPLACE", x_amz_meta_b="2", content_type="text/x")
    copied = (await source.head("/bkt/copy")).headers
    assert (copied["content-type"], copied["x-amz-meta-b"]) == ("text/x", "2")
    assert "x-amz-meta-a" not in copied
    assert copied["x-amz-tagging-count"] == "1"
    await copy(source, "bkt/k", x_amz_tagging_directive="REPLACE", x_amz_tagging="")
    copied = (await source.head("/bkt/copy")).headers
    assert copied["x-amz-meta-a"] == "1"
    assert "x-amz-tagging-count" not in copied


async def test_copy_to_itself_must_change_something(source: Client) -> None:
    refused = await copy(source, "bkt/k", "/bkt/k")
    assert (refused.status, refused.code) == (400, "InvalidRequest")
    replaced = await copy(source, "bkt/k", "/bkt/k", x_amz_metadata_directive="REPLACE", x_amz_meta_b="2")
    assert replaced.status == 200
    got = await source.get("/bkt/k")
    assert (got.body, got.headers["x-amz-meta-b"]) == (b"foo", "2")


async def test_a_copys_acl_is_its_own(source: Client) -> None:
    await source("PUT", "/bkt/k", "acl=", headers={"x-amz-acl": "public-read"})
    await copy(source, "bkt/k")
    assert (await source.as_("bob").get("/bkt/copy")).code == "AccessDenied"
    await copy(source, "bkt/k", x_amz_acl="public-read")
    assert (await source.as_("bob").get("/bkt/copy")).status == 200


async def test_copy_needs_to_read_the_source_and_to_write_the_destination(source: Client) -> None:
    bob = source.as_("bob")
    await bob("PUT", "/bobs")
    assert (await copy(bob, "bkt/k", "/bobs/copy")).code == "AccessDenied"
    assert (await copy(bob, "bkt/k", "/bkt/copy")).code == "AccessDenied"
    await source("PUT", "/bkt/k", "acl=", headers={"x-amz-acl": "public-read"})
    assert (await copy(bob, "bkt/k", "/bobs/copy")).status == 200
    assert (await copy(bob, "bkt/k", "/bobs/copy", x_amz_source_expected_bucket_owner="bob")).code == "AccessDenied"
    in_url = {"x-amz-copy-source": "bkt/k", "x-amz-source-expected-bucket-owner": "bob"}
    assert (await bob("PUT", "/bobs/copy", in_url)).code == "AccessDenied"
    assert (await copy(source, "nowhere/k")).code == "NoSuchBucket"
    assert (await copy(source, "bkt/none")).code == "NoSuchKey"


async def test_copy_conditions(source: Client) -> None:
    etag = (await source.head("/bkt/k")).headers["etag"]

    async def status(**headers: str) -> int:
        return (await copy(source, "bkt/k", **headers)).status

    assert await status(x_amz_copy_source_if_match=etag) == 200
    assert await status(x_amz_copy_source_if_match="other") == 412
    assert await status(x_amz_copy_source_if_none_match=etag) == 412
    assert await status(x_amz_copy_source_if_none_match="other") == 200
    assert await status(x_amz_copy_source_if_modified_since="Sat, 29 Oct 2100 19:43:31 GMT") == 412
    assert await status(x_amz_copy_source_if_unmodified_since="Sat, 29 Oct 1994 19:43:31 GMT") == 412
    assert await status(if_none_match="*") == 412


async def test_copies_of_large_objects_and_their_checksums(client: Client) -> None:
    data = bytes(range(256)) * 16 * 1024  # 4 MiB
    crc32 = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    await client.put("/bkt/k", data)
    done = await copy(client, "bkt/k", x_amz_checksum_algorithm="CRC32")
    assert done.xml["ChecksumCRC32"] == crc32
    again = await copy(client, "bkt/copy", "/bkt/again")
    assert again.xml["ChecksumCRC32"] == crc32
    assert (await client.get("/bkt/again")).body == data


async def test_copy_of_a_multipart_object_has_a_checksum_of_its_own_bytes(client: Client) -> None:
    parts = [b"a" * 150, b"b" * 10]
    upload_id, document = await client.multipart("/bkt/k", parts, x_amz_checksum_algorithm="CRC32")
    await client("POST", "/bkt/k", {"uploadId": upload_id}, body=document.encode())
    done = await copy(client, "bkt/k")
    crc32 = zlib.crc32(b"".join(parts)).to_bytes(4, "big")
    assert (done.xml["ChecksumCRC32"], done.xml["ChecksumType"]) == (base64.b64encode(crc32).decode(), "FULL_OBJECT")


async def test_versions_of_the_source(source: Client) -> None:
    assert (await copy(source, "bkt/k?versionId=null")).status == 200
    assert (await copy(source, "bkt/k?versionId=" + "a" * 32)).code == "NoSuchVersion"


# --- tagging ------------------------------------------------------------------------------------


def tagging(**tags: str) -> bytes:
    listed = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in tags.items())
    return f"<Tagging><TagSet>{listed}</TagSet></Tagging>".encode()


async def tags_of(client: Client) -> dict[str, str]:
    tag_set = (await client.get("/bkt/k", "tagging=")).xml["TagSet"]
    return {each["Key"]: each["Value"] or "" for each in (tag_set or {}).get("Tag", [])}


async def test_tags_are_replaced_told_in_order_and_removed(source: Client) -> None:
    before = (await source.head("/bkt/k")).headers
    assert (await source("PUT", "/bkt/k", "tagging=", body=tagging(z="1", a=""))).status == 200
    assert list((await tags_of(source)).items()) == [("a", ""), ("z", "1")]
    after = (await source.head("/bkt/k")).headers
    assert after["x-amz-tagging-count"] == "2"
    assert (after["etag"], after["last-modified"]) == (before["etag"], before["last-modified"])
    assert (await source("DELETE", "/bkt/k", "tagging=")).status == 204
    assert await tags_of(source) == {}


async def test_tags_have_limits(source: Client) -> None:
    eleven = tagging(**{f"k{number}": "v" for number in range(11)})
    assert (await source("PUT", "/bkt/k", "tagging=", body=eleven)).code == "InvalidTag"
    assert (await source("PUT", "/bkt/k", "tagging=", body=tagging(k="v" * 257))).code == "InvalidTag"
    assert (await source("PUT", "/bkt/k", "tagging=", body=b"<Tagging/>")).code == "MalformedXML"
    assert await tags_of(source) == {"t": "v"}


async def test_tags_of_missing_or_foreign_objects(source: Client) -> None:
    assert (await source.get("/bkt/none", "tagging=")).code == "NoSuchKey"
    assert (await source("PUT", "/bkt/none", "tagging=", body=tagging(a="b"))).code == "NoSuchKey"
    assert (await source("DELETE", "/bkt/none", "tagging=")).code == "NoSuchKey"
    assert (await source.as_("bob").get("/bkt/k", "tagging=")).code == "AccessDenied"
    assert (await source.as_("bob")("PUT", "/bkt/k", "tagging=", body=tagging(a="b"))).code == "AccessDenied"
