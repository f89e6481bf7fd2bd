from __future__ import annotations

import time
import timeit
from dataclasses import replace

import pytest
from s3_signing import ACCESS, ENDPOINT, SECRET, signed, verify, with_header

from transom.s3compat.addressing import split
from transom.s3compat.auth import ANONYMOUS, authenticate
from transom.s3compat.errors import S3Error
from transom.s3compat.request import HttpRequest
from transom.s3compat.sigv4 import signing_key


def refused(request: HttpRequest, now: float | None = None) -> S3Error:
    with pytest.raises(S3Error) as caught:
        verify(request, now)
    return caught.value


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/bucket",
        "/bucket/",
        "/bucket/key",
        "/bucket//double/./..//slash/",
        "/bucket/a%20b%2Bc~d%21%28%29",
        "/bucket/%E2%82%AC%F0%9F%98%80",
        "/bucket?list-type=2&prefix=a%2Fb%20c&max-keys=10",
        "/bucket?delimiter=%2F&prefix=&empty",
        "/bucket?uploads",
        "/bucket/key?etl=resize%3E%3Ewebp&etl_args=%5B1%2Cnull%5D",
        "/-/via/resize%253E%253Ewebp/bucket/key",
        "/-/via/resize~webp/bucket/key",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
def test_what_botocore_signs_is_accepted(method: str, path: str) -> None:
    identity = verify(signed(method, path))
    assert (identity.access_key, identity.scheme) == (ACCESS, "v4-header")


def test_a_body_hash_is_handed_on() -> None:
    request = signed("PUT", body=b"hello")
    assert verify(request).payload == request.headers["x-amz-content-sha256"]
    assert len(verify(request).payload) == 64


def test_any_region_is_accepted() -> None:
    assert verify(signed(region="eu-central-7")).access_key == ACCESS


def test_virtual_host_style_is_verified_with_its_host() -> None:
    request = signed(path="/key", endpoint="http://bucket.s3.example.test:9000")
    assert verify(request).access_key == ACCESS
    assert refused(with_header(request, "host", "other.s3.example.test:9000")).code == "SignatureDoesNotMatch"


def test_header_values_are_trimmed_and_their_spaces_collapsed() -> None:
    assert verify(signed("PUT", headers={"x-amz-meta-a": "  one   two  "})).access_key == ACCESS


def test_a_client_that_sends_less_encoded_than_it_signs_is_accepted() -> None:
    strict = signed(path="/bucket/a%28b%29?prefix=a%2Fb%28")
    assert verify(replace(strict, raw_path="/bucket/a(b)", query_string="prefix=a/b(")).access_key == ACCESS
    assert refused(replace(strict, raw_path="/bucket/a(c)", query_string="prefix=a/b(")).code == "SignatureDoesNotMatch"


def test_plus_in_a_query_counts_as_the_space_it_is_read_as() -> None:
    space = signed(path="/bucket?prefix=a%20b")
    assert verify(replace(space, query_string="prefix=a+b")).access_key == ACCESS
    plus = signed(path="/bucket?prefix=a%2Bb")
    assert refused(replace(plus, query_string="prefix=a+b")).code == "SignatureDoesNotMatch"


def test_bytes_beyond_ascii_in_a_header_are_verified_however_they_were_signed() -> None:
    as_text = signed("PUT", headers={"x-amz-meta-a": "é"})
    assert verify(as_text).access_key == ACCESS  # sent as latin-1, signed as UTF-8
    as_bytes = with_header(as_text, "x-amz-meta-a", "é".encode().decode("latin-1"))
    assert verify(as_bytes).access_key == ACCESS  # sent and signed as UTF-8
    assert refused(with_header(as_text, "x-amz-meta-a", "è")).code == "SignatureDoesNotMatch"


# --- tampering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE"},
        {"raw_path": "/bucket/kex"},
        {"raw_path": "/bucket//key"},
        {"query_string": "etl=evil"},
        {"query_string": "prefix=b"},
    ],
)
def test_a_changed_request_line_is_refused(change: dict[str, str]) -> None:
    assert refused(replace(signed("PUT", "/bucket/key?prefix=a"), **change)).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("name", ["host", "x-amz-meta-a", "x-amz-acl"])
