from __future__ import annotations

import pytest

from transom.s3compat import acl, xml
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import (
    CompletedPart,
    DoomedObject,
    parse_acl,
    parse_complete_multipart_upload,
    parse_create_bucket,
    parse_delete_objects,
    parse_tagging,
)

NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def refused(body: bytes, root: str = "Delete") -> S3Error:
    with pytest.raises(S3Error) as caught:
        xml.parse(body, root)
    return caught.value


# --- hardening ----------------------------------------------------------------------------------

BILLION_LAUGHS = (
    b"""<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>"""
)
EXTERNAL = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&f;</Key></Object></Delete>'


@pytest.mark.parametrize(
    "body",
    [
        BILLION_LAUGHS,
        EXTERNAL,
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><Delete/>',
        BILLION_LAUGHS.decode().encode("utf-16"),
        b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE x+AD4-<Delete/>',
        b"<Delete>&undefined;</Delete>",
        b"<Delete>",
        b"<Delete></Deleted>",
        b"<Delete/><Delete/>",
        b"<Other/>",
        b"not xml",
        b"<Delete>\xff</Delete>",
        b"<Delete>\x00</Delete>",
        b"<Delete>" + b"<a>" * 20 + b"</a>" * 20 + b"</Delete>",
        b"<Delete>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Delete>",
    ],
)
def test_tricks_and_nonsense_are_malformed(body: bytes) -> None:
    assert (refused(body).code, refused(body).status) == ("MalformedXML", 400)


def test_a_document_over_the_limit_is_refused_unread() -> None:
    assert refused(b" " * (xml.MIB + 1)).code == "MaxMessageLengthExceeded"
    with pytest.raises(S3Error, match="MaxMessageLengthExceeded"):
        xml.parse(b"<Delete/>", "Delete", limit_bytes=5)


def test_an_empty_body_says_so() -> None:
    assert refused(b"").code == "MissingRequestBodyError"


@pytest.mark.parametrize(
    "body",
    [
        f"<Delete {NS}><Object><Key>a</Key></Object></Delete>",
        "<Delete><Object><Key>a</Key></Object></Delete>",
        f"<s:Delete {NS.replace('xmlns', 'xmlns:s')}><s:Object><s:Key>a</s:Key></s:Object></s:Delete>",
        '<Delete xmlns="urn:other">\n  <Object>\n    <Key>a</Key>\n  </Object>\n</Delete>',
        '\ufeff<?xml version="1.0"?><!-- c --><Delete><Object><Key><![CDATA[a]]></Key></Object></Delete>',
    ],
)
def test_any_spelling_of_the_namespace_is_read(body: str) -> None:
    assert parse_delete_objects(body.encode()).objects == (DoomedObject("a"),)


# --- bodies -------------------------------------------------------------------------------------


def test_delete_objects_keeps_keys_exactly() -> None:
    body = f"""<Delete {NS}><Quiet>true</Quiet>
      <Object><Key>  sp ace&#13;&lt;&amp; </Key></Object>
      <Object><Key>b</Key><VersionId>v</VersionId><ETag>"e"</ETag></Object></Delete>"""
    request = parse_delete_objects(body.encode())
    assert request.quiet
    assert request.objects == (DoomedObject("  sp ace\r<& "), DoomedObject("b", "v", "e"))


@pytest.mark.parametrize("count", [0, 1001])
def test_delete_objects_takes_one_to_a_thousand(count: int) -> None:
    body = "<Delete>" + "<Object><Key>k</Key></Object>" * count + "</Delete>"
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_delete_objects(body.encode())


@pytest.mark.parametrize("inner", ["", "<Key></Key>", "<Key>a</Key><Key>b</Key>", "<Key><a>1</a></Key>", "text"])
def test_an_object_without_one_key_is_malformed(inner: str) -> None:
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_delete_objects(f"<Delete><Object>{inner}</Object></Delete>".encode())


def completion(*parts: str) -> bytes:
    return f"<CompleteMultipartUpload {NS}>{''.join(parts)}</CompleteMultipartUpload>".encode()


