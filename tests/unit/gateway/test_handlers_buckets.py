from __future__ import annotations

import pytest
from handlers_client import Client

from transom.cluster.records import IMPLICIT_VIEW_MARK
from transom.s3compat.names import VIEW_INFIX
from transom.target.store.base import Store

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"


async def test_making_ones_own_bucket_again_is_no_error_and_keeps_what_is_in_it(client: Client) -> None:
    await client.put("/bkt/k", b"x")
    assert (await client("PUT", "/bkt")).status == 200
    assert (await client.get("/bkt/k")).status == 200


async def test_a_bucket_with_another_acl_or_of_another_owner_exists_already(client: Client) -> None:
    other_acl = await client("PUT", "/bkt", headers={"x-amz-acl": "public-read"})
    assert (other_acl.status, other_acl.code) == (409, "BucketAlreadyExists")
    other_owner = await client.as_("bob")("PUT", "/bkt")
    assert (other_owner.status, other_owner.code) == (409, "BucketAlreadyExists")


async def test_the_anonymous_make_no_buckets(client: Client) -> None:
    assert (await client.as_("")("PUT", "/other")).code == "AccessDenied"


@pytest.mark.parametrize("name", ["Upper", "aa", "192.168.5.123", "foo..bar", "foo-", "foo_bar", "photos--etl--thumb"])
async def test_bad_bucket_names_are_refused(client: Client, name: str) -> None:
    refused = await client("PUT", f"/{name}")
    assert (refused.status, refused.code) == (400, "InvalidBucketName")


def test_no_bucket_may_be_named_as_implicit_views_are() -> None:
    """Neither library may import the other, so that each spells the mark."""
    assert VIEW_INFIX == IMPLICIT_VIEW_MARK


async def test_location(client: Client) -> None:
    body = b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"
    assert (await client("PUT", "/bucket2", body=body)).status == 200
    bad = body.replace(b"eu-west-1", b"no such place")
    assert (await client("PUT", "/bucket3", body=bad)).code == "InvalidLocationConstraint"
    assert (await client("PUT", "/bucket3", body=b"<nonsense")).code == "MalformedXML"
    location = await client.get("/bkt", "location=")
    assert location.xml in ({}, {"@xmlns": "http://s3.amazonaws.com/doc/2006-03-01/"})


async def test_versioning_was_never_on(client: Client) -> None:
    answer = await client.get("/bkt", "versioning=")
    assert answer.status == 200
    assert "Status" not in answer.xml


async def test_head_and_delete(client: Client) -> None:
    assert (await client.head("/bkt")).status == 200
    assert (await client.head("/nowhere")).status == 404
    await client.put("/bkt/k", b"x")
    refused = await client("DELETE", "/bkt")
    assert (refused.status, refused.code) == (409, "BucketNotEmpty")
    await client("DELETE", "/bkt/k")
    assert (await client.as_("bob")("DELETE", "/bkt")).code == "AccessDenied"
    assert (await client("DELETE", "/bkt")).status == 204
    assert (await client("DELETE", "/bkt")).code == "NoSuchBucket"


async def test_list_buckets_shows_ones_own_a_page_at_a_time(client: Client) -> None:
    await client("PUT", "/another")
    bob = client.as_("bob")
    await bob("PUT", "/bobs")
    names = [each["Name"] for each in (await client.get("/")).xml["Buckets"]["Bucket"]]
    assert names == ["another", "bkt"]
    first = (await client.get("/", "max-buckets=1")).xml
    assert [each["Name"] for each in first["Buckets"]["Bucket"]] == ["another"]
    second = (await client.get("/", {"max-buckets": 1, "continuation-token": first["ContinuationToken"]})).xml
    assert [each["Name"] for each in second["Buckets"]["Bucket"]] == ["bkt"]
    assert "ContinuationToken" not in second
    assert not (await client.as_("").get("/")).xml["Buckets"]


