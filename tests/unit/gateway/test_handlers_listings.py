from __future__ import annotations

from typing import Any

import pytest
from handlers_client import Client

KEYS = ["asdf", "boo/bar", "boo/baz/xyzzy", "cquux/bla", "cquux/thud"]


@pytest.fixture
async def filled(client: Client) -> Client:
    for key in KEYS:
        await client.put(f"/bkt/{key}", b"x")
    return client


def names(page: Any) -> tuple[list[str], list[str]]:
    keys = [each["Key"] for each in page.get("Contents", [])]
    return keys, [each["Prefix"] for each in page.get("CommonPrefixes", [])]


async def test_v1_pages_through_keys_and_prefixes(filled: Client) -> None:
    query = {"delimiter": "/", "max-keys": 1}
    first = (await filled.get("/bkt", query)).xml
    assert (names(first), first["IsTruncated"], first["NextMarker"]) == ((["asdf"], []), "true", "asdf")
    second = (await filled.get("/bkt", {**query, "marker": "asdf"})).xml
    assert (names(second), second["IsTruncated"], second["NextMarker"]) == (([], ["boo/"]), "true", "boo/")
    third = (await filled.get("/bkt", {**query, "marker": "boo/"})).xml
    assert (names(third), third["IsTruncated"]) == (([], ["cquux/"]), "false")
    assert "NextMarker" not in third


async def test_v2_pages_by_token_and_counts_both_kinds(filled: Client) -> None:
    seen = []
    query: dict[str, Any] = {"list-type": 2, "delimiter": "/", "max-keys": 2}
    while True:
        page = (await filled.get("/bkt", query)).xml
        keys, prefixes = names(page)
        assert int(page["KeyCount"]) == len(keys) + len(prefixes) <= 2
        seen += keys + prefixes
        if page["IsTruncated"] == "false":
            break
        query["continuation-token"] = page["NextContinuationToken"]
    assert seen == ["asdf", "boo/", "cquux/"]


async def test_prefix_start_after_and_owner(filled: Client) -> None:
    page = (await filled.get("/bkt", {"list-type": 2, "prefix": "boo/"})).xml
    assert names(page) == (["boo/bar", "boo/baz/xyzzy"], [])
    assert "Owner" not in page["Contents"][0]
    page = (await filled.get("/bkt", {"list-type": 2, "start-after": "boo/bar", "fetch-owner": "true"})).xml
    assert names(page)[0] == KEYS[2:]
    assert page["Contents"][0]["Owner"] == {"ID": "alice", "DisplayName": "alice"}


async def test_listing_tells_what_head_tells(filled: Client) -> None:
    (entry, *_) = (await filled.get("/bkt")).xml["Contents"]
    head = (await filled.head("/bkt/asdf")).headers
    assert (entry["ETag"], entry["Size"]) == (head["etag"], head["content-length"])


async def test_max_keys_of_zero_is_a_whole_listing_of_nothing(filled: Client) -> None:
    for query in ("max-keys=0", "list-type=2&max-keys=0", "versions=&max-keys=0", "uploads=&max-uploads=0"):
        page = (await filled.get("/bkt", query)).xml
        assert page["IsTruncated"] == "false"
        assert names(page) == ([], [])
    assert (await filled.get("/bkt", "max-keys=blah")).code == "InvalidArgument"


async def test_url_encoding(client: Client) -> None:
    for key in ("foo+1/bar", "quux ab/thud", "asdf+b"):
        await client.put(f"/bkt/{key}", b"x")
    page = (await client.get("/bkt", {"delimiter": "/", "encoding-type": "url"})).xml
    assert names(page) == (["asdf%2Bb"], ["foo%2B1/", "quux%20ab/"])


async def test_every_object_is_its_own_latest_null_version(filled: Client) -> None:
    page = (await filled.get("/bkt", "versions=&max-keys=3")).xml
    assert [(each["Key"], each["VersionId"], each["IsLatest"]) for each in page["Version"]] == [
        (key, "null", "true") for key in KEYS[:3]
    ]
    assert page["NextKeyMarker"] == KEYS[2]
    rest = (await filled.get("/bkt", {"versions": "", "key-marker": KEYS[2], "version-id-marker": "null"})).xml
    assert [each["Key"] for each in rest["Version"]] == KEYS[3:]


async def test_uploads_under_way_are_listed_with_their_owners_a_page_at_a_time(client: Client) -> None:
    await client("PUT", "/bkt", "acl=", headers={"x-amz-acl": "public-read-write"})
    started = []
    for owner, key in (("alice", "one"), ("bob", "two"), ("alice", "two")):
        answer = await client.as_(owner)("POST", f"/bkt/{key}", "uploads=")
        started.append((key, answer.xml["UploadId"], owner))
    seen = []
    query: dict[str, Any] = {"uploads": "", "max-uploads": 1}
    while True:
        page = (await client.get("/bkt", query)).xml
        seen += [(each["Key"], each["UploadId"], each["Initiator"]["ID"]) for each in page["Upload"]]
        if page["IsTruncated"] == "false":
            break
        query |= {"key-marker": page["NextKeyMarker"], "upload-id-marker": page["NextUploadIdMarker"]}
    assert seen == sorted(started)
    page = (await client.get("/bkt", {"uploads": "", "key-marker": "one"})).xml
    assert {each["Key"] for each in page["Upload"]} == {"two"}


async def test_listing_a_missing_bucket(client: Client) -> None:
    for query in ("", "list-type=2", "versions=", "uploads="):
        assert (await client.get("/nowhere", query)).code == "NoSuchBucket"