def test_a_completion_is_read() -> None:
    body = completion(
        "<Part><ETag>&quot;a&quot;</ETag><PartNumber>1</PartNumber><ChecksumCRC32>AA==</ChecksumCRC32></Part>",
        "<Part><PartNumber>7</PartNumber><ETag>b</ETag></Part>",
    )
    assert parse_complete_multipart_upload(body) == (CompletedPart(1, "a", {"CRC32": "AA=="}), CompletedPart(7, "b"))


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "MalformedXML"),
        (["<Part><PartNumber>1</PartNumber></Part>"], "MalformedXML"),
        (["<Part><PartNumber>x</PartNumber><ETag>a</ETag></Part>"], "MalformedXML"),
        (["<Part><PartNumber>0</PartNumber><ETag>a</ETag></Part>"], "InvalidArgument"),
        (["<Part><PartNumber>10001</PartNumber><ETag>a</ETag></Part>"], "InvalidArgument"),
        ([f"<Part><PartNumber>{number}</PartNumber><ETag>a</ETag></Part>" for number in (2, 1)], "InvalidPartOrder"),
        (["text"], "MalformedXML"),
    ],
)
def test_a_completion_that_makes_no_sense_is_refused(parts: list[str], code: str) -> None:
    with pytest.raises(S3Error, match=code):
        parse_complete_multipart_upload(completion(*parts))


def test_create_bucket_bodies() -> None:
    assert parse_create_bucket(b"") == ""
    assert parse_create_bucket(b"<CreateBucketConfiguration/>") == ""
    body = b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"
    assert parse_create_bucket(body) == "eu-west-1"


def test_tagging_bodies() -> None:
    tag = "<Tag><Key>{}</Key><Value>{}</Value></Tag>"
    body = f"<Tagging><TagSet>{tag.format('a', '1')}{tag.format('b', '')}</TagSet></Tagging>"
    assert parse_tagging(body.encode()) == {"a": "1", "b": ""}
    assert parse_tagging(b"<Tagging><TagSet/></Tagging>") == {}
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_tagging(b"<Tagging/>")
    too_many = "".join(tag.format(n, n) for n in range(11))
    with pytest.raises(S3Error, match="InvalidTag"):
        parse_tagging(f"<Tagging><TagSet>{too_many}</TagSet></Tagging>".encode())


# --- ACLs ---------------------------------------------------------------------------------------

POLICY = """<AccessControlPolicy {ns}><Owner><ID>me</ID></Owner><AccessControlList>
<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>me</ID></Grantee>
<Permission>FULL_CONTROL</Permission></Grant>
<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group"><URI>{uri}</URI></Grantee>
<Permission>{permission}</Permission></Grant></AccessControlList></AccessControlPolicy>"""


def test_an_acl_document_is_read_and_recognised_as_canned() -> None:
    policy = parse_acl(POLICY.format(ns=NS, uri=acl.ALL_USERS, permission="READ").encode())
    assert policy.owner == "me"
    assert [(grant.kind, grant.permission) for grant in policy.grants] == [
        ("CanonicalUser", "FULL_CONTROL"),
        ("Group", "READ"),
    ]
    assert acl.canned_name(policy.grants, "me") == "public-read"
    assert acl.canned_name(policy.grants, "you") is None


@pytest.mark.parametrize("name", ["private", "public-read", "public-read-write", "authenticated-read"])
def test_canned_acls_come_back_from_their_grants(name: str) -> None:
    assert acl.canned_name(acl.canned_policy(name, "me").grants, "me") == name


def test_acl_nonsense_is_refused() -> None:
    for body in (
        b"<AccessControlPolicy/>",
        POLICY.format(ns=NS, uri=acl.ALL_USERS, permission="FLY").encode(),
        POLICY.format(ns=NS, uri="", permission="READ").encode(),
    ):
        with pytest.raises(S3Error, match="MalformedACLError"):
            parse_acl(body)


def test_bucket_owner_grants_and_grant_headers() -> None:
    policy = acl.canned_policy("bucket-owner-read", "me", bucket_owner="boss")
    assert policy.grants[-1] == acl.Grant("CanonicalUser", "boss", "READ", "boss")
    grants = acl.parse_grant_headers(
        {"x-amz-grant-read": f'uri="{acl.ALL_USERS}", id=a', "x-amz-grant-full-control": "emailAddress=x"}
    )
    assert {(grant.kind, grant.grantee, grant.permission) for grant in grants} == {
        ("Group", acl.ALL_USERS, "READ"),
        ("CanonicalUser", "a", "READ"),
        ("AmazonCustomerByEmail", "x", "FULL_CONTROL"),
    }
    with pytest.raises(S3Error, match="InvalidArgument"):
        acl.parse_grant_headers({"x-amz-grant-read": "everyone"})
