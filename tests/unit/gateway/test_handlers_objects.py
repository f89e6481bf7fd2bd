from __future__ import annotations

import base64
import zlib

import pytest
from handlers_client import OWNERS, Answer, Client, md5

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers.reads import ReaderBody
from transom.gateway.handlers.tagging import put_object_tagging
from transom.s3compat.addressing import split
from transom.s3compat.identity import Identity
from transom.s3compat.operations import PutObjectTagging
from transom.s3compat.request import HttpRequest
from transom.target.store.base import ObjectInfo
from transom.target.store.memory import MemoryReader


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


async def test_put_object_comes_back_with_its_etag_headers_and_metadata(client: Client) -> None:
    put = await client.put(
        "/bkt/a/b c.txt",
        b"bar",
        content_type="text/plain",
        cache_control="no-cache",
        content_encoding="gzip, aws-chunked",
        x_amz_meta_colour="blue",
        x_amz_tagging="k=v&other=",
    )
    assert put.headers["etag"] == '"37b51d194a7513e45b56f6524f2d51f2"'
    for got in (await client.get("/bkt/a/b c.txt"), await client.head("/bkt/a/b c.txt")):
        assert got.status == 200
        assert got.headers["etag"] == put.headers["etag"]
        assert got.headers["content-length"] == "3"
        assert got.headers["content-type"] == "text/plain"
        assert got.headers["cache-control"] == "no-cache"
        assert got.headers["content-encoding"] == "gzip"
        assert got.headers["x-amz-meta-colour"] == "blue"
        assert got.headers["x-amz-tagging-count"] == "2"
        assert got.headers["accept-ranges"] == "bytes"
        assert got.headers["last-modified"].endswith(" GMT")
    assert (await client.get("/bkt/a/b c.txt")).body == b"bar"


async def test_content_type_defaults_to_binary(client: Client) -> None:
    await client.put("/bkt/k", b"x")
    assert (await client.head("/bkt/k")).headers["content-type"] == "binary/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3 * 1024 * 1024 + 7])
