"""The generator's own signatures, against botocore's."""

import datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from transom.bench.sign import Credentials, Endpoint, canonical_query, serialize

KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = 1_700_000_000.0


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, tz)

    @classmethod
    def utcnow(cls):
        return datetime.datetime.fromtimestamp(NOW, datetime.UTC).replace(tzinfo=None)


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.decode().split("\r\n")
    assert lines[-2:] == ["", ""]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}


@pytest.mark.parametrize(
    ("method", "path", "query", "length"),
    [
        ("GET", "/bucket/r/000001", (), None),
        ("GET", "/bucket/r/000001", (("etl", "a>>b"), ("etl_args", '[{"x": 1}, null]')), None),
        ("PUT", "/bucket/a key/ü~.bin", (), 4096),
        ("DELETE", "/bucket", (), None),
    ],
)
def test_signature_is_the_one_botocore_makes(monkeypatch, method, path, query, length):
    endpoint = Endpoint.parse("http://127.0.0.1:9000")
    ours = serialize(endpoint, KEYS, method, path, query=query, length=length, now=NOW)
    target = ours.split(b" ")[1].decode()
    sent = headers_of(ours)

    monkeypatch.setattr("botocore.compat.datetime.datetime", FixedClock, raising=False)
    monkeypatch.setattr("botocore.auth.get_current_datetime", FixedClock.utcnow)
    theirs = AWSRequest(method=method, url=f"http://127.0.0.1:9000{target}")
    theirs.headers["X-Amz-Content-SHA256"] = sent["x-amz-content-sha256"]
    signer = S3SigV4Auth(BotoCredentials(KEYS.access_key, KEYS.secret_key), "s3", "us-east-1")
    monkeypatch.setattr(signer, "payload", lambda request: sent["x-amz-content-sha256"])
    signer.add_auth(theirs)

    assert sent["x-amz-date"] == theirs.headers["X-Amz-Date"]
    assert sent["authorization"] == theirs.headers["Authorization"]


def test_request_without_keys_is_unsigned():
    request = serialize(Endpoint.parse("http://localhost:80"), Credentials(), "GET", "/b/k")
    assert request == b"GET /b/k HTTP/1.1\r\nHost: localhost\r\nUser-Agent: transom-bench\r\n\r\n"


def test_endpoint_prefix_stands_before_the_bucket():
    endpoint = Endpoint.parse("http://h:9000/-/via/echo~md5/")
    assert serialize(endpoint, Credentials(), "GET", "/b/k").startswith(b"GET /-/via/echo~md5/b/k HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:9000", Endpoint("http", "h", 9000)),
        ("https://h", Endpoint("https", "h", 443)),
        ("127.0.0.1:81", Endpoint("http", "127.0.0.1", 81)),
        ("http://[::1]:9000/", Endpoint("http", "::1", 9000)),
    ],
)
def test_endpoint_is_read_from_a_url(url, expected):
    assert Endpoint.parse(url) == expected


@pytest.mark.parametrize("url", ["ftp://h", "http://", "s3://bucket"])
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="endpoint"):
        Endpoint.parse(url)


def test_ipv6_authority_has_brackets():
    assert Endpoint.parse("http://[::1]:9000").authority == "[::1]:9000"


def test_query_is_sorted_and_encoded():
    assert (
        canonical_query((("etl_args", '{"a":1}'), ("etl", "a>>b c"))) == "etl=a%3E%3Eb%20c&etl_args=%7B%22a%22%3A1%7D"
    )


def test_secret_key_does_not_print():
    assert KEYS.secret_key not in repr(KEYS)
