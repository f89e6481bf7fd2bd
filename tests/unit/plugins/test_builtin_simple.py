"""The small built-in transformers, against values worked out by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from transom.plugins import Context, manager
from transom.plugins.args import parse_args
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

FOUND = manager.load(entry_points=False)


@pytest.mark.parametrize(
    ("name", "data", "args", "expected"),
    [
        ("echo", b"ab\x00\xff", None, b"ab\x00\xff"),
        ("echo", b"", None, b""),
        ("hello_world", b"anything", None, b"Hello World!"),
        ("hello_world", b"", None, b"Hello World!"),
        ("md5", b"", None, b"d41d8cd98f00b204e9800998ecf8427e"),
        ("md5", b"Hello World!", None, b"ed076287532e86365e841e92bfc50d8c"),
        ("hash", b"", None, b"ef46db3751d8e999"),
        ("hash", b"0123456789\n", 123, b"5328b3c272b5aab0"),
        ("hash", b"0123456789\n", {"seed": "123"}, b"5328b3c272b5aab0"),
        ("upper", b"abC1\xe4\xc3\xa4", None, b"ABC1\xe4\xc3\xa4"),
        ("reverse", b"abc", None, b"cba"),
        ("append", b"abc", None, b"abc!"),
        ("append", b"abc", " \u00e9", b"abc \xc3\xa9"),
        ("append", b"", "", b""),
    ],
)
def test_the_output_is_as_computed_by_hand(run: Run, name: str, data: bytes, args: object, expected: bytes) -> None:
    assert run(FOUND[name], data, args) == expected
    size = FOUND[name].output_size(
        Context(bucket="b", key="k", etl=name, size=len(data), args=parse_args(FOUND[name], args))
    )
    assert size == len(expected)


def test_digests_do_not_depend_on_chunks(run: Run) -> None:
    data = bytes(range(256)) * 100
    assert run(FOUND["md5"], [data[:1], data[1:777], data[777:]]) == hashlib.md5(data).hexdigest().encode()
    assert run(FOUND["hash"], [data[:1], data[1:]], 7) == run(FOUND["hash"], data, 7) != run(FOUND["hash"], data)


def test_echo_passes_chunks_on_uncopied(run: Run) -> None:
    chunks = [b"a" * 100, b"b" * 100]
    context = Context(bucket="b", key="k", etl="echo")
    assert all(got is sent for got, sent in zip(FOUND["echo"].transform_stream(chunks, context), chunks, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**64, "x", 1.5])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(ArgsError, match="ETL 'hash', argument 'seed'"):
        parse_args(FOUND["hash"], seed)


@pytest.mark.parametrize(
    ("name", "content_type", "extension"),
    [
        ("echo", "image/png", None),
        ("upper", "image/png", None),
        ("md5", "text/plain", "txt"),
        ("hash", "text/plain", "txt"),
        ("hello_world", "text/plain", "txt"),
    ],
)
def test_content_type_and_extension(name: str, content_type: str, extension: str | None) -> None:
    context = Context(bucket="b", key="k", etl=name, content_type="image/png")
    assert FOUND[name].content_type(context) == content_type
    assert FOUND[name].output_extension(context) == extension