def test_a_changed_signed_header_is_refused(name: str) -> None:
    request = signed("PUT", headers={"x-amz-meta-a": "1", "x-amz-acl": "private"})
    assert refused(with_header(request, name, "other")).code == "SignatureDoesNotMatch"


def test_a_changed_payload_hash_is_refused() -> None:
    request = signed("PUT", body=b"data")
    assert refused(with_header(request, "x-amz-content-sha256", "0" * 64)).code == "SignatureDoesNotMatch"
    assert refused(with_header(request, "x-amz-content-sha256", "UNSIGNED-PAYLOAD")).code == "SignatureDoesNotMatch"


def test_a_dropped_signed_header_is_refused() -> None:
    request = signed("PUT", headers={"x-amz-meta-a": "1"})
    assert refused(with_header(request, "x-amz-meta-a", None)).code == "SignatureDoesNotMatch"


def test_an_added_amz_header_is_refused_since_it_is_not_signed() -> None:
    error = refused(with_header(signed("PUT"), "x-amz-acl", "public-read"))
    assert (error.code, error.fields["HeadersNotSigned"]) == ("AccessDenied", "x-amz-acl")


def test_other_unsigned_headers_are_free_to_change() -> None:
    assert verify(with_header(signed(), "range", "bytes=0-1")).access_key == ACCESS


def test_a_host_left_out_of_the_signature_is_refused() -> None:
    request = signed()
    authorization = request.headers["authorization"].replace("host;", "")
    assert refused(with_header(request, "authorization", authorization)).code == "AccessDenied"


@pytest.mark.parametrize("flip", [0, 31, 63])
def test_a_changed_signature_is_refused(flip: int) -> None:
    request = signed()
    head, _, signature = request.headers["authorization"].rpartition("=")
    digit = "0" if signature[flip] != "0" else "1"
    forged = f"{head}={signature[:flip]}{digit}{signature[flip + 1 :]}"
    error = refused(with_header(request, "authorization", forged))
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
    assert "CanonicalRequest" in error.fields


def test_the_wrong_secret_is_refused() -> None:
    request = signed()
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        authenticate(request, {ACCESS: SECRET + "x"}.get, time.time(), address=split("/bucket/key", "", ()))


def test_an_unknown_key_is_refused() -> None:
    request = signed()
    authorization = request.headers["authorization"].replace(ACCESS, "AKIANOBODY")
    error = refused(with_header(request, "authorization", authorization))
    assert (error.code, error.status) == ("InvalidAccessKeyId", 403)


# --- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-14 * 60, 14 * 60])
def test_clocks_may_differ_by_a_quarter_of_an_hour(skew: int) -> None:
    assert verify(signed(), time.time() + skew).access_key == ACCESS


@pytest.mark.parametrize("skew", [-16 * 60, 16 * 60, -(10**7), 10**7])
def test_clocks_may_not_differ_by_more(skew: int) -> None:
    error = refused(signed(), time.time() + skew)
    assert (error.code, error.status) == ("RequestTimeTooSkewed", 403)


def test_a_changed_date_is_refused() -> None:
    request = signed()
    stamp = request.headers["x-amz-date"]
    later = stamp[:-2] + ("0" if stamp[-2] != "0" else "1") + "Z"
    assert refused(with_header(request, "x-amz-date", later)).code in ("SignatureDoesNotMatch", "RequestTimeTooSkewed")


@pytest.mark.parametrize("date", ["Bad Date", "", "20130524", "Tue, 07 Jul 1950 21:53:04 GMT"])
def test_an_unreadable_date_is_refused(date: str) -> None:
    error = refused(with_header(signed(), "x-amz-date", date))
    assert (error.code, error.status) == ("AccessDenied", 403)


def test_a_date_header_serves_in_place_of_amz_date() -> None:
    request = signed(headers={"Date": "now"})  # botocore then signs and sends Date, not X-Amz-Date
    assert "x-amz-date" not in request.headers
    assert verify(request).access_key == ACCESS


