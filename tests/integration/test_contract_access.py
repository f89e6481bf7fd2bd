"""The contract: who may read what, on a cache hit too, and what crosses between client and transformer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import OTHER_OWNER, SAME_OWNER
from tests.running import RunningServer
from tests.wire import Wire, at
from transom.client.admin import AdminClient, AdminError


@pytest.fixture
def colleague(tight_server: RunningServer) -> Wire:
    """A second key of the bucket's owner, no admin's."""
    return Wire(tight_server, *SAME_OWNER)


@pytest.fixture
def stranger(tight_server: RunningServer) -> Wire:
    """A key of somebody else's."""
    return Wire(tight_server, *OTHER_OWNER)


def test_cache_hit_is_authorised_anew(
    tight: Wire, colleague: Wire, stranger: Wire, tight_bucket: str, log: Path
) -> None:
    tight.put(at(tight_bucket, "k"), b"confidential")
    query = {"etl": "count>>upper", "etl_args": f'["{log}", null]'}
    targets = [
        at(tight_bucket, "k", **query),
        at(f"{tight_bucket}--etl--count", "k"),
        f"/-/via/count/{tight_bucket}/k",
    ]
    for target in targets:
        mine = tight.get(target)
        assert colleague.get(target).body == mine.body
        for refused in (
            stranger.get(target),
            stranger.get(target, {"Range": "bytes=0-0"}),
            tight.get(target, signed=False),
        ):
            assert (refused.status, refused.code) == (403, "AccessDenied")
            assert b"onfidential" not in refused.body.lower() and "etag" not in refused.headers
        assert stranger.head(target).status == 403
        for condition in ({"If-None-Match": mine.etag}, {"If-Match": '"x"'}):
            assert stranger.get(target, condition).status == 403
    for method, target in (
        ("GET", f"/{tight_bucket}--etl--count?list-type=2"),
        ("HEAD", f"/{tight_bucket}--etl--count"),
        ("GET", f"/-/via/count/{tight_bucket}?list-type=2"),
        ("GET", at(f"{tight_bucket}--etl--count", "k") + "?tagging"),
        ("GET", at(f"{tight_bucket}--etl--count", "k") + "?acl"),
    ):
        assert stranger(method, target).status == 403
    assert log.read_text().count("run") == 1


def test_who_may_not_list_learns_not_whether_a_key_is_there(stranger: Wire, tight: Wire, tight_bucket: str) -> None:
    tight.put(at(tight_bucket, "there"), b"x")
    for key in ("there", "not-there"):
        for target in (at(tight_bucket, key, etl="upper"), at(f"{tight_bucket}--etl--upper", key)):
            assert stranger.get(target).code == "AccessDenied"


def test_a_stranger_makes_nothing_run(stranger: Wire, tight: Wire, tight_bucket: str, log: Path) -> None:
    tight.put(at(tight_bucket, "k"), b"x")
    for method in ("GET", "HEAD"):
        assert stranger(method, at(tight_bucket, "k", etl="count", etl_args=f'"{log}"')).status == 403
    assert log.read_text() == ""


def test_permission_taken_away_holds_for_what_is_cached(tight: Wire, stranger: Wire, tight_bucket: str) -> None:
    tight.put(at(tight_bucket, "k"), b"text", {"x-amz-acl": "public-read"})
    target = at(tight_bucket, "k", etl="upper")
    assert stranger.get(target).body == tight.get(target, signed=False).body == b"TEXT"
    tight("PUT", at(tight_bucket, "k") + "?acl", {"x-amz-acl": "private"})
    assert stranger.get(target).status == tight.get(target, signed=False).status == 403
    assert tight.get(target).body == b"TEXT"


def test_a_made_view_grants_nothing(
    tight: Wire,
    colleague: Wire,
    stranger: Wire,
    tight_bucket: str,
    tight_admin: AdminClient,
    name: Callable[[str], str],
) -> None:
    view = name("granting")
    tight_admin.create_view(view, tight_bucket, "upper")
    tight.put(at(tight_bucket, "k"), b"text")
    assert colleague.get(at(view, "k")).body == b"TEXT"
    assert stranger.get(at(view, "k")).code == "AccessDenied"
    assert stranger.get(f"/{view}?list-type=2").code == "AccessDenied"
    assert view not in stranger.get("/").body.decode()
    assert view in colleague.get("/").body.decode()
    own = "strangers-own-" + tight_bucket
    stranger.put(f"/{own}")
    refused = stranger("PUT", at(own, "copy"), {"x-amz-copy-source": f"/{view}/k"})
    assert refused.code == "AccessDenied"
    # its owner's admin key reads no stranger's bucket through an ETL either
    stranger.put(at(own, "k"), b"private")
    assert tight.get(at(own, "k", etl="upper")).code == "AccessDenied"
    tight_admin.remove_view(view)


def test_only_admin_keys_manage(tight_server: RunningServer, tight: Wire) -> None:
    for key in (SAME_OWNER, OTHER_OWNER):
        with AdminClient(tight_server.endpoint, *key) as client:
            calls: list[Callable[[], object]] = [
                client.etls,
                client.views,
                client.plugins,
                client.openapi,
                lambda client=client: client.etl("upper"),
                lambda client=client: client.init_etl("x", "upper"),
                lambda client=client: client.stop_etl("upper"),
                lambda client=client: client.create_view("x-view", "b", "upper"),
                lambda client=client: client.remove_view("x-view"),
            ]
            for call in calls:
                with pytest.raises(AdminError) as refused:
                    call()
                assert (refused.value.status, refused.value.code) == (403, "AccessDenied")
            assert client.health()["status"] == "ok"


def test_no_header_of_the_request_reaches_a_transformer(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x", {"x-amz-meta-shown": "yes", "Content-Type": "text/plain"})
    sent = {"Cookie": "session=secret-cookie", "x-amz-meta-mine": "secret-meta", "x-transom-part-number": "7"}
    answer = wire.get(at(bucket, "k", etl="tell"), sent)
    told = json.loads(answer.body)
    assert told == {
        "bucket": bucket,
        "key": "k",
        "etl": "tell",
        "content_type": "text/plain",
        "size": 1,
        "metadata": {"shown": "yes"},
        "args": {},
    }


def test_only_content_headers_and_metadata_come_out(wire: Wire, bucket: str) -> None:
    allowed = {
        "content-type", "content-length", "content-range", "accept-ranges", "etag", "last-modified", "cache-control",
        "x-amz-meta-note", "x-amz-request-id", "x-transom-target", "date", "server", "connection", "transfer-encoding",
    }  # fmt: skip
    headers = {
        "x-amz-meta-note": "n",
        "Cache-Control": "max-age=1",
        "Content-Encoding": "x-custom",
        "Content-Language": "tlh",
        "x-amz-tagging": "a=b",
    }
    wire.put(at(bucket, "k"), b"x", headers)
    for method in ("GET", "HEAD"):
        for extra in ({}, {"Range": "bytes=0-0"}, {"x-amz-checksum-mode": "DISABLED"}):
            answer = wire(method, at(bucket, "k", etl="upper"), {**extra, "Cookie": "a=b"})
            assert set(answer.headers) <= allowed, set(answer.headers) - allowed
            assert answer.headers["x-amz-meta-note"] == "n"