async def test_bodies_of_any_size_are_whole(client: Client, size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(1024)) * (size // 1024 + 1)
    data = data[:size]
    pieces = [data[at : at + 100_000] for at in range(0, size, 100_000)]
    put = await client("PUT", "/bkt/k", body=pieces)
    assert put.etag == md5(data)
    got = await client.get("/bkt/k")
    assert got.body == data
    assert got.headers["content-length"] == str(size)


async def test_put_to_a_missing_bucket_reads_no_body(client: Client) -> None:
    refused = await client.put("/nowhere/k", b"x" * 1000)
    assert (refused.status, refused.code) == (404, "NoSuchBucket")
    assert client.pieces_taken == 0


async def test_put_to_somebody_elses_bucket_reads_no_body(client: Client) -> None:
    bob = client.as_("bob")
    refused = await bob.put("/bkt/k", b"x")
    assert (refused.status, refused.code) == (403, "AccessDenied")
    assert bob.pieces_taken == 0


async def test_put_without_a_length_is_refused_unless_chunked(client: Client) -> None:
    refused = await client("PUT", "/bkt/k", headers={"transfer-encoding": "identity"}, body=b"x")
    assert (refused.status, refused.code) == (411, "MissingContentLength")
    accepted = await client("PUT", "/bkt/k", headers={"transfer-encoding": "chunked"}, body=[b"x", b"y"])
    assert accepted.status == 200
    assert (await client.get("/bkt/k")).body == b"xy"


async def test_a_body_over_http2_needs_no_length(client: Client) -> None:
    document = [b"<Tagging><TagSet><Tag><Key>a</Key>", b"<Value>b</Value></Tag></TagSet></Tagging>", None]
    await client.put("/bkt/k", b"x")

    async def receive() -> bytes | None:
        return document.pop(0)

    request = HttpRequest("PUT", "/bkt/k", "tagging", {"host": "h"}, http_version="2")
    identity, address = Identity("AKALICE", "v4-header", "UNSIGNED-PAYLOAD"), split("/bkt/k", "h", ())
    call = Call(request, address, identity, OWNERS["alice"], "id", receive)
    await put_object_tagging(GatewayContext(client.store), call, PutObjectTagging(bucket="bkt", key="k"))
    assert (await client.store.head("bkt", "k")).attributes.tags == {"a": "b"}


async def test_put_beyond_five_gib_is_refused_unread(client: Client) -> None:
    refused = await client("PUT", "/bkt/k", headers={"content-length": str(5 * 1024**3 + 1)}, body=b"x")
    assert refused.code == "EntityTooLarge"
    assert client.pieces_taken == 0


async def test_short_body_stores_nothing(client: Client) -> None:
    refused = await client("PUT", "/bkt/k", headers={"content-length": "10"}, body=b"short")
    assert refused.code == "IncompleteBody"
    assert (await client.get("/bkt/k")).code == "NoSuchKey"


async def test_wrong_content_md5_stores_nothing(client: Client) -> None:
    refused = await client.put("/bkt/k", b"x", content_md5=base64.b64encode(b"0" * 16).decode())
    assert refused.code == "BadDigest"
    assert (await client.get("/bkt/k")).status == 404


async def test_checksum_is_kept_and_told_only_when_asked_and_never_on_partial_content(client: Client) -> None:
    value = crc32(b"hello")
    put = await client.put("/bkt/k", b"hello", x_amz_checksum_crc32=value)
    assert put.headers["x-amz-checksum-crc32"] == value
    assert "x-amz-checksum-crc32" not in (await client.get("/bkt/k")).headers
    for asked in (
        await client.get("/bkt/k", x_amz_checksum_mode="ENABLED"),
        await client.head("/bkt/k", x_amz_checksum_mode="ENABLED"),
    ):
        assert asked.headers["x-amz-checksum-crc32"] == value
        assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    part = await client.get("/bkt/k", x_amz_checksum_mode="ENABLED", range="bytes=0-4")
    assert part.status == 206
    assert "x-amz-checksum-crc32" not in part.headers


async def test_wrong_checksum_stores_nothing(client: Client) -> None:
    refused = await client.put("/bkt/k", b"hello", x_amz_checksum_crc32=crc32(b"other"))
    assert refused.code == "BadDigest"
    assert (await client.head("/bkt/k")).status == 404


@pytest.mark.parametrize(
    ("wanted", "body", "content_range"),
    [
        ("bytes=4-7", b"conte"[:4], "bytes 4-7/11"),
        ("bytes=4-", b"content", "bytes 4-10/11"),
        ("bytes=-7", b"content", "bytes 4-10/11"),
        ("bytes=0-1000", b"testcontent", "bytes 0-10/11"),
    ],
)
async def test_range_is_partial_content(client: Client, wanted: str, body: bytes, content_range: str) -> None:
    await client.put("/bkt/k", b"testcontent")
    got = await client.get("/bkt/k", range=wanted)
    assert (got.status, got.body) == (206, body)
    assert got.headers["content-range"] == content_range
    assert got.headers["content-length"] == str(len(body))
    head = await client.head("/bkt/k", range=wanted)
    assert (head.status, head.headers["content-range"]) == (206, content_range)


@pytest.mark.parametrize("wanted", ["bytes=a-b", "bytes=0-1,3-4", "lines=1-2", "bytes=7-4"])
async def test_range_that_makes_no_sense_is_the_whole_object(client: Client, wanted: str) -> None:
    await client.put("/bkt/k", b"testcontent")
    got = await client.get("/bkt/k", range=wanted)
    assert (got.status, got.body) == (200, b"testcontent")


@pytest.mark.parametrize("content", [b"testcontent", b""])
async def test_range_past_the_end_names_the_size(client: Client, content: bytes) -> None:
    await client.put("/bkt/k", content)
    refused = await client.get("/bkt/k", range="bytes=40-50")
    assert (refused.status, refused.code) == (416, "InvalidRange")
    assert refused.fields["ActualObjectSize"] == str(len(content))


async def test_if_range_of_another_version_gives_the_whole_object(client: Client) -> None:
    put = await client.put("/bkt/k", b"testcontent")
    same = await client.get("/bkt/k", range="bytes=0-3", if_range=put.headers["etag"])
    other = await client.get("/bkt/k", range="bytes=0-3", if_range='"other"')
    assert (same.status, other.status) == (206, 200)


async def test_read_conditions(client: Client) -> None:
    etag = (await client.put("/bkt/k", b"bar")).headers["etag"]
    past, future = "Sat, 29 Oct 1994 19:43:31 GMT", "Sat, 29 Oct 2100 19:43:31 GMT"

    async def both(**headers: str) -> int:
        got, head = await client.get("/bkt/k", **headers), await client.head("/bkt/k", **headers)
        assert got.status == head.status
        return got.status

    assert await both(if_match=etag) == 200
    assert await both(if_match='"other"') == 412
    assert await both(if_none_match="other") == 200
    assert await both(if_none_match=etag) == 304
    assert await both(if_modified_since=past) == 200
    assert await both(if_modified_since=future) == 304
    assert await both(if_unmodified_since=past) == 412
    assert await both(if_unmodified_since=future) == 200
    not_modified = await client.get("/bkt/k", if_none_match=etag)
    assert not_modified.headers["etag"] == etag
    assert not_modified.body == b""


async def test_response_overrides_change_headers_and_are_refused_to_the_anonymous(client: Client) -> None:
    await client.put("/bkt/k", b"bar", x_amz_acl="public-read", content_type="text/plain")
    query = {"response-content-type": "foo/bar", "response-cache-control": "no-cache", "response-expires": "123"}
    got = await client.get("/bkt/k", query)
    assert got.headers["content-type"] == "foo/bar"
    assert got.headers["cache-control"] == "no-cache"
    assert got.headers["expires"] == "123"
    anonymous = client.as_("")
    assert (await anonymous.get("/bkt/k")).status == 200
    assert (await anonymous.get("/bkt/k", query)).code == "InvalidRequest"


async def test_only_the_null_version_exists(client: Client) -> None:
    await client.put("/bkt/k", b"bar")
    assert (await client.get("/bkt/k", "versionId=null")).body == b"bar"
    assert (await client.get("/bkt/k", "versionId=abc")).code == "InvalidArgument"
    assert (await client.get("/bkt/k", "versionId=" + "a" * 32)).code == "NoSuchVersion"
    assert (await client("DELETE", "/bkt/k", "versionId=null")).status == 204
    assert (await client.get("/bkt/k")).code == "NoSuchKey"


async def test_part_number_of_a_plain_object(client: Client) -> None:
    await client.put("/bkt/k", b"bar")
    first = await client.get("/bkt/k", "partNumber=1")
    assert (first.status, first.body, first.headers["content-range"]) == (206, b"bar", "bytes 0-2/3")
    refused = await client.get("/bkt/k", "partNumber=2")
    assert (refused.status, refused.code) == (416, "InvalidPartNumber")
    await client.put("/bkt/empty", b"")
    assert (await client.get("/bkt/empty", "partNumber=1")).status == 200


async def test_delete_is_idempotent(client: Client) -> None:
    await client.put("/bkt/k", b"bar")
    assert (await client("DELETE", "/bkt/k")).status == 204
    assert (await client("DELETE", "/bkt/k")).status == 204
    assert (await client("DELETE", "/nowhere/k")).code == "NoSuchBucket"


async def test_delete_if_match(client: Client) -> None:
    etag = (await client.put("/bkt/k", b"bar")).headers["etag"]
    assert (await client("DELETE", "/bkt/k", headers={"if-match": '"other"'})).status == 412
    assert (await client.get("/bkt/k")).status == 200
    assert (await client("DELETE", "/bkt/k", headers={"if-match": etag})).status == 204
    assert (await client("DELETE", "/bkt/k", headers={"if-match": etag})).status == 404


async def test_conditional_writes(client: Client) -> None:
    async def put(**headers: str) -> tuple[int, str]:
        answer = await client.put("/bkt/k", b"data", **headers)
        return answer.status, answer.code

    assert await put(if_match="*") == (404, "NoSuchKey")
    assert await put(if_match='"bad"') == (404, "NoSuchKey")
    assert await put(if_none_match="*") == (200, "")
    etag = (await client.head("/bkt/k")).headers["etag"]
    taken = client.pieces_taken
    assert await put(if_none_match="*") == (412, "PreconditionFailed")
    assert await put(if_none_match=etag) == (412, "PreconditionFailed")
    assert await put(if_match='"bad"') == (412, "PreconditionFailed")
    assert client.pieces_taken == taken
    assert await put(if_none_match='"bad"') == (200, "")
    assert await put(if_match=etag.strip('"')) == (200, "")
    assert await put(if_match="*") == (200, "")
    assert await put(if_match=etag, if_none_match='"bad"') == (200, "")
    await client("DELETE", "/bkt/k")
    assert await put(if_none_match=etag) == (200, "")


async def test_a_write_lost_to_another_that_came_first_is_told(client: Client) -> None:
    """Between the first look at the condition and the end of the body somebody else writes."""
    etag = (await client.put("/bkt/k", b"old")).headers["etag"]

    async def race(**headers: str) -> Answer:
        late = Client(client.store, during_body=lambda: client.put("/bkt/k", b"rival"))
        return await late.put("/bkt/k", b"mine", **headers)

    assert (await race(if_match=etag)).status == 412
    assert (await client.get("/bkt/k")).body == b"rival"
    await client.put("/bkt/k", b"old")
    lost = await race(if_none_match='"something"')
    assert (lost.status, lost.code) == (409, "ConditionalRequestConflict")
    await client("DELETE", "/bkt/k")
    assert (await race(if_none_match="*")).status == 412


async def test_a_bucket_that_goes_while_the_body_comes_takes_the_object_along(client: Client) -> None:
    late = Client(client.store, during_body=lambda: client("DELETE", "/bkt"))
    refused = await late.put("/bkt/k", b"mine")
    assert (refused.status, refused.code) == (404, "NoSuchBucket")


async def delete_many(client: Client, body: bytes) -> Answer:
    digest = base64.b64encode(bytes.fromhex(md5(body))).decode()
    return await client("POST", "/bkt", "delete=", headers={"content-md5": digest}, body=body)


def doomed(*keys: str, quiet: bool = False) -> bytes:
    objects = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
    return f"<Delete>{objects}<Quiet>{str(quiet).lower()}</Quiet></Delete>".encode()


async def test_multi_delete_tells_of_each_key_and_twice_is_no_error(client: Client) -> None:
    for key in ("k0", "k1", "k2"):
        await client.put(f"/bkt/{key}", b"x")
    for _ in range(2):
        answer = await delete_many(client, doomed("k0", "k1", "k2"))
        assert [each["Key"] for each in answer.xml["Deleted"]] == ["k0", "k1", "k2"]
        assert "Error" not in answer.xml
    assert (await client.get("/bkt", "list-type=2")).xml["KeyCount"] == "0"


async def test_quiet_multi_delete_tells_only_of_errors(client: Client) -> None:
    await client.put("/bkt/k", b"x")
    body = (
        b"<Delete><Quiet>true</Quiet><Object><Key>k</Key></Object>"
        b"<Object><Key>v</Key><VersionId>" + b"a" * 32 + b"</VersionId></Object></Delete>"
    )
    answer = await delete_many(client, body)
    assert "Deleted" not in answer.xml
    assert [(each["Key"], each["Code"]) for each in answer.xml["Error"]] == [("v", "NoSuchVersion")]
    assert (await client.get("/bkt/k")).status == 404


async def test_multi_delete_takes_a_thousand_keys_and_no_more(client: Client) -> None:
    thousand = [f"key-{number}" for number in range(1000)]
    assert (await delete_many(client, doomed(*thousand, quiet=True))).status == 200
    refused = await delete_many(client, doomed(*thousand, "one-more"))
    assert (refused.status, refused.code) == (400, "MalformedXML")
    longest = [f"{number:04}" + "k" * 1020 for number in range(1000)]
    assert (await delete_many(client, doomed(*longest, quiet=True))).status == 200


async def test_multi_delete_body_is_verified(client: Client) -> None:
    await client.put("/bkt/k", b"x")
    wrong = {"content-md5": base64.b64encode(b"0" * 16).decode()}
    assert (await client("POST", "/bkt", "delete=", headers=wrong, body=doomed("k"))).code == "BadDigest"
    assert (await client("POST", "/bkt", "delete=", body=doomed("k"))).code == "InvalidRequest"
    assert (await client.get("/bkt/k")).status == 200


class Recording(MemoryReader):
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("taken", [1, 99])
async def test_a_streamed_body_closes_its_reader_however_far_it_got(taken: int) -> None:
    data = b"x" * (3 * 1024 * 1024)
    reader = Recording(ObjectInfo("bkt", "k", len(data), "etag", 0), data)
    body = ReaderBody(reader, 0, len(data))
    async for _ in body:
        taken -= 1
        if taken <= 0:
            break
    await body.aclose()
    assert reader.closed


async def test_a_streamed_body_that_was_never_begun_closes_its_reader() -> None:
    reader = Recording(ObjectInfo("bkt", "k", 1, "etag", 0), b"x")
    await ReaderBody(reader, 0, 1).aclose()
    assert reader.closed
