"""Addresses, names, ranges, conditions, ETags, dates, checksums, queries: the values that requests are made of."""

from __future__ import annotations

import base64
import hashlib
import time
import zlib
from collections.abc import Callable

import pytest

from transom.s3compat import dates, etags, tokens
from transom.s3compat.addressing import Address, split
from transom.s3compat.checksums import ALGORITHMS, Checksum, composite, full_object, is_wellformed
from transom.s3compat.conditions import Conditions, if_range
from transom.s3compat.errors import S3Error
from transom.s3compat.query import Query
from transom.s3compat.ranges import ByteRange, content_range, parse_copy_range, parse_range, resolve_copy_range

DOMAINS = ("s3.example.test", "localhost")

# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/", "h", Address("", "")),
        ("/b", "h", Address("b", "")),
        ("/b/", "h", Address("b", "")),
        ("/b/k", "h", Address("b", "k")),
        ("/b//k//x/", "h", Address("b", "/k//x/")),
        ("/b/a%20b%2Fc+d", "h", Address("b", "a b/c+d")),
        ("/b/%252F", "h", Address("b", "%2F")),
        ("/b/%E2%82%AC", "h", Address("b", "€")),
        ("/b/../c", "h", Address("b", "../c")),
        ("/k/x", "b.s3.example.test:9000", Address("b", "k/x")),
        ("/", "B.S3.Example.Test", Address("b", "")),
        ("/k", "dotted.name.localhost", Address("dotted.name", "k")),
        ("/b/k", "s3.example.test", Address("b", "k")),
        ("/b/k", "notlocalhost:1", Address("b", "k")),
        ("/b/k", "[::1]:9000", Address("b", "k")),
        ("/-/via/md5/b/k", "h", Address("b", "k", "md5")),
        ("/-/via/a~b/b/k~x", "h", Address("b", "k~x", "a>>b")),
        ("/-/via/a%3E%3Eb/b/k%2541", "h", Address("b", "k%41", "a>>b")),
        ("/-/via/a%253E%253Eb/b/k", "h", Address("b", "k", "a>>b")),
        ("/-/via/a>>b/b/k", "h", Address("b", "k", "a>>b")),
        ("/-/via/md5", "h", Address("", "", "md5")),
        ("/-/via/md5/", "h", Address("", "", "md5")),
        ("/-/via/md5/k", "b.localhost", Address("b", "k", "md5")),
        ("/-/other/k", "h", Address("-", "other/k")),
    ],
)
def test_paths_and_hosts_are_taken_apart(path: str, host: str, expected: Address) -> None:
    assert split(path, host, DOMAINS) == expected


@pytest.mark.parametrize(
    "path", ["", "b/k", "//k", "/b/%", "/b/%2", "/b/%zz", "/b/%FF", "/b/%C3", "/%FF/k", "/-/via/%FF/b/k"]
)
def test_what_is_no_path_is_an_invalid_uri(path: str) -> None:
    with pytest.raises(S3Error) as caught:
        split(path, "h", ())
    assert (caught.value.code, caught.value.status) == ("InvalidURI", 400)


@pytest.mark.parametrize("pipeline", ["", "~", "a~", "~a", "a~~b", "a%3E%3E", "%20"])
def test_an_empty_stage_in_a_prefix_is_refused(pipeline: str) -> None:
    with pytest.raises(S3Error, match="InvalidArgument"):
        split(f"/-/via/{pipeline}/b/k", "h", ())


def test_raw_bytes_in_a_path_are_utf_8() -> None:
    assert split("/b/" + "é".encode().decode("latin-1"), "h", ()) == Address("b", "é")
    with pytest.raises(S3Error, match="InvalidURI"):
        split("/b/\xe9", "h", ())


# --- queries ------------------------------------------------------------------------------------


def test_a_query_keeps_order_first_values_and_raw_pieces() -> None:
    query = Query("a=1&b&a=2&&c=x+y%2B&d=")
    assert query.pairs == [("a", "1"), ("b", ""), ("a", "2"), ("c", "x y+"), ("d", "")]
    assert query.items_raw[3] == ("c", "x+y%2B")
    assert (query.get("a"), query.get("b"), query.get("z"), query.get("z", "0")) == ("1", "", None, "0")
    assert (query.has("b"), query.has("z"), query.all("a"), len(query)) == (True, False, ["1", "2"], 4)
    with pytest.raises(S3Error, match="InvalidURI"):
        Query("a=%FF")


