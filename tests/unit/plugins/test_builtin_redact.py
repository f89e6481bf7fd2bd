"""redact finds what it says in a text, leaves the rest as it was, and never lets a piece of a match through."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import pytest

from transom.plugins import Context, Reject
from transom.plugins.args import canonical, parse_args
from transom.plugins.builtin.redact import Redact
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

# Each text with what is found in it between angle brackets; numbers are those that standards give as examples.
FOUND = [
    ("email", "mail <jane.o'neil+x@mail.example.co.uk>, or <ö@müller.de>. not a@b or @c.de"),
    (
        "phone",
        "call <+49 30 1234567>, <+1 (212) 555-0100>, <(212) 555-0100> or <212.555.0100>, not 2024-01-02 12:34:56",
    ),
    ("phone", "+1.234567 is a number, <+33.1.23.45.67.89> is one in France"),
    ("credit_card", "<4111111111111111>, <4111 1111 1111 1111>, <3782-822463-10005>, not 4111111111111112"),
    ("credit_card", "1234 <4111 1111 1111 1111> 1111; card_<5500000000000004>; at 1700000000000 ms"),
    ("iban", "<DE89 3704 0044 0532 0130 00> AND <GB82WEST12345698765432>, <fr1420041010050500013M02606>"),
    ("iban", "DE88370400440532013000 fails its check; XX89370400440532013000 is of no country"),
    ("ssn", "<123-45-6789> <078 05 1120>, not 987-65-4321, 000-12-3456, 123-45-67890 or 1123-45-6789"),
    ("ipv4", "<10.0.0.1>, <192.168.1.255>: not 256.1.1.1, 1.2.3, 10.0.0.1234"),
    ("ipv6", "<2001:db8::1>. [<fe80::1:2>]:443, addr:<2001:db8:0:0:0:0:0:7>, <::ffff:10.0.0.1>"),
    ("ipv6", "at 12:34:56 std::vector a::b ::1 00:11:22:33:44:55"),
    ("secret", "<AKIAIOSFODNN7EXAMPLE> <ghp_abcdefghijklmnopqrstuvwxyz0123456789> <xoxb-123456789012-abc>"),
    ("secret", "password=<hunter22>, 'api_key': '<a b c d>', \"token\": \"<x-y-z>\", Secret: <abcdef>;"),
    ("secret", "Authorization: Bearer <abcdefgh123456>, a bearer of understanding, max_tokens: 4096"),
    ("secret", "jwt <eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_DEF-123>"),
]


@pytest.mark.parametrize(("kind", "marked"), FOUND, ids=[kind for kind, _ in FOUND])
def test_a_kind_is_found(run: Run, kind: str, marked: str) -> None:
    text = marked.replace("<", "").replace(">", "")
    made = run(Redact(), text.encode(), {"patterns": kind, "replacement": "<>"}).decode()
    parts = marked.split("<")
    assert made == parts[0] + "".join("<>" + part.partition(">")[2] for part in parts[1:])


def test_all_kinds_are_looked_for_unasked(run: Run) -> None:
    lines = [marked for _, marked in FOUND if "<" in marked]
    text = "\n".join(lines).replace("<", "").replace(">", "")
    made = run(Redact(), text.encode()).decode()
    for marked in lines:
        for part in marked.split("<")[1:]:
            assert made.count(part.partition(">")[0]) < text.count(part.partition(">")[0])
    assert made.count("\n") == len(lines) - 1


def test_a_text_with_nothing_to_hide_is_left_as_it_is(run: Run) -> None:
    text = "Ein Text\r\nmit Umlauten: äöü\x00\x0b\u2028 und 12345, 2026-11-27T13:07:00Z\n\nohne Ende".encode()
    assert run(Redact(), text) == text


def test_patterns_of_ones_own_are_looked_for_in_each_line(run: Run) -> None:
    text = b"id C-123\r\nC-9 and C-10\nC-\n4"
    assert run(Redact(), text, {"patterns": [], "regex": [r"^C-\d+", "and.*$"]}) == (
        b"id C-123\r\n[REDACTED] [REDACTED]\nC-\n4"
    )
    assert run(Redact(), text, {"patterns": [], "regex": [r"\AC-\d+", r"C-\s+4"], "replacement": ""}) == (
        b"id C-123\r\n and C-10\nC-\n4"
    )


def test_matches_that_overlap_are_replaced_as_one(run: Run) -> None:
    args = {"patterns": ["email"], "regex": ["for jane", "com now", "R"], "replacement": "R"}
    assert run(Redact(), b"mail for jane@example.com now", args) == b"mail R"
    assert run(Redact(), b"a@b.de,c@d.de", {"patterns": "email", "replacement": "R"}) == b"R,R"


def test_a_single_byte_of_a_character_takes_the_whole(run: Run) -> None:
    assert run(Redact(), "aäb".encode(), {"patterns": [], "regex": [r"\C$", r"a\C"], "replacement": "."}) == b".."


def test_a_mask_keeps_the_length_and_what_is_asked_for(run: Run) -> None:
    args = {"patterns": "credit_card,email", "mode": "mask"}
    assert run(Redact(), "4111 1111 1111 1111 ö@ä.de".encode(), args) == b"******************* ******"
    assert run(Redact(), b"4111111111111111", {**args, "mask": "x", "keep_last": 4}) == b"xxxxxxxxxxxx1111"
    assert run(Redact(), b"a@b.de", {**args, "keep_last": 8}) == b"***.de"  # never more than half


def test_a_hash_tells_equal_values_and_needs_a_key(run: Run) -> None:
    args = {"patterns": "email", "mode": "hash", "key": "a secret key"}
    made = run(Redact(), b"a@b.de c@d.de a@b.de", args).split()
    assert made[0] == made[2] != made[1]
    assert made[0] == hmac.new(b"a secret key", b"a@b.de", hashlib.sha256).hexdigest()[:16].encode()
    assert run(Redact(), b"a@b.de", {**args, "key": "another key"}) != made[0]
    assert "a secret key" not in canonical(parse_args(Redact(), args))
    with pytest.raises(ArgsError, match="mode 'hash' needs a key"):
        parse_args(Redact(), {"mode": "hash"})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_another_encoding_is_read_and_written(run: Run, encoding: str) -> None:
    made = run(Redact(), "für jane@example.com\n".encode(encoding), {"encoding": encoding})
    assert made == "für [REDACTED]\n".encode(encoding)


def test_what_is_not_of_the_encoding_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match="the object is not utf-8"):
        run(Redact(), b"jane@example.com \xff")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_nothing_slips_through_where_the_input_is_cut(run: Run, size: int) -> None:
    text = b"".join(b"%d: jane.doe@example.com paid with 4111 1111 1111 1111\n" % number for number in range(3000))
    cut = [text[at : at + size] for at in range(0, min(len(text), 20_000), size)]
    whole = run(Redact(), text[: sum(map(len, cut))])
    assert run(Redact(), cut) == whole
    made = run(Redact(), text)
    assert b"@" not in made
    assert b"4111" not in made
    assert made.count(b"[REDACTED]") == 6000


def test_a_line_past_the_bound_is_rejected_before_it_is_read() -> None:
    def endless() -> Any:
        while True:
            yield b"x" * 65536

    context = Context(bucket="b", key="k", etl="redact", args=parse_args(Redact(), None))
    with pytest.raises(Reject, match="a line is longer than 1048576 characters"):
        list(Redact().transform_stream(endless(), context))


@pytest.mark.parametrize("part", [b"4 ", b"411 ", b"a:", b"DE89", b"a@", b"a@b.", b"+1 ", b"9", b"password=", b"1.2."])
def test_no_text_takes_for_ever(run: Run, part: bytes) -> None:
    text = part * (200_000 // len(part))
    begin = time.perf_counter()
    run(Redact(), text)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("email,postcode", "argument 'patterns.*allowed|argument 'patterns"),
        ({"regex": ["("]}, "argument 'regex'.*not a regular expression"),
        ({"regex": ["x*"]}, "the pattern 'x\\*' is found in an empty text"),
        ({"regex": [""]}, "argument 'regex"),
        ({"mask": "**"}, "argument 'mask'"),
        ({"mode": "hash", "key": "short"}, "argument 'key'"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Redact(), args)
