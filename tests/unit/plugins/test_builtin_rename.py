"""rename passes bytes on and tells the key; keys that no object can have are rejected."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin.rename import Rename
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest


def renamed(key: str, args: object) -> str | None:
    return Rename().output_key(Context(bucket="b", key=key, etl="rename", args=parse_args(Rename(), args)))


def test_bytes_pass_unchanged(run: Run) -> None:
    assert run(Rename(), [b"one", b"", b"two"], {"prefix": "x/"}) == b"onetwo"
    context = Context(
        bucket="b", key="k", etl="rename", content_type="image/png", size=6, args=parse_args(Rename(), None)
    )
    assert (Rename().output_size(context), Rename().content_type(context)) == (6, "image/png")


@pytest.mark.parametrize(
    ("key", "args", "expected"),
    [
        ("a/b.txt", None, "a/b.txt"),
        ("log-2026-01-31.txt", {"pattern": r"^log-(\d+)-(\d+)-(\d+)", "replacement": r"\1/\2/\3"}, "2026/01/31.txt"),
        ("aXbX", {"pattern": "X", "replacement": "-"}, "a-b-"),
        ("ab", {"pattern": "(a)|b", "replacement": r"[\1\0]"}, "[aa][b]"),
        ("ab", {"pattern": "a", "replacement": r"\\1"}, r"\1b"),
        ("größe", {"pattern": "ö", "replacement": "oe"}, "groesse".replace("ss", "ß")),
        ("a/b.tar.gz", {"extension": "zip"}, "a/b.tar.zip"),
        ("a.b/c", {"extension": "txt"}, "a.b/c.txt"),
        ("a/.hidden", {"extension": "txt"}, "a/.hidden.txt"),
        ("a/b.txt", {"extension": ""}, "a/b"),
        ("b", {"prefix": "2026/"}, "2026/b"),
        ("x.TXT", {"pattern": "x", "replacement": "y", "extension": "md", "prefix": "p-"}, "p-y.md"),
    ],
)
def test_keys_are_renamed(key: str, args: object, expected: str) -> None:
    assert renamed(key, args) == expected


@pytest.mark.parametrize(("key", "args"), [("k", {"pattern": "k"}), ("k" * 1000, {"prefix": "p" * 100})])
def test_a_key_that_no_object_can_have_is_rejected(key: str, args: object) -> None:
    with pytest.raises(Reject, match="a key has from 1 to 1024"):
        renamed(key, args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("(", "not a regular expression"),
        ({"pattern": "(a)", "replacement": r"\2"}, "the replacement names group 2, the pattern has 1"),
        ({"replacement": r"\1"}, "the replacement names group 1, the pattern has 0"),
        ({"pattern": "a", "replacement": "\\n"}, "a backslash comes before a digit or another backslash"),
        ({"extension": "a/b"}, "argument 'extension'"),
        ({"extension": ".txt"}, "argument 'extension'"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Rename(), args)


def test_an_extension_is_told_on_its_own_too() -> None:
    context = Context(bucket="b", key="k.txt", etl="rename", args=parse_args(Rename(), {"extension": "md"}))
    assert Rename().output_extension(context) == "md"
