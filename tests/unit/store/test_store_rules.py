"""Conditions and completions, and the arithmetic of prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.target.errors import EntityTooSmall, InvalidPart, InvalidPartOrder, NoSuchKey, PreconditionFailed
from transom.target.store.base import Part, WriteCondition
from transom.target.store.rules import after_prefix, check_condition, choose_parts, common_prefix, multipart_etag


@pytest.mark.parametrize(
    ("condition", "etag"),
    [
        (None, None),
        (None, "e"),
        (WriteCondition(), "e"),
        (WriteCondition(if_none_match_any=True), None),
        (WriteCondition(if_match="e"), "e"),
        (WriteCondition(if_match="*"), "e"),
    ],
)
def test_conditions_that_hold(condition: WriteCondition | None, etag: str | None) -> None:
    check_condition(condition, etag)


@pytest.mark.parametrize(
    ("condition", "etag", "refusal"),
    [
        (WriteCondition(if_none_match_any=True), "e", PreconditionFailed),
        (WriteCondition(if_match="other"), "e", PreconditionFailed),
        (WriteCondition(if_match="e"), None, NoSuchKey),
        (WriteCondition(if_match="*"), None, NoSuchKey),
    ],
)
def test_conditions_that_do_not(condition: WriteCondition, etag: str | None, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        check_condition(condition, etag)


def part(number: int, size: int = 10) -> Part:
    return Part(number, size, f"{number:032x}")


def test_quoted_etags_name_parts_too() -> None:
    have = {1: part(1), 3: part(3, 1)}
    assert choose_parts([(1, f'"{1:032x}"'), (3, f"{3:032x}")], have, 10) == [have[1], have[3]]


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ([], InvalidPart),
        ([(2, f"{2:032x}")], InvalidPart),
        ([(1, "x")], InvalidPart),
        ([(3, f"{3:032x}"), (1, f"{1:032x}")], InvalidPartOrder),
        ([(1, f"{1:032x}"), (3, f"{3:032x}")], EntityTooSmall),
    ],
)
def test_completions_that_are_refused(wanted: list[tuple[int, str]], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        choose_parts(wanted, {1: part(1), 3: part(3)}, 11)


def test_multipart_etag_is_that_of_s3() -> None:
    # two parts, each the MD5 of no bytes
    empty = "d41d8cd98f00b204e9800998ecf8427e"
    assert multipart_etag([empty, empty]) == "5873dd45edd01f09c1ef2e7819369e8e-2"


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_after_prefix_bounds_exactly_what_starts_with_it(prefix: bytes, key: bytes) -> None:
    end = after_prefix(prefix)
    assert key.startswith(prefix) == (key >= prefix and (end is None or key < end))


def test_common_prefix() -> None:
    assert common_prefix(b"a/b/c", b"", b"/") == b"a/"
    assert common_prefix(b"a/b/c", b"a/", b"/") == b"a/b/"
    assert common_prefix(b"a/b", b"a/", b"/") is None
    assert common_prefix(b"a/b", b"b", b"/") is None
    assert common_prefix(b"a/b", b"", b"") is None
