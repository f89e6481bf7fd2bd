import os
import stat
import string
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from transom.cluster.grants import (
    LIFETIME_S,
    Grant,
    GrantExpired,
    GrantInvalid,
    SecretError,
    expiry,
    load_secret,
    sign,
    verify,
)

NOW = 1_800_000_000.0
SECRET = b"s" * 32
GRANT = Grant(
    method="GET",
    bucket="photos",
    key="a dir//cät+1.jpg/",
    plan='{"pipeline":["resize","webp"]}',
    principal="AKIA/é",
    expires_at=int(NOW) + 50,
    overrides=(("response-content-type", "text/plain; charset=utf-8"), ("response-expires", "a&b=c+d")),
)


def check(url: str, method: str = "GET", secret: bytes = SECRET, now: float = NOW) -> Grant:
    parts = urlsplit(url)
    return verify(method, parts.path, parts.query, secret, now)


def test_a_signed_grant_verifies_to_itself() -> None:
    assert check(sign(GRANT, SECRET, NOW)) == GRANT
    versioned = replace(GRANT, version_id="v/1", overrides=())
    assert check(sign(versioned, SECRET, NOW)) == versioned
    traced = replace(GRANT, request_id="0123456789ABCDEF")
    assert check(sign(traced, SECRET, NOW)) == traced
    with pytest.raises(GrantInvalid):
        check(sign(traced, SECRET, NOW).replace("t-request=0123", "t-request=3210"))


def test_the_key_stands_in_the_path() -> None:
    assert sign(GRANT, SECRET, NOW).startswith("/photos/a%20dir//c%C3%A4t%2B1.jpg/?t-plan=")


def test_another_percent_encoding_of_the_same_key_is_the_same_key() -> None:
    url = sign(replace(GRANT, key="cat.jpg"), SECRET, NOW)
    assert check(url.replace("/cat.jpg", "/%63at%2Ejpg")).key == "cat.jpg"


def test_every_changed_character_is_refused() -> None:
    url = sign(replace(GRANT, key="cat.jpg"), SECRET, NOW)
    for at, char in enumerate(url):
        if char in string.ascii_letters + string.digits:
            other = "0" if char != "0" else "1"
            with pytest.raises((GrantInvalid, GrantExpired)):
                found = check(url[:at] + other + url[at + 1 :])
                assert found == replace(GRANT, key="cat.jpg")  # spare bits at the end of the base64 carry nothing
                raise GrantInvalid


def test_a_grant_is_for_its_method_only() -> None:
    with pytest.raises(GrantInvalid):
        check(sign(GRANT, SECRET, NOW), method="HEAD")
    head = replace(GRANT, method="HEAD")
    assert check(sign(head, SECRET, NOW), method="HEAD") == head
    with pytest.raises(GrantInvalid):
        sign(replace(GRANT, method="PUT"), SECRET, NOW)


def test_another_secret_is_refused() -> None:
    with pytest.raises(GrantInvalid):
        check(sign(GRANT, SECRET, NOW), secret=b"t" * 32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"bucket": "ab", "key": "c"}, {"bucket": "a", "key": "bc"}),
        ({"key": "k", "version_id": "v1"}, {"key": "kv1", "version_id": ""}),
        ({"overrides": (("response-a", "bc"),)}, {"overrides": (("response-ab", "c"),)}),
        ({"overrides": (("response-a", "b"),)}, {"overrides": ()}),
        (
            {"overrides": (("response-a", "1"), ("response-b", "2"))},
            {"overrides": (("response-b", "2"), ("response-a", "1"))},
        ),
        ({"plan": "p", "principal": "q"}, {"plan": "pq", "principal": ""}),
    ],
)
def test_no_two_grants_share_a_signature(one: dict[str, object], other: dict[str, object]) -> None:
    first, second = (sign(replace(GRANT, **fields), SECRET, NOW) for fields in (one, other))  # type: ignore[arg-type]
    assert first.rpartition("t-sig=")[2] != second.rpartition("t-sig=")[2]