# --- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=2-5", 10, (2, 6)),
        ("bytes=2-", 10, (2, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=5-100", 10, (5, 10)),
        ("Bytes = 1 - 2", 10, (1, 3)),
    ],
)
def test_ranges(header: str, size: int, expected: tuple[int, int]) -> None:
    wanted = parse_range(header)
    assert wanted is not None
    assert wanted.resolve(size) == expected
    assert content_range(*expected, size) == f"bytes {expected[0]}-{expected[1] - 1}/{size}"


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=٣-٤", "0-1"],
)
def test_a_malformed_or_multiple_range_asks_for_the_whole(header: str | None) -> None:
    assert parse_range(header) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-0", 0), ("bytes=-5", 0)]
)
def test_a_range_without_a_byte_in_it_is_unsatisfiable(header: str, size: int) -> None:
    wanted = parse_range(header)
    assert wanted is not None
    with pytest.raises(S3Error) as caught:
        wanted.resolve(size)
    assert (caught.value.code, caught.value.status) == ("InvalidRange", 416)
    assert caught.value.fields == {"ActualObjectSize": str(size), "RangeRequested": header}
    assert caught.value.headers == {"Content-Range": f"bytes */{size}"}


def test_a_copys_range_is_strict() -> None:
    assert parse_copy_range("bytes=0-21") == ByteRange(0, 21)
    assert resolve_copy_range(ByteRange(0, 4), 5) == (0, 5)
    for header in ("0-2", "bytes=0", "bytes=hello-world", "bytes=0-", "bytes=-3", "bytes=0-2,3-5", "bytes=3-2"):
        with pytest.raises(S3Error, match="InvalidArgument"):
            parse_copy_range(header)
    with pytest.raises(S3Error, match="InvalidRange"):
        resolve_copy_range(ByteRange(0, 21), 5)


# --- conditions ---------------------------------------------------------------------------------

MODIFIED = 784111777.9  # Sun, 06 Nov 1994 08:49:37 GMT, and a bit
SAME, EARLIER, LATER = (
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:36 GMT",
    "Sun, 06 Nov 1994 08:49:38 GMT",
)


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, "ok"),
        ({"if-match": '"abc"'}, "ok"),
        ({"if-match": "abc"}, "ok"),
        ({"if-match": "*"}, "ok"),
        ({"if-match": '"x", "abc"'}, "ok"),
        ({"if-match": '"x"'}, "failed"),
        ({"if-match": 'W/"abc"'}, "failed"),
        ({"if-match": ""}, "failed"),
        ({"if-none-match": '"abc"'}, "not-modified"),
        ({"if-none-match": 'W/"abc"'}, "not-modified"),
        ({"if-none-match": "*"}, "not-modified"),
        ({"if-none-match": '"x"'}, "ok"),
        ({"if-modified-since": EARLIER}, "ok"),
        ({"if-modified-since": SAME}, "not-modified"),
        ({"if-modified-since": LATER}, "not-modified"),
        ({"if-unmodified-since": EARLIER}, "failed"),
        ({"if-unmodified-since": SAME}, "ok"),
        ({"if-modified-since": "yesterday"}, "ok"),
        ({"if-match": '"abc"', "if-unmodified-since": EARLIER}, "ok"),
        ({"if-match": '"x"', "if-none-match": '"abc"'}, "failed"),
        ({"if-none-match": '"abc"', "if-modified-since": EARLIER}, "not-modified"),
        ({"if-none-match": '"x"', "if-modified-since": LATER}, "ok"),
        ({"if-unmodified-since": EARLIER, "if-none-match": '"abc"'}, "failed"),
    ],
)
def test_conditions(headers: dict[str, str], verdict: str) -> None:
    conditions = Conditions.parse(headers)
    assert conditions.check("abc", MODIFIED) == verdict
    copied = Conditions.parse_copy({"x-amz-copy-source-" + name: value for name, value in headers.items()})
    assert copied.check_copy("abc", MODIFIED) == ("ok" if verdict == "ok" else "failed")


def test_conditions_are_false_when_there_are_none() -> None:
    assert not Conditions.parse({})
    assert Conditions.parse({"if-match": "*"})


@pytest.mark.parametrize(
    ("value", "keeps"),
    [
        (None, True),
        ('"abc"', True),
        ("abc", True),
        ('"x"', False),
        ('W/"abc"', False),
        (SAME, True),
        (EARLIER, False),
        (LATER, False),
    ],
)
def test_if_range(value: str | None, keeps: bool) -> None:
    assert if_range({} if value is None else {"if-range": value}, "abc", MODIFIED) is keeps


# --- ETags and dates ----------------------------------------------------------------------------


def test_etags() -> None:
    assert (etags.quote("a"), etags.quote('"a"')) == ('"a"', '"a"')
    assert [etags.unquote(text) for text in ('"a"', "a", "&quot;a&quot;", ' "a" ', '"', "")] == [
        "a",
        "a",
        "a",
        "a",
        '"',
        "",
    ]
    assert etags.parse_list('"a,b" , c,W/"d",*') == ("a,b", "c", "W/d", "*")
    assert [etags.parse_list(header) for header in ("", '"a" x', '"a', "a b ,c", 'a"b"')] == [
        (),
        (),
        (),
        ("a b", "c"),
        (),
    ]


