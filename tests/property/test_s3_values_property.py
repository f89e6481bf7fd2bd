"""The algebra of s3compat's values: ranges, conditions, addresses, ETags, checksums, tokens."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from transom.s3compat import etags, tokens
from transom.s3compat.addressing import Address, split
from transom.s3compat.checksums import Checksum, full_object
from transom.s3compat.conditions import Conditions
from transom.s3compat.dates import http_date, parse_http_date
from transom.s3compat.errors import S3Error
from transom.s3compat.query import Query
from transom.s3compat.ranges import ByteRange, content_range, parse_range

# What UTF-8 can encode: everything but surrogates.
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
offsets = st.integers(0, 60)
sizes = st.integers(0, 50)

# --- ranges -------------------------------------------------------------------------------------


@given(st.one_of(st.none(), offsets), st.one_of(st.none(), offsets), sizes)
def test_a_range_picks_the_bytes_that_http_says(first: int | None, last: int | None, size: int) -> None:
    data = bytes(range(size))
    wanted = parse_range(f"bytes={'' if first is None else first}-{'' if last is None else last}")
    backwards = first is not None and last is not None and first > last
    if backwards or (first is None and last is None):
        assert wanted is None
        return
    assert wanted == ByteRange(first, last)
    if first is None:
        expected = data[-last:] if last else b""
    else:
        expected = data[first:] if last is None else data[first : last + 1]
    try:
        start, stop = wanted.resolve(size)
    except S3Error as error:
        assert (error.code, expected) == ("InvalidRange", b"")
        assert error.fields["ActualObjectSize"] == str(size)
    else:
        assert expected
        assert data[start:stop] == expected
        assert content_range(start, stop, size) == f"bytes {start}-{stop - 1}/{size}"


@given(st.text(max_size=30))
def test_no_range_header_does_harm(header: str) -> None:
    wanted = parse_range(header)
    assert wanted is None or parse_range(str(wanted)) == wanted


# --- conditions ---------------------------------------------------------------------------------

etag = st.sampled_from(["a", "b", "c"])
date = st.one_of(st.none(), st.integers(0, 4))


def listed(values: list[str] | None) -> str | None:
    return None if values is None else ", ".join(f'"{value}"' for value in values)


@given(
    st.one_of(st.none(), st.lists(etag, min_size=1)),
    st.one_of(st.none(), st.lists(etag, min_size=1)),
    date,
    date,
    etag,
    st.integers(0, 4),
)
def test_conditions_follow_the_order_of_rfc_9110(
    match: list[str] | None, none_match: list[str] | None, since: int | None, unmodified: int | None, tag: str, at: int
) -> None:
    base = 784111777
    sent = {
        "if-match": listed(match),
        "if-none-match": listed(none_match),
        "if-modified-since": None if since is None else http_date(base + since),
        "if-unmodified-since": None if unmodified is None else http_date(base + unmodified),
    }
    headers = {name: str(value) for name, value in sent.items() if value is not None}
    # Section 13.2.2, step by step.
    verdict = "ok"
    changed = match is None and unmodified is not None and at > unmodified
    if changed or (match is not None and tag not in match):
        verdict = "failed"
    elif none_match is not None:
        verdict = "not-modified" if tag in none_match else "ok"
    elif since is not None and at <= since:
        verdict = "not-modified"
    assert Conditions.parse(headers).check(tag, base + at + 0.5) == verdict


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='",*'), min_size=1)))
def test_etag_lists_come_back(values: list[str]) -> None:
    assert etags.parse_list(", ".join(map(etags.quote, values))) == tuple(values)


@given(st.text(max_size=40))
def test_no_etag_list_does_harm(header: str) -> None:
    assert all(isinstance(value, str) for value in etags.parse_list(header))


@given(st.integers(0, 4_000_000_000))
def test_http_dates_come_back(seconds: int) -> None:
    assert parse_http_date(http_date(seconds)) == seconds


# --- addresses and queries ----------------------------------------------------------------------

bucket = st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)
stages = st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=4)


@given(bucket, text, st.sampled_from(["", "/", "/~", "/+!'()*"]))
def test_a_key_comes_back_from_its_path_however_much_was_encoded(name: str, key: str, safe: str) -> None:
    encoded = quote(key, safe=safe)
    assert split(f"/{name}/{encoded}", "127.0.0.1:9000", ("s3.test",)) == Address(name, key)
    assert split(f"/{encoded}", f"{name}.s3.test:9000", ("s3.test",)) == (
        Address(name, key) if not key.startswith("-/via/") else split(f"/{encoded}", f"{name}.s3.test", ("s3.test",))
    )


@given(bucket, text, stages, st.integers(0, 2))
def test_a_prefix_means_the_same_in_every_spelling(name: str, key: str, names: list[str], levels: int) -> None:
    spelling = ">>".join(names)
    for _ in range(levels):
        spelling = quote(spelling, safe="")
    expected = Address(name, key, ">>".join(names))
    assert split(f"/-/via/{spelling}/{name}/{quote(key)}", "h", ()) == expected
    assert split(f"/-/via/{'~'.join(names)}/{name}/{quote(key)}", "h", ()) == expected


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_path_does_harm(path: str) -> None:
    try:
        address = split("/" + path, "h", ())
    except S3Error as error:
        assert error.code in ("InvalidURI", "InvalidArgument")
    else:
        address.key.encode()  # always valid UTF-8


@given(st.lists(st.tuples(text, text)))
def test_query_pairs_come_back(pairs: list[tuple[str, str]]) -> None:
    sent = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    assert Query(sent).pairs == pairs


@given(text)
def test_tokens_come_back(after: str) -> None:
    assert tokens.decode(tokens.encode(after)) == after


# --- checksums ----------------------------------------------------------------------------------


@given(st.sampled_from(["CRC32", "CRC32C", "CRC64NVME"]), st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_a_whole_objects_crc_is_that_of_its_parts_combined(name: str, parts: list[bytes]) -> None:
    whole = Checksum(name)
    listed = []
    for part in parts:
        whole.update(part)
        one = Checksum(name)
        one.update(part)
        listed.append((one.b64(), len(part)))
    assert full_object(name, listed) == whole.b64()