def test_an_expired_grant_is_told_apart_from_a_false_one() -> None:
    url = sign(GRANT, SECRET, NOW)
    assert check(url, now=GRANT.expires_at - 0.5) == GRANT
    with pytest.raises(GrantExpired):
        check(url, now=GRANT.expires_at)
    with pytest.raises(GrantInvalid):
        check(url, secret=b"t" * 32, now=GRANT.expires_at)
    with pytest.raises(GrantExpired):
        sign(GRANT, SECRET, GRANT.expires_at + 1)


def test_a_grant_lives_for_a_minute_on_both_sides() -> None:
    long = replace(GRANT, expires_at=int(NOW) + 61)
    with pytest.raises(GrantInvalid):
        sign(long, SECRET, NOW)
    made_early = sign(long, SECRET, NOW + 30)
    with pytest.raises(GrantInvalid):
        check(made_early, now=NOW)
    assert check(made_early, now=NOW + 2) == long


def test_expiry_never_passes_the_source_urls_own() -> None:
    assert expiry(NOW) == int(NOW) + LIFETIME_S
    assert expiry(NOW, NOW + 10.9) == int(NOW) + 10
    assert expiry(NOW, NOW + 1000) == int(NOW) + LIFETIME_S


@pytest.mark.parametrize(
    "change",
    [
        lambda path, query: (path, ""),
        lambda path, query: (path, query + "&etl=upper"),
        lambda path, query: (path, query + "&" + query.split("&")[0]),
        lambda path, query: (path, query + "&response-content-type=text%2Fhtml"),
        lambda path, query: (path, query.replace("t-exp=", "t-exp=%2B")),
        lambda path, query: (path, query.replace("t-plan=", "t-plan=%21")),
        lambda path, query: (path, query + "é"),
        lambda path, query: (path, "x" * 100_000),
        lambda path, query: (path + "%FF", query),
        lambda path, query: (path.rpartition("/")[0], query),
        lambda path, query: (path[1:], query),
        lambda path, query: ("/photos", query),
        lambda path, query: ("", query),
    ],
)
def test_anything_else_in_the_request_line_is_invalid(change) -> None:  # type: ignore[no-untyped-def]
    parts = urlsplit(sign(replace(GRANT, key="dir/cat.jpg"), SECRET, NOW))
    with pytest.raises(GrantInvalid):
        verify("GET", *change(parts.path, parts.query), SECRET, NOW)


def test_only_response_parameters_can_be_overrides() -> None:
    with pytest.raises(GrantInvalid):
        sign(replace(GRANT, overrides=(("t-exp", "9"),)), SECRET, NOW)


def test_a_bucket_with_a_slash_is_not_signed() -> None:
    with pytest.raises(GrantInvalid):
        sign(replace(GRANT, bucket="a/b"), SECRET, NOW)
    url = sign(replace(GRANT, bucket="ab", key="c"), SECRET, NOW)
    with pytest.raises(GrantInvalid):
        check(url.replace("/ab/c", f"/{quote('a/b', safe='')}/c"))


def _secret_of(path: Path, start, results) -> None:  # type: ignore[no-untyped-def]
    start.wait()
    results.put(load_secret(path))


def test_processes_that_race_share_one_secret(tmp_path: Path) -> None:
    context = get_context("spawn")
    start, results = context.Event(), context.SimpleQueue()
    racers = [context.Process(target=_secret_of, args=(tmp_path / "grant.key", start, results)) for _ in range(4)]
    for racer in racers:
        racer.start()
    start.set()
    found = {results.get() for _ in racers}
    for racer in racers:
        racer.join()
    assert len(found) == 1
    assert len(found.pop()) == 32
    assert stat.S_IMODE((tmp_path / "grant.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["grant.key"]  # noqa: PTH208


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grant.key"
    secret = load_secret(path)
    path.chmod(0o640)
    with pytest.raises(SecretError, match="chmod 600"):
        load_secret(path)
    path.chmod(0o400)
    assert load_secret(path) == secret


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grant.key"
    path.touch(0o600)
    path.write_bytes(b"short")
    with pytest.raises(SecretError, match="5 bytes"):
        load_secret(path)