async def test_expected_owner_must_be_the_owner(client: Client) -> None:
    await client("PUT", "/bkt", "acl=", headers={"x-amz-acl": "public-read-write"})
    for owner, status in (("alice", 200), ("mallory", 403)):
        headers = {"x-amz-expected-bucket-owner": owner}
        assert (await client("GET", "/bkt", headers=headers)).status == status
        assert (await client("PUT", "/bkt/k", headers=headers, body=b"x")).status == status
        assert (await client("GET", "/bkt/k", headers=headers)).status == (status if owner == "mallory" else 200)


# --- who may do what ----------------------------------------------------------------------------

LIST, PUT = "list", "put"


@pytest.mark.parametrize(
    ("acl", "owner", "allowed"),
    [
        ("private", "bob", set()),
        ("private", "", set()),
        ("public-read", "bob", {LIST}),
        ("public-read", "", {LIST}),
        ("public-read-write", "bob", {LIST, PUT}),
        ("public-read-write", "", {LIST, PUT}),
        ("authenticated-read", "bob", {LIST}),
        ("authenticated-read", "", set()),
    ],
)
async def test_bucket_acl_decides_on_listing_and_writing(
    client: Client, acl: str, owner: str, allowed: set[str]
) -> None:
    await client.put("/bkt/private", b"x")
    assert (await client("PUT", "/bkt", "acl=", headers={"x-amz-acl": acl})).status == 200
    other = client.as_(owner)
    assert (await other.get("/bkt")).status == (200 if LIST in allowed else 403)
    assert (await other.head("/bkt")).status == (200 if LIST in allowed else 403)
    assert (await other.put("/bkt/new", b"x")).status == (200 if PUT in allowed else 403)
    assert (await other("DELETE", "/bkt/new")).status == (204 if PUT in allowed else 403)
    assert (await other.get("/bkt/private")).code == "AccessDenied"
    assert (await other.get("/bkt", "acl=")).code == "AccessDenied"
    assert (await other("PUT", "/bkt", "acl=", headers={"x-amz-acl": "public-read-write"})).code == "AccessDenied"


@pytest.mark.parametrize(
    ("acl", "by_bob", "by_anyone"),
    [
        ("private", 403, 403),
        ("public-read", 200, 200),
        ("public-read-write", 200, 200),
        ("authenticated-read", 200, 403),
    ],
)
async def test_object_acl_decides_on_reading(client: Client, acl: str, by_bob: int, by_anyone: int) -> None:
    await client.put("/bkt/k", b"x", x_amz_acl=acl)
    for other, status in (("bob", by_bob), ("", by_anyone)):
        assert (await client.as_(other).get("/bkt/k")).status == status
        assert (await client.as_(other).head("/bkt/k")).status == status
        assert (await client.as_(other).put("/bkt/k", b"y")).code == "AccessDenied"


async def test_who_may_not_list_does_not_learn_that_a_key_is_missing(client: Client) -> None:
    assert (await client.get("/bkt/none")).code == "NoSuchKey"
    assert (await client.as_("bob").get("/bkt/none")).code == "AccessDenied"
    assert (await client.as_("bob").head("/bkt/none")).status == 403
    await client("PUT", "/bkt", "acl=", headers={"x-amz-acl": "public-read"})
    assert (await client.as_("bob").get("/bkt/none")).code == "NoSuchKey"
    assert (await client.as_("bob").get("/nowhere/none")).code == "NoSuchBucket"


async def test_what_another_writes_is_theirs_and_the_bucket_owners_to_read(client: Client) -> None:
    await client("PUT", "/bkt", "acl=", headers={"x-amz-acl": "public-read-write"})
    bob, anonymous = client.as_("bob"), client.as_("")
    await bob.put("/bkt/bobs", b"x")
    await anonymous.put("/bkt/nobodys", b"x")
    assert (await bob.get("/bkt/bobs", "acl=")).xml["Owner"]["ID"] == "bob"
    assert (await client.get("/bkt/bobs")).status == 200
    assert (await client.get("/bkt/nobodys", "acl=")).xml["Owner"]["ID"] == "alice"
    assert (await anonymous.get("/bkt/nobodys")).code == "AccessDenied"
    assert (await bob.get("/bkt/nobodys")).code == "AccessDenied"


