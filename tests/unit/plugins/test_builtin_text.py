"""text picks the lines and changes the encoding as its arguments say, and rejects what it can't read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin.text import Text
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

POEM = "Röslein\nrot\r\nauf\n\nder Heide\nrot"
NUMBERS = b"".join(b"%d\n" % number for number in range(10))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (None, POEM),
        ("rot", "rot\r\nrot"),
        ("^rot$", "rot\r\nrot"),
        ("R.slein", "Röslein\n"),
        ("^$", "\n"),
        ("nothing", ""),
        ({"grep": "ROT"}, ""),
        ({"grep": "ROT", "ignore_case": True}, "rot\r\nrot"),
        ({"grep": "o|ö", "invert": True}, "auf\n\nder Heide\n"),
        ({"head": 0}, ""),
        ({"head": 2}, "Röslein\nrot\r\n"),
        ({"head": 99}, POEM),
        ({"tail": 0}, ""),
        ({"tail": 2}, "der Heide\nrot"),
        ({"tail": 99}, POEM),
        ({"head": 3, "tail": 1}, "auf\n"),
        ({"every": 2}, "Röslein\nauf\nder Heide\n"),
        ({"grep": "r", "every": 2}, "rot\r\nrot"),
        ({"fraction": 0}, ""),
        ({"fraction": 1}, POEM),
    ],
)
def test_lines_are_picked(run: Run, args: object, expected: str) -> None:
    data = POEM.encode()
    assert run(Text(), data, args) == expected.encode()
    assert run(Text(), [data[at : at + 1] for at in range(len(data))], args) == expected.encode()


def test_only_a_newline_ends_a_line(run: Run) -> None:
    data = "a\x0bb\x0cc\x1cd\x85e\u2028f\rg\nh".encode()
    assert run(Text(), data, {"head": 1}) == data.removesuffix(b"h")


def test_a_sample_is_a_fraction_and_the_same_for_the_same_seed(run: Run) -> None:
    data = b"".join(b"%d\n" % number for number in range(10_000))
    one = run(Text(), data, {"fraction": 0.3, "seed": 1})
    assert 2800 < one.count(b"\n") < 3200
    assert run(Text(), [data[:17], data[17:]], {"fraction": 0.3, "seed": 1}) == one
    other = run(Text(), data, {"fraction": 0.3, "seed": 2})
    assert other != one
    assert set(one.split()) < set(data.split())
    assert set(one.split()) < set(run(Text(), data, {"fraction": 0.5, "seed": 1}).split())


def test_head_stops_reading(run: Run) -> None:
    def lines() -> Any:
        yield NUMBERS
        raise AssertionError("read on")

    context = Context(bucket="b", key="k", etl="text", args=parse_args(Text(), {"head": 3}))
    assert b"".join(Text().transform_stream(lines(), context)) == b"0\n1\n2\n"


@pytest.mark.parametrize(
    ("encoding", "to"),
    [("utf-8", "latin-1"), ("latin-1", "utf-8"), ("utf-16", "utf-8"), ("utf-8", "utf-16"), ("cp1252", "utf-32")],
)
def test_the_encoding_changes(run: Run, encoding: str, to: str) -> None:
    data = POEM.encode(encoding)
    cut = [data[at : at + 1] for at in range(len(data))]
    assert run(Text(), data, {"encoding": encoding, "to": to}) == POEM.encode(to)
    assert run(Text(), cut, {"encoding": encoding, "to": to}) == POEM.encode(to)
    assert run(Text(), cut, {"encoding": encoding, "to": to, "grep": "R"}) == "Röslein\n".encode(to)


def test_a_byte_order_mark_can_be_dropped(run: Run) -> None:
    assert run(Text(), POEM.encode("utf-8-sig"), {"encoding": "utf-8-sig", "to": "utf-8"}) == POEM.encode()


@pytest.mark.parametrize(
    ("data", "args", "message"),
    [
        (b"ok\n\xff", None, "the object is not utf-8: invalid start byte"),
        (b"caf\xc3", None, "the object is not utf-8: unexpected end of data"),
        (b"\xe9", {"encoding": "ascii"}, "the object is not ascii"),
        (b"a\0b", {"encoding": "utf-16-le"}, "the object is not utf-16-le: truncated data"),
        (b"ab", {"encoding": "utf-16"}, "the object is not utf-16: UTF-16 stream does not start with BOM"),
        ("€".encode(), {"to": "latin-1"}, "the text can't be written as latin-1: ordinal not in range"),
    ],
)
def test_bad_bytes_are_rejected(run: Run, data: bytes, args: object, message: str) -> None:
    with pytest.raises(Reject, match=message):
        run(Text(), data, args)


def test_bad_bytes_can_be_replaced_or_dropped(run: Run) -> None:
    assert run(Text(), b"a\xffb", {"errors": "replace"}) == "a\ufffdb".encode()
    assert run(Text(), b"a\xffb", {"errors": "ignore"}) == b"ab"
    assert run(Text(), "a€".encode(), {"to": "ascii", "errors": "replace"}) == b"a?"


def test_a_line_past_the_bound_is_rejected(run: Run) -> None:
    assert run(Text(), b"12345\n12345", {"head": 9, "max_line": 5}) == b"12345\n12345"
    for data in (b"123456\n1", b"1\n123456", b"1\n123456\n"):
        with pytest.raises(Reject, match="a line is longer than 5 characters"):
            run(Text(), [data[at : at + 1] for at in range(len(data))], {"head": 9, "max_line": 5})


def test_an_endless_line_is_rejected_before_it_is_read(run: Run) -> None:
    def endless() -> Any:
        while True:
            yield b"x" * 65536

    context = Context(bucket="b", key="k", etl="text", args=parse_args(Text(), {"head": 1}))
    with pytest.raises(Reject, match="a line is longer than 1048576 characters"):
        list(Text().transform_stream(endless(), context))


def test_a_long_text_needs_no_lines_when_none_are_picked(run: Run) -> None:
    data = b"x" * 3_000_000
    assert run(Text(), data) == data


@pytest.mark.parametrize("pattern", ["(", "*", "(?=a)", r"(a)\1", "\ud800"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ArgsError, match="argument 'grep'"):
        parse_args(Text(), pattern)


def test_no_pattern_takes_for_ever(run: Run) -> None:
    begin = time.perf_counter()
    assert run(Text(), b"a" * 100_000 + b"!", "^(a+)+$") == b""
    assert time.perf_counter() - begin < 5


def test_the_content_type_has_the_charset() -> None:
    def content_type(given: str, args: object) -> str:
        return Text().content_type(
            Context(bucket="b", key="k", etl="text", content_type=given, args=parse_args(Text(), args))
        )

    assert content_type("text/csv; charset=latin-1", None) == "text/csv; charset=utf-8"
    assert content_type("binary/octet-stream", {"to": "utf-16"}) == "text/plain; charset=utf-16"
    assert content_type("text/html", {"encoding": "utf-8-sig"}) == "text/html; charset=utf-8"