def test_the_scope_must_be_of_the_date() -> None:
    request = signed()
    date = request.headers["x-amz-date"][:8]
    authorization = request.headers["authorization"].replace(f"/{date}/", "/20010101/")
    assert refused(with_header(request, "authorization", authorization)).code == "AuthorizationHeaderMalformed"


# --- form ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "code", "status"),
    [
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed", 400),
        ("AWS4-HMAC-SHA256 Credential=x", "AuthorizationHeaderMalformed", 400),
        ("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=0", "AuthorizationHeaderMalformed", 400),
        (
            f"AWS4-HMAC-SHA256 Credential={ACCESS}/2024/r/s3/aws4_request, SignedHeaders=host, Signature=0",
            "AuthorizationHeaderMalformed",
            400,
        ),
        (
            f"AWS4-HMAC-SHA256 Credential={ACCESS}/20240101/r/ec2/aws4_request, SignedHeaders=host, Signature=0",
            "AuthorizationHeaderMalformed",
            400,
        ),
        ("AWS AKIA:c2lnbmF0dXJl", "InvalidRequest", 400),
        ("Bearer token", "InvalidArgument", 400),
    ],
)
def test_malformed_authorization_is_told_from_a_wrong_one(authorization: str, code: str, status: int) -> None:
    error = refused(with_header(signed(), "authorization", authorization))
    assert (error.code, error.status) == (code, status)


def test_a_header_named_twice_as_signed_is_refused() -> None:
    """Each mention would put the header's whole value into the canonical form."""
    request = signed()
    again = request.headers["authorization"].replace("SignedHeaders=host;", "SignedHeaders=" + "host;" * 3)
    assert refused(with_header(request, "authorization", again)).code == "AuthorizationHeaderMalformed"


def test_no_part_of_an_overlong_credential_is_remembered() -> None:
    signing_key.cache_clear()
    request = signed(region="x" * 600)
    assert refused(request).code == "AuthorizationHeaderMalformed"
    assert signing_key.cache_info().currsize == 0


def test_a_signature_beyond_ascii_is_refused() -> None:
    request = signed()
    authorization = request.headers["authorization"][:-1] + "é"
    assert refused(with_header(request, "authorization", authorization)).code == "SignatureDoesNotMatch"


def test_without_spaces_after_the_commas_it_is_still_read() -> None:
    request = signed()
    authorization = request.headers["authorization"].replace(", ", ",")
    assert verify(with_header(request, "authorization", authorization)).access_key == ACCESS


def test_the_payload_hash_must_be_stated_and_well_formed() -> None:
    assert refused(with_header(signed(), "x-amz-content-sha256", None)).code == "InvalidRequest"
    assert refused(with_header(signed(), "x-amz-content-sha256", "abc")).code == "InvalidArgument"
    ecdsa = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
    assert refused(with_header(signed(), "x-amz-content-sha256", ecdsa)).code == "NotImplemented"


def test_a_session_token_is_refused() -> None:
    assert refused(signed(headers={"x-amz-security-token": "abc"})).code == "InvalidToken"


@pytest.mark.parametrize("authorization", [None, ""])
def test_no_credentials_is_anonymous(authorization: str | None) -> None:
    request = with_header(HttpRequest("GET", "/bucket/key", "", {"host": "h"}), "authorization", authorization)
    assert verify(request) == ANONYMOUS


def test_two_signatures_at_once_are_refused() -> None:
    request = signed(path=f"/bucket/key?X-Amz-Credential={ACCESS}")
    assert refused(request).code == "InvalidArgument"


def test_verifying_a_header_signed_get_is_fast() -> None:
    request = signed(headers={"x-amz-checksum-mode": "ENABLED", "amz-sdk-invocation-id": "x"})
    address, now = split(request.raw_path, ENDPOINT, ()), time.time()
    runs = timeit.repeat(
        lambda: authenticate(request, {ACCESS: SECRET}.get, now, address=address), number=200, repeat=20
    )
    assert min(runs) / 200 < 100e-6  # measured 19 us; the bound leaves room for a slow machine