@pytest.mark.parametrize("header", ["if-match", "if-none-match", "x-amz-copy-source-if-match"])
def test_a_list_of_etags_is_bounded(header: str) -> None:
    read = Conditions.parse_copy if header.startswith("x-amz-") else Conditions.parse
    assert read({header: "a" * etags.MAX_LIST_CHARACTERS})
    with pytest.raises(S3Error, match="RequestHeaderSectionTooLarge"):
        read({header: "a" * (etags.MAX_LIST_CHARACTERS + 1)})


LONG = 8000
SPACES = " " * LONG


@pytest.mark.parametrize(
    ("read", "header"),
    [
        (etags.parse_list, f'a{SPACES}"'),
        (etags.parse_list, f'"a"{SPACES}"'),
        (etags.parse_list, f'{SPACES}"'),
        (etags.parse_list, '"' * LONG),
        (etags.parse_list, "W/" * (LONG // 2)),
        (parse_range, f"bytes={SPACES * 5}x"),
        (parse_range, f"bytes=1{SPACES * 5}-{SPACES * 5}x"),
        (parse_range, f"bytes={SPACES}-{SPACES}x"),
        (dates.parse_http_date, "Sun," * LONG),
        (dates.parse_http_date, f"Sun, 06 Nov {'9' * LONG} 08:49:37 GMT"),
        (dates.parse_amz_date, "1" * LONG),
    ],
)
def test_no_header_takes_more_than_linear_time(read: Callable[[str], object], header: str) -> None:
    started = time.process_time()
    read(header)
    assert time.process_time() - started < 0.25


def test_dates_of_any_length_are_not_remembered() -> None:
    before = dates._amz_seconds.cache_info().currsize
    assert dates.parse_amz_date("2" * 100_000) is None
    assert dates._amz_seconds.cache_info().currsize == before


def test_dates() -> None:
    assert dates.http_date(784111777) == SAME
    for text in (SAME, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 09:49:37 +0100"):
        assert dates.parse_http_date(text) == 784111777
    assert dates.parse_http_date("nonsense") is None
    assert dates.iso_date(784111777.9876) == "1994-11-06T08:49:37.988Z"
    assert dates.iso_date(784111777) == "1994-11-06T08:49:37.000Z"
    assert dates.parse_iso_date("1994-11-06T08:49:37Z") == dates.parse_iso_date("1994-11-06T08:49:37") == 784111777
    assert dates.parse_iso_date("soon") is None
    assert dates.parse_amz_date("19941106T084937Z") == 784111777
    assert dates.parse_amz_date("19941306T084937Z") is dates.parse_amz_date("x") is None


# --- checksums and tokens -----------------------------------------------------------------------

CHECK = b"123456789"  # the catalogue of parametrised CRCs gives each CRC of this


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CRC32", "cbf43926"),
        ("CRC32C", "e3069283"),
        ("CRC64NVME", "ae8b14860a799888"),
        ("SHA1", hashlib.sha1(CHECK, usedforsecurity=False).hexdigest()),
        ("SHA256", hashlib.sha256(CHECK).hexdigest()),
    ],
)
def test_checksums(name: str, expected: str) -> None:
    checksum = Checksum(name)
    checksum.update(CHECK[:4])
    checksum.update(CHECK[4:])
    assert base64.b64decode(checksum.b64()).hex() == expected
    assert is_wellformed(name, checksum.b64())
    assert not is_wellformed(name, checksum.b64()[:-4])
    assert not is_wellformed(name, "?")


def test_checksums_of_multipart_objects() -> None:
    halves = [CHECK[:4], CHECK[4:]]
    for name in ALGORITHMS:
        parts = [checksum_of(name, half) for half in halves]
        assert composite(name, parts) == checksum_of(name, b"".join(map(base64.b64decode, parts))) + "-2"
        if name.startswith("CRC"):
            assert full_object(name, zip(parts, map(len, halves), strict=True)) == checksum_of(name, CHECK)
    with pytest.raises(S3Error, match="FULL_OBJECT"):
        full_object("SHA256", [])
    assert checksum_of("CRC32", CHECK) == base64.b64encode(zlib.crc32(CHECK).to_bytes(4, "big")).decode()
    with pytest.raises(ValueError, match="ROT13"):
        Checksum("ROT13")


def checksum_of(name: str, data: bytes) -> str:
    checksum = Checksum(name)
    checksum.update(data)
    return checksum.b64()


def test_tokens_come_back() -> None:
    assert tokens.decode(tokens.encode("photos/€ \x00")) == "photos/€ \x00"