# --- ACLs told and set --------------------------------------------------------------------------


def grants(answer_xml: dict[str, dict[str, list[dict[str, dict[str, str]]]]]) -> list[tuple[str, str]]:
    listed = answer_xml["AccessControlList"]["Grant"]
    return [(each["Grantee"].get("URI") or each["Grantee"]["ID"], str(each["Permission"])) for each in listed]


async def test_acls_are_told_as_grants(client: Client) -> None:
    await client.put("/bkt/k", b"x")
    for path in ("/bkt", "/bkt/k"):
        assert grants((await client.get(path, "acl=")).xml) == [("alice", "FULL_CONTROL")]
        assert (await client("PUT", path, "acl=", headers={"x-amz-acl": "public-read-write"})).status == 200
        told = grants((await client.get(path, "acl=")).xml)
        assert told == [(ALL_USERS, "READ"), (ALL_USERS, "WRITE"), ("alice", "FULL_CONTROL")]


async def test_setting_an_objects_acl_keeps_all_else(client: Client) -> None:
    await client.put("/bkt/k", b"x", x_amz_meta_a="1", content_type="text/plain")
    before = (await client.head("/bkt/k")).headers
    await client("PUT", "/bkt/k", "acl=", headers={"x-amz-acl": "public-read"})
    assert (await client.head("/bkt/k")).headers == before


def policy(*others: str, owner: str = "alice") -> bytes:
    own = f"<Grantee><ID>{owner}</ID></Grantee><Permission>FULL_CONTROL</Permission>"
    listed = "".join(f"<Grant>{each}</Grant>" for each in (own, *others))
    return (
        f"<AccessControlPolicy><Owner><ID>{owner}</ID></Owner>"
        f"<AccessControlList>{listed}</AccessControlList></AccessControlPolicy>"
    ).encode()


async def test_a_policy_that_amounts_to_a_canned_acl_is_taken_and_others_are_not_implemented(client: Client) -> None:
    await client.put("/bkt/k", b"x")
    everyone = f"<Grantee><URI>{ALL_USERS}</URI></Grantee><Permission>READ</Permission>"
    bob = "<Grantee><ID>bob</ID></Grantee><Permission>READ</Permission>"
    for path in ("/bkt", "/bkt/k"):
        assert (await client("PUT", path, "acl=", body=policy(everyone))).status == 200
        assert grants((await client.get(path, "acl=")).xml) == [(ALL_USERS, "READ"), ("alice", "FULL_CONTROL")]
        refused = await client("PUT", path, "acl=", body=policy(bob))
        assert (refused.status, refused.code) == (501, "NotImplemented")
        assert (await client("PUT", path, "acl=", body=policy(owner="bob"))).code == "AccessDenied"
        assert (await client("PUT", path, "acl=", body=b"<nonsense")).code == "MalformedXML"
    by_header = await client("PUT", "/bkt", "acl=", headers={"x-amz-grant-read": f'uri="{ALL_USERS}"'})
    assert by_header.status == 200


async def test_bucket_owner_acls_name_the_bucket_owner(client: Client) -> None:
    await client("PUT", "/bkt", "acl=", headers={"x-amz-acl": "public-read-write"})
    bob = client.as_("bob")
    await bob.put("/bkt/k", b"x", x_amz_acl="bucket-owner-full-control")
    assert grants((await bob.get("/bkt/k", "acl=")).xml) == [("bob", "FULL_CONTROL"), ("alice", "FULL_CONTROL")]


async def test_unknown_canned_acl_stores_nothing(client: Client, store: Store) -> None:
    assert (await client.put("/bkt/k", b"x", x_amz_acl="aws-exec-read")).code == "NotImplemented"
    assert (await client.put("/bkt/k", b"x", x_amz_acl="nonsense")).code == "InvalidArgument"
    assert client.pieces_taken == 0
    assert not (await store.list_objects("bkt")).objects
