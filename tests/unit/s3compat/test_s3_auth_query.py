from __future__ import annotations

import time
from dataclasses import replace

import pytest
from s3_signing import ACCESS, presigned, presigned_v2, verify, with_header

from transom.s3compat.errors import S3Error
from transom.s3compat.request import HttpRequest


def refused(request: HttpRequest, now: float | None = None) -> S3Error:
    with pytest.raises(S3Error) as caught:
        verify(request, now)
    return caught.value


# --- version 4 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/bucket/key", "/bucket/a%20b%2Bc", "/bucket?list-type=2&prefix=a%2Fb", "/bucket/k?etl=md5"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_v4_url_is_accepted_until_it_expires(method: str, path: str) -> None:
    before = int(time.time())
    identity = verify(presigned(method, path, expires=60))
    assert (identity.access_key, identity.scheme, identity.payload) == (ACCESS, "v4-query", "UNSIGNED-PAYLOAD")
    assert identity.expires_at is not None
    assert before + 60 <= identity.expires_at <= before + 65


def test_a_v4_url_expires() -> None:
    error = refused(presigned(expires=60), time.time() + 61)
    assert (error.code, error.message, error.status) == ("AccessDenied", "Request has expired", 403)


def test_a_v4_url_is_not_valid_before_its_time() -> None:
    assert refused(presigned(), time.time() - 3600).code == "AccessDenied"


@pytest.mark.parametrize("expires", [-7, 0, 609901])
def test_a_v4_url_with_an_impossible_lifetime_is_refused(expires: int) -> None:
    assert refused(presigned(expires=expires)).status == 403


def test_a_week_is_allowed() -> None:
    assert verify(presigned(expires=604800)).access_key == ACCESS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=600", "X-Amz-Expires=601"),
        ("prefix=a", "prefix=b"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host%3Brange"),
        ("us-east-1", "us-east-2"),
    ],
)
def test_a_v4_url_changed_anywhere_is_refused(old: str, new: str) -> None:
    request = presigned(path="/bucket?prefix=a")
    assert old in request.query_string
    changed = replace(request, query_string=request.query_string.replace(old, new))
    assert refused(changed).code == "SignatureDoesNotMatch"


def test_a_parameter_added_to_a_v4_url_is_refused() -> None:
    request = presigned()
    assert refused(replace(request, query_string=request.query_string + "&etl=md5")).code == "SignatureDoesNotMatch"
    assert refused(replace(request, raw_path="/bucket/other")).code == "SignatureDoesNotMatch"
    assert refused(replace(request, method="DELETE")).code == "SignatureDoesNotMatch"


def test_a_header_named_twice_as_signed_in_a_v4_url_is_refused() -> None:
    request = presigned()
    again = request.query_string.replace("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host%3Bhost")
    assert refused(replace(request, query_string=again)).code == "AuthorizationQueryParametersError"


def test_an_unsigned_amz_header_beside_a_v4_url_is_refused() -> None:
    assert refused(with_header(presigned("PUT"), "x-amz-acl", "public-read")).code == "AccessDenied"


def test_a_signed_header_of_a_v4_url_must_be_sent_as_signed() -> None:
    request = presigned("PUT", headers={"x-amz-acl": "private"})
    assert verify(request).access_key == ACCESS
    assert refused(with_header(request, "x-amz-acl", "public-read")).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("name", ["Algorithm", "Credential", "Signature", "Date", "SignedHeaders", "Expires"])
def test_a_v4_url_lacking_a_part_is_refused(name: str) -> None:
    request = presigned()
    kept = [piece for piece in request.query_string.split("&") if not piece.startswith(f"X-Amz-{name}=")]
    error = refused(replace(request, query_string="&".join(kept)))
    assert (error.code, error.status) == ("AuthorizationQueryParametersError", 400)


def test_a_part_given_twice_is_refused() -> None:
    request = presigned()
    twice = replace(request, query_string=request.query_string + "&X-Amz-Expires=600")
    assert refused(twice).code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    ("old", "new"), [("AWS4-HMAC-SHA256", "AWS4-ECDSA"), ("Expires=600", "Expires=soon"), ("%2Fs3%2F", "%2Fec2%2F")]
)
def test_a_v4_url_with_a_malformed_part_is_refused(old: str, new: str) -> None:
    request = presigned()
    changed = replace(request, query_string=request.query_string.replace(old, new))
    assert refused(changed).code == "AuthorizationQueryParametersError"


def test_an_unknown_key_in_a_url_is_refused() -> None:
    request = presigned()
    changed = replace(request, query_string=request.query_string.replace(ACCESS, "AKIANOBODY"))
    assert refused(changed).code == "InvalidAccessKeyId"


def test_a_stated_body_hash_counts_beside_a_v4_url() -> None:
    request = with_header(presigned("PUT"), "x-amz-content-sha256", "a" * 64)
    assert verify(request).payload == "a" * 64


