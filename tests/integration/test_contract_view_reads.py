"""The contract: what reads of views may run and for whom, which object a renamed key is, and what listings say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import MAX_OUTPUT, OTHER_OWNER, WAIT_S
from tests.running import RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminClient

ATTRIBUTES = {"x-amz-object-attributes": "ETag,ObjectSize"}


@pytest.fixture
def stranger(tight_server: RunningServer) -> Wire:
    """A key of somebody else's, with a bucket "strangers-own"."""
    wire = Wire(tight_server, *OTHER_OWNER)
    wire.put("/strangers-own")
    return wire


def listed(answer: Raw) -> list[tuple[str, str, str]]:
    """Key, ETag and size of each entry of a listing."""
    entries = answer.body.decode().split("<Contents>")[1:]
    parts = [Raw(200, {}, entry.encode(), ended=True) for entry in entries]
    return [(part.element("Key"), part.element("ETag").replace("&quot;", '"'), part.element("Size")) for part in parts]


def counting(tight_admin: AdminClient, name: Callable[[str], str], log: Path) -> str:
    """An ETL that notes its runs."""
    etl = name("counting")
    tight_admin.init_etl(etl, "count", args={"log": str(log)})
    return etl


# --- access -------------------------------------------------------------------------------------


def test_nothing_runs_for_who_may_not_read_the_source(
    tight: Wire, stranger: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    view = f"{tight_bucket}--etl--{counting(tight_admin, name, log)}"
    key = at(view, "k")
    tight.put(at(tight_bucket, "k"), b"private")
    upload = stranger("POST", "/strangers-own/parts?uploads").element("UploadId")
    for path, headers in (
        (key, {}),
        (key + "?attributes", ATTRIBUTES),
        (key + "?tagging", {}),
        (key + "?acl", {}),
    ):
        for refused in (stranger.get(path, headers), tight.get(path, headers, signed=False)):
            assert (refused.status, refused.code) == (403, "AccessDenied")
    for path in ("/strangers-own/copy", f"/strangers-own/parts?partNumber=1&uploadId={upload}"):
        refused = stranger("PUT", path, {"x-amz-copy-source": key})
        assert (refused.status, refused.code) == (403, "AccessDenied")
    assert stranger.head(key).status == 403
    failing = tight.get(at(f"{tight_bucket}--etl--fail", "k") + "?attributes", ATTRIBUTES, signed=False)
    assert failing.code == "AccessDenied"
    assert log.read_text() == ""


def test_tags_and_acl_of_a_view_run_nothing(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    key = at(f"{tight_bucket}--etl--{counting(tight_admin, name, log)}", "k")
    tight.put(at(tight_bucket, "k"), b"x", {"x-amz-tagging": "colour=blue"})
    assert b"blue" in tight.get(key + "?tagging").body
    assert b"FULL_CONTROL" in tight.get(key + "?acl").body
    assert log.read_text() == ""
    assert tight.get(at(f"{tight_bucket}--etl--reject", "k") + "?tagging").status == 200


def test_a_listing_makes_nothing_of_what_the_lister_may_not_read(
    tight: Wire, stranger: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    view = name("listed-by-all")
    tight_admin.create_view(view, tight_bucket, "count>>grow", args=[{"log": str(log)}, 2000], sizes="materialise")
    tight.put(at(tight_bucket, "private"), b"12345")
    tight.put(at(tight_bucket, "public"), b"12345", {"x-amz-acl": "public-read"})
    tight("PUT", f"/{tight_bucket}?acl", {"x-amz-acl": "public-read"})
    for wire, signed in ((stranger, True), (tight, False)):
        answer = wire.get(f"/{view}?list-type=2", signed=signed)
        assert [(key, size) for key, _, size in listed(answer)] == [("private", "5"), ("public", "2000")]
        assert answer.headers["x-transom-sizes"] == "source"
    assert log.read_text().split() == ["run", f"{tight_bucket}/public"]
    answer = tight.get(f"/{view}?list-type=2")
    assert [size for _, _, size in listed(answer)] == ["2000", "2000"]
    assert "x-transom-sizes" not in answer.headers
    tight_admin.remove_view(view)


def test_a_version_and_anonymous_overrides_are_judged_as_on_a_plain_read(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x", {"x-amz-acl": "public-read"})
    for held, query in ((bucket, {"etl": "upper"}), (f"{bucket}--etl--upper", {}), (bucket, {})):

        def asked(held: str = held, query: dict[str, str] = query, **more: str) -> str:
            return at(held, "k", **query, **more)

        for method in ("GET", "HEAD"):
            same, plain = wire(method, asked(versionId="null")), wire(method, asked())
            assert (same.status, same.etag, same.body) == (200, plain.etag, plain.body)
        for version, status, code in (("bogus", 400, "InvalidArgument"), ("x" * 32, 404, "NoSuchVersion")):
            refused = wire.get(asked(versionId=version))
            assert (refused.status, refused.code) == (status, code)
        override = asked(**{"response-content-type": "text/html"})
        assert wire.get(override).headers["content-type"] == "text/html"
        refused = wire.get(override, signed=False)
        assert (refused.status, refused.code) == (400, "InvalidRequest")


# --- renamed keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_a_renamed_listing_has_the_etags_that_reads_give_in_order(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], page_size: int
) -> None:
    view = name("both")
    admin.create_view(view, bucket, "append", ext={"jpg": "webp", "png": "gif"})
    # two are hidden behind a renamed one; the others are listed out of the order they are stored in
    for key in ("cat.jpg", "cat.webp", "cat.kind.txt", "dog.webp", "fox.gif", "fox.png", "fox.hen.jpg", "fox.jpg"):
        wire.put(at(bucket, key), key.encode())
    wanted = ["cat.kind.txt", "cat.webp", "dog.webp", "fox.gif", "fox.hen.webp", "fox.webp"]
    for first, following, place in (
        ("list-type=2", "continuation-token", "NextContinuationToken"),
        ("list-type=2", "start-after", ""),
        ("list-type=1", "marker", ""),
    ):
        seen: list[tuple[str, str, str]] = []
        target = f"/{view}?{first}&max-keys={page_size}"
        answer = wire.get(target)
        while True:
            seen += listed(answer)
            if answer.element("IsTruncated") == "false":
                break
            answer = wire.get(f"{target}&{following}={answer.element(place) if place else seen[-1][0]}")
        assert [key for key, _, _ in seen] == wanted
        for key, etag, size in seen:
            head = wire.head(at(view, key))
            assert (head.etag, head.headers["content-length"]) == (etag, size)
    assert wire.get(at(view, "cat.webp")).body == b"cat.jpg!"
    assert wire.get(at(view, "fox.gif")).body == b"fox.png!"
    assert [key for key, _, _ in listed(wire.get(f"/{view}?list-type=2&prefix=fox.we"))] == ["fox.webp"]
    admin.remove_view(view)


# --- what the gateway reads for itself ----------------------------------------------------------


def test_a_copy_and_the_attributes_say_what_a_read_says(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str]
) -> None:
    tight.put(at(tight_bucket, "k"), b"x")
    views = {}
    for plugin, args, status, code in (
        ("grow", MAX_OUTPUT + 1, 507, "EtlOutputTooLarge"),
        ("reject", "it's no picture: \u65e5\u672c", 422, "EtlInputRejected"),
        ("reject", "caf\u00e9", 422, "EtlInputRejected"),
        ("reject", "long " * 8000, 422, "EtlInputRejected"),
        ("fail", None, 500, "EtlFailed"),
        ("skip", None, 404, "NoSuchKey"),
    ):
        view = name("failing")
        tight_admin.create_view(view, tight_bucket, plugin, args=args)
        views[view] = (status, code)
    late = name("late")
    tight_admin.init_etl(late, "slow_start", args={"seconds": 3}, timeout_s=0.3)
    views[f"{tight_bucket}--etl--{late}"] = (504, "EtlTimeout")
    for view, wanted in views.items():
        key = at(view, "k")
        told = tight.get(key, {"Range": "bytes=0-0"})  # a whole one may fail after its headers
        copied = tight("PUT", at(tight_bucket, "copy"), {"x-amz-copy-source": key})
        attributes = tight.get(key + "?attributes", ATTRIBUTES)
        for answer in (told, copied, attributes):
            assert (answer.status, answer.code) == wanted
            assert answer.message[:500] == told.message[:500]
    assert tight.head(at(tight_bucket, "copy")).status == 404


# --- sizes --------------------------------------------------------------------------------------


def test_a_page_ends_before_what_takes_long_and_the_next_goes_on(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("slow")
    # each is made within the budget, but eight at once they take longer than a page may
    tight_admin.create_view(view, tight_bucket, "slow_start>>append", args=[0.75 * WAIT_S, None], sizes="materialise")
    for number in range(24):
        tight.put(at(tight_bucket, f"k{number:02}"), b"1234")
    first = tight.get(f"/{view}?list-type=2")
    assert b"<IsTruncated>true</IsTruncated>" in first.body
    assert 0 < len(listed(first)) < 24
    pages = tight.server.client().get_paginator("list_objects_v2").paginate(Bucket=view)
    found = [(entry["Key"], entry["Size"]) for page in pages for entry in page.get("Contents", [])]
    assert found == [(f"k{number:02}", 5) for number in range(24)]
    tight_admin.remove_view(view)


def test_a_listing_whose_first_size_takes_too_long_is_slow_down_and_a_retry_goes_on(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("slowest")
    tight_admin.create_view(view, tight_bucket, "slow_start>>append", args=[1.5 * WAIT_S, None])
    tight.put(at(tight_bucket, "k"), b"1234")
    refused = tight.get(f"/{view}?list-type=2")
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "SlowDown", "1")

    def whole() -> Raw | None:
        answer = tight.get(f"/{view}?list-type=2")
        return answer if answer.status == 200 else None

    assert [size for _, _, size in listed(eventually(whole))] == ["5"]
    tight_admin.remove_view(view)


def test_a_listing_waits_for_an_etl_that_is_busy(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl, view = name("few"), name("busy")
    tight_admin.init_etl(etl, "slow_start", args={"seconds": 0.05}, concurrency=1)  # and one in the queue
    tight_admin.create_view(view, tight_bucket, f"{etl}>>append", sizes="materialise")
    for number in range(8):
        tight.put(at(tight_bucket, f"k{number}"), b"1234")
    answer = tight.get(f"/{view}?list-type=2")
    assert [size for _, _, size in listed(answer)] == ["5"] * 8
    tight_admin.remove_view(view)
