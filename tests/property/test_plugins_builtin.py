"""What must hold for any input of the built-in transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from transom.plugins import Context, Reject, Transformer, manager
from transom.plugins.args import canonical, parse_args
from transom.plugins.builtin.compress import Compress, Decompress
from transom.plugins.builtin.image_geometry import Fit, plan
from transom.plugins.builtin.text import Text

FOUND = manager.load(entry_points=False)
CUTS = st.lists(st.integers(0, 40), max_size=10)


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def run(transformer: Transformer, chunks: Iterator[bytes], args: object = None) -> bytes:
    context = Context(bucket="b", key="k", etl=transformer.name, args=parse_args(transformer, args))
    return b"".join(transformer.transform_stream(chunks, context))


@given(st.binary(max_size=500), CUTS)
def test_md5_is_the_md5(data: bytes, sizes: list[int]) -> None:
    assert run(FOUND["md5"], cut(data, sizes)) == hashlib.md5(data).hexdigest().encode()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.sampled_from(["gzip", "bz2", "zstd"]), CUTS)
def test_decompress_undoes_compress_member_by_member(parts: list[bytes], algorithm: str, sizes: list[int]) -> None:
    packed = b"".join(run(Compress(), cut(part, sizes), algorithm) for part in parts)
    assert run(Decompress(), cut(packed, sizes)) == b"".join(parts)


@given(st.binary(max_size=200), st.sampled_from(["auto", "gzip", "bz2", "zstd"]), CUTS)
def test_decompress_takes_or_rejects_anything(data: bytes, algorithm: str, sizes: list[int]) -> None:
    outcomes: set[bytes | None] = set()
    for chunks in (iter([data]), cut(data, sizes)):
        try:
            outcomes.add(run(Decompress(), chunks, algorithm))
        except Reject:
            outcomes.add(None)
    assert len(outcomes) == 1


@given(
    st.text(st.sampled_from("ab\n\ré€"), max_size=60),
    CUTS,
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 5),
    st.integers(1, 4),
    st.none() | st.sampled_from(["a", "^b", "é$", "^$"]),
    st.booleans(),
)
def test_lines_are_picked_as_from_a_list(
    text: str, sizes: list[int], head: int | None, tail: int | None, every: int, grep: str | None, invert: bool
) -> None:
    import re

    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    expected = [line for line in lines if line]
    if grep is not None:
        kept = [re.search(grep, line.removesuffix("\n").removesuffix("\r")) is not None for line in expected]
        expected = [line for line, found in zip(expected, kept, strict=True) if found is not invert]
    expected = expected[::every][:head]
    expected = expected if tail is None else expected[max(0, len(expected) - tail) :]
    args = {"head": head, "tail": tail, "every": every, "grep": grep, "invert": invert}
    assert run(Text(), cut(text.encode(), sizes), args) == "".join(expected).encode()


SIDE = st.integers(1, 3000)


@given(st.tuples(SIDE, SIDE), SIDE, SIDE, st.sampled_from(["inside", "outside", "cover", "contain", "fill"]))
def test_an_image_fits_as_asked(size: tuple[int, int], width: int, height: int, fit: Fit) -> None:
    made = plan(size, crop=None, width=width, height=height, fit=fit, enlarge=True)
    assert min(made.scaled) >= 1
    if fit in ("cover", "contain", "fill"):
        assert made.canvas == (width, height)
    if fit in ("inside", "contain"):
        assert made.scaled[0] <= width
        assert made.scaled[1] <= height
    if fit in ("outside", "cover"):
        assert made.scaled[0] >= width
        assert made.scaled[1] >= height
    if fit in ("inside", "outside"):
        assert made.canvas == made.scaled
        assert made.scaled[0] == width or made.scaled[1] == height


@given(st.tuples(SIDE, SIDE), st.none() | SIDE, st.none() | SIDE, st.sampled_from(["inside", "cover", "fill"]))
def test_nothing_is_enlarged_unasked(size: tuple[int, int], width: int | None, height: int | None, fit: Fit) -> None:
    made = plan(size, crop=None, width=width, height=height, fit=fit, enlarge=False)
    assert made.scaled[0] <= size[0]
    assert made.scaled[1] <= size[1]


@given(st.dictionaries(st.sampled_from(["width", "height", "quality"]), st.integers(1, 100)))
def test_canonical_arguments_are_read_again_as_they_were(args: dict[str, int]) -> None:
    image = FOUND["image"]
    parsed = parse_args(image, args)
    text = canonical(parsed)
    assert canonical(parse_args(image, json.loads(text))) == text
    assert parse_args(image, None, {name: str(value) for name, value in args.items()}) == parsed
