"""Whatever botocore signs is accepted, and nothing changed afterwards is."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import quote, urlsplit

from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import assume, given
from hypothesis import strategies as st

from transom.s3compat import canonical
from transom.s3compat.addressing import split
from transom.s3compat.auth import Identity, authenticate
from transom.s3compat.errors import S3Error
from transom.s3compat.request import HttpRequest

ACCESS, SECRET = "AKIA", "secret"
CREDENTIALS = Credentials(ACCESS, SECRET)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=15)
keys = text.map(lambda key: "/bucket/" + quote(key, safe="/~"))
names = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=6).map(lambda name: "p" + name)
parameters = st.dictionaries(names, text, max_size=4)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=15)
headers = st.dictionaries(names.map(lambda name: "x-amz-meta-" + name), header_values, max_size=4)
methods = st.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE"])


def with_query(path: str, values: dict[str, str]) -> str:
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in values.items())
    return f"http://127.0.0.1:9000{path}" + (f"?{query}" if query else "")


def arrived(url: str, method: str, sent: dict[str, str]) -> HttpRequest:
    parts = urlsplit(url)
    lower = {name.lower(): value.strip() for name, value in sent.items()}
    return HttpRequest(method, parts.path, parts.query, {"host": parts.netloc, **lower})


def verify(request: HttpRequest) -> Identity:
    address = split(request.raw_path, request.host, ())
    return authenticate(request, {ACCESS: SECRET}.get, time.time(), address=address)


def signed(method: str, path: str, query: dict[str, str], sent: dict[str, str]) -> HttpRequest:
    request = AWSRequest(method, with_query(path, query), headers=sent)
    S3SigV4Auth(CREDENTIALS, "s3", "us-east-1").add_auth(request)
    return arrived(request.url, method, dict(request.headers.items()))


@given(methods, keys, parameters, headers)
def test_header_signatures(method: str, path: str, query: dict[str, str], sent: dict[str, str]) -> None:
    assert verify(signed(method, path, query, sent)).scheme == "v4-header"


@given(methods, keys, parameters)
def test_v4_urls(method: str, path: str, query: dict[str, str]) -> None:
    request = AWSRequest(method, with_query(path, query))
    S3SigV4QueryAuth(CREDENTIALS, "s3", "us-east-1", expires=60).add_auth(request)
    assert verify(arrived(request.url, method, {})).scheme == "v4-query"


@given(
    methods, keys, st.dictionaries(st.sampled_from(["versionId", "partNumber", "uploadId", "acl"]), text), parameters
)
def test_v2_urls(method: str, path: str, signed_query: dict[str, str], query: dict[str, str]) -> None:
    request = AWSRequest(method, with_query(path, {**query, **signed_query}))
    HmacV1QueryAuth(CREDENTIALS, expires=60).add_auth(request)
    assert verify(arrived(request.url, method, {})).scheme == "v2-query"


@given(methods, keys, parameters, headers, st.data())
def test_a_request_changed_in_any_one_place_is_refused(
    method: str, path: str, query: dict[str, str], sent: dict[str, str], data: st.DataObject
) -> None:
    request = signed(method, path, query, sent)
    places = ["method", "path", "query", "host", *[name for name in request.headers if name.startswith("x-amz-")]]
    place = data.draw(st.sampled_from(places))
    if place == "method":
        changed = replace(request, method=data.draw(methods.filter(lambda other: other != method)))
    elif place == "path":
        changed = replace(request, raw_path=data.draw(keys.filter(lambda other: other != path)))
    elif place == "query":
        other = data.draw(parameters.filter(lambda other: other != query))
        changed = replace(request, query_string=urlsplit(with_query("/", other)).query)
    else:
        value = data.draw(header_values)
        assume(" ".join(value.split()) != " ".join(request.headers[place].split()))
        changed = replace(request, headers={**request.headers, place: value})
    try:
        identity = verify(changed)
    except S3Error as error:
        assert error.status in (400, 403)
    else:
        raise AssertionError(f"accepted: {identity}")


@given(keys, parameters, headers)
def test_the_canonical_form_is_botocores(path: str, query: dict[str, str], sent: dict[str, str]) -> None:
    request = AWSRequest("GET", with_query(path, query), headers=sent)
    auth = S3SigV4Auth(CREDENTIALS, "s3", "us-east-1")
    to_sign = auth.headers_to_sign(request)
    ours = arrived(request.url, "GET", sent)
    assert canonical.query_as_sent(ours.query.items_raw) == auth.canonical_query_string(request)
    assert canonical.query_reencoded(ours.query.items_raw) == auth.canonical_query_string(request)
    assert canonical.path_reencoded(ours.raw_path) == ours.raw_path
    signed_names = auth.signed_headers(to_sign).split(";")
    assert canonical.headers(ours.headers, signed_names) == auth.canonical_headers(to_sign) + "\n"
