"""The shape an author writes, and how the input is cut, make no difference to the output."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from transom.plugins import Context, Transformer
from transom.plugins.shapes import stream

Work = Callable[[bytes], bytes]
SIZES = st.lists(st.integers(0, 20), max_size=8)
WORKS: list[Work] = [lambda data: data, lambda data: data[::-1], lambda data: data * 3, lambda data: data[1::2]]


def written_as_bytes(work: Work) -> Transformer:
    class Made(Transformer):
        name = "made"

        def transform(self, data: bytes, context: Context) -> bytes:
            return work(data)

    return Made()


def written_as_stream(work: Work, sizes: Sequence[int]) -> Transformer:
    class Made(Transformer):
        name = "made"

        def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
            yield from cut(work(b"".join(chunks)), sizes)

    return Made()


def written_as_async_stream(work: Work, sizes: Sequence[int]) -> Transformer:
    class Made(Transformer):
        name = "made"

        async def transform_stream(  # type: ignore[override]
            self, chunks: Iterable[bytes], context: Context
        ) -> AsyncIterator[bytes]:
            for piece in cut(work(b"".join(chunks)), sizes):
                yield piece

    return Made()


def written_as_file(work: Work) -> Transformer:
    class Made(Transformer):
        name = "made"

        def transform_file(self, path: Path, context: Context) -> Path:
            output = path.with_name("output")
            output.write_bytes(work(path.read_bytes()))
            return output

    return Made()


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


@given(st.sampled_from(WORKS), st.binary(max_size=200), SIZES, SIZES, st.booleans())
def test_every_shape_does_the_same_work(
    work: Work, data: bytes, taken: list[int], given: list[int], on_disk: bool
) -> None:
    written = [
        written_as_bytes(work),
        written_as_stream(work, given),
        written_as_async_stream(work, given),
        written_as_file(work),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        path.write_bytes(data)
        for transformer in written:
            context = Context(bucket="b", key="k", etl="made")
            pieces = list(
                stream(transformer, cut(data, taken), context, scratch=Path(folder), path=path if on_disk else None)
            )
            assert b"".join(pieces) == work(data)
            assert all(pieces)
        assert list(Path(folder).iterdir()) == [path]


@given(st.lists(st.sampled_from(WORKS), max_size=4), st.binary(max_size=60), SIZES)
def test_stages_in_a_row_do_the_works_in_a_row(works: list[Work], data: bytes, sizes: list[int]) -> None:
    expected = data
    context = Context(bucket="b", key="k", etl="made")
    with tempfile.TemporaryDirectory() as folder:
        chunks: Iterable[bytes] = cut(data, sizes)
        for number, work in enumerate(works):
            expected = work(expected)
            transformer = (written_as_bytes(work), written_as_stream(work, sizes), written_as_file(work))[number % 3]
            chunks = stream(transformer, chunks, context, scratch=Path(folder))
        assert b"".join(chunks) == expected