# --- version 2 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/bucket/key",
        "/bucket/a%20b%2Bc",
        "/bucket?acl",
        "/bucket?uploads&prefix=a",
        "/bucket/k?uploadId=a%2Fb&partNumber=3",
        "/bucket/k?response-content-type=text%2Fplain&versionId=null",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_a_v2_url_is_accepted(method: str, path: str) -> None:
    identity = verify(presigned_v2(method, path))
    assert (identity.access_key, identity.scheme) == (ACCESS, "v2-query")
    assert identity.expires_at is not None


def test_a_v2_url_made_for_a_virtual_host_is_accepted() -> None:
    request = presigned_v2(path="/key", endpoint="http://bucket.s3.example.test", auth_path="/bucket/key")
    assert verify(request).access_key == ACCESS


def test_headers_that_botocore_moves_into_a_v2_url_are_covered() -> None:
    request = presigned_v2("PUT", headers={"x-amz-acl": "private", "Content-Type": "text/plain"})
    assert verify(request).access_key == ACCESS
    assert verify(with_header(request, "content-type", "text/plain")).access_key == ACCESS
    changed = replace(request, query_string=request.query_string.replace("private", "public-read"))
    assert refused(changed).code == "SignatureDoesNotMatch"
    assert refused(with_header(request, "x-amz-meta-a", "b")).code == "SignatureDoesNotMatch"


def test_a_v2_url_expires() -> None:
    assert refused(presigned_v2(expires=60), time.time() + 61).message == "Request has expired"


@pytest.mark.parametrize("change", [{"method": "DELETE"}, {"raw_path": "/bucket/other"}, {"raw_path": "/other/key"}])
def test_a_changed_v2_url_is_refused(change: dict[str, str]) -> None:
    assert refused(replace(presigned_v2(), **change)).code == "SignatureDoesNotMatch"


def test_v2_covers_expiry_and_subresources() -> None:
    request = presigned_v2()
    for added in ("&acl", "&versionId=1", "&response-content-type=text%2Fhtml", "&partNumber=1"):
        assert refused(replace(request, query_string=request.query_string + added)).code == "SignatureDoesNotMatch"
    expires = request.query.get("Expires")
    assert expires is not None
    later = replace(request, query_string=request.query_string.replace(expires, str(int(expires) + 1)))
    assert refused(later).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "added", ["etl=md5", "etl_name=md5", "etl_args=1", "etl_pipeline=a", "thumb.width=3", "attributes", "renameObject"]
)
def test_v2_is_refused_where_it_would_leave_the_meaning_unsigned(added: str) -> None:
    signed_with_it = presigned_v2(path=f"/bucket/key?{added}")
    error = refused(signed_with_it)
    assert error.code == "AccessDenied"
    assert "Signature Version 4" in error.message


def test_v2_is_refused_under_an_endpoint_prefix_with_the_remedy() -> None:
    error = refused(presigned_v2(path="/-/via/md5/bucket/key"))
    assert error.code == "AccessDenied"
    assert "signature_version='s3v4'" in error.message


@pytest.mark.parametrize("missing", ["Signature", "Expires"])
def test_a_v2_url_lacking_a_part_is_refused(missing: str) -> None:
    request = presigned_v2()
    kept = [piece for piece in request.query_string.split("&") if not piece.startswith(missing)]
    assert refused(replace(request, query_string="&".join(kept))).code == "AccessDenied"


def test_v2_form_errors() -> None:
    request = presigned_v2()
    expires = request.query.get("Expires") or ""
    assert refused(replace(request, query_string=request.query_string.replace(expires, "soon"))).code == "AccessDenied"
    unknown = replace(request, query_string=request.query_string.replace(ACCESS, "AKIANOBODY"))
    assert refused(unknown).code == "InvalidAccessKeyId"
    forged = replace(request, query_string=request.query_string.replace("Signature=", "Signature=%C3%A9"))
    assert refused(forged).code == "SignatureDoesNotMatch"


def test_a_v4_url_may_sign_a_streaming_body() -> None:
    streaming = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    request = with_header(presigned("PUT"), "x-amz-content-sha256", streaming)
    identity = verify(request)
    assert identity.payload == streaming
    assert identity.chunk is not None
    assert identity.chunk.seed == request.query.get("X-Amz-Signature")


@pytest.mark.parametrize(("old", "new"), [("X-Amz-Date=2", "X-Amz-Date=x2"), ("X-Amz-Date=20", "X-Amz-Date=19")])
def test_a_v4_url_with_a_date_that_does_not_fit_is_refused(old: str, new: str) -> None:
    request = presigned()
    changed = replace(request, query_string=request.query_string.replace(old, new))
    assert refused(changed).code == "AuthorizationQueryParametersError"
