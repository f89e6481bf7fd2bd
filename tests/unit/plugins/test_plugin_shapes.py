"""Every shape, sync and async, runs as a stream; what it leaves behind is nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from transom.plugins import Context, Reject, Skip, Transformer
from transom.plugins.errors import ContractError, InputTooLarge
from transom.plugins.shapes import PIECE_SIZE, Folders, stream


class Bytes(Transformer):
    name = "bytes"

    def transform(self, data: bytes, context: Context) -> bytes:
        return data[::-1] + context.key.encode()


class Stream(Transformer):
    name = "stream"

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        yield (b"".join(chunks))[::-1]
        yield context.key.encode()


class FileToFile(Transformer):
    name = "file"

    def transform_file(self, path: Path, context: Context) -> Path:
        output = path.parent / "output"
        output.write_bytes(path.read_bytes()[::-1] + context.key.encode())
        return output


class FileToBytes(Transformer):
    name = "file-bytes"

    def transform_file(self, path: Path, context: Context) -> bytes:
        return path.read_bytes()[::-1] + context.key.encode()


class FileToPieces(Transformer):
    name = "file-pieces"

    def transform_file(self, path: Path, context: Context) -> Iterator[bytes]:
        yield path.read_bytes()[::-1]
        yield b""
        yield context.key.encode()


class AsyncBytes(Transformer):
    name = "async-bytes"

    async def transform(self, data: bytes, context: Context) -> bytes:  # type: ignore[override]
        await asyncio.sleep(0)
        return data[::-1] + context.key.encode()


class AsyncStream(Transformer):
    name = "async-stream"

    async def transform_stream(  # type: ignore[override]
        self, chunks: Iterable[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        held = [chunk async for chunk in chunks]  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        yield b"".join(held)[::-1]
        yield context.key.encode()


class CoroutineOfIterator(Transformer):
    name = "async-iterator"

    async def transform_stream(  # type: ignore[override]
        self, chunks: Iterable[bytes], context: Context
    ) -> list[bytes]:
        await asyncio.sleep(0)
        return [b"".join(chunks)[::-1], context.key.encode()]


class AsyncFile(Transformer):
    name = "async-file"

    async def transform_file(self, path: Path, context: Context) -> Path:  # type: ignore[override]
        await asyncio.sleep(0)
        return FileToFile().transform_file(path, context)


ALL: list[Transformer] = [
    Bytes(), Stream(), FileToFile(), FileToBytes(), FileToPieces(), AsyncBytes(), AsyncStream(), CoroutineOfIterator(),
    AsyncFile(),
]  # fmt: skip
CONTEXT = Context(bucket="b", key="k.tar.gz", etl="e")


@pytest.mark.parametrize("transformer", ALL, ids=lambda transformer: transformer.name)
@pytest.mark.parametrize("chunks", [[], [b""], [b"abc"], [b"a", b"", b"bc"]])
def test_every_shape_gives_the_same(transformer: Transformer, chunks: list[bytes], tmp_path: Path) -> None:
    output = b"".join(stream(transformer, iter(chunks), CONTEXT, scratch=tmp_path))
    assert output == b"".join(chunks)[::-1] + b"k.tar.gz"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transformer", ALL, ids=lambda transformer: transformer.name)
def test_every_shape_gives_the_same_from_a_file(transformer: Transformer, tmp_path: Path) -> None:
    path, scratch = tmp_path / "blob", tmp_path / "scratch"
    path.write_bytes(b"abc")
    scratch.mkdir()
    assert b"".join(stream(transformer, [b"abc"], CONTEXT, path=path, scratch=scratch)) == b"cbak.tar.gz"
    assert list(scratch.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [path, scratch]
    assert path.read_bytes() == b"abc"


def of_stream(function: Callable[[Iterable[bytes]], Any]) -> Transformer:
    class Made(Transformer):
        name = "made"

        def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
            return function(chunks)  # type: ignore[no-any-return]

    return Made()


def of_file(function: Callable[[Path], Any]) -> Transformer:
    class Made(Transformer):
        name = "made"

        def transform_file(self, path: Path, context: Context) -> Path:
            return function(path)  # type: ignore[no-any-return]

    return Made()


class Closing:
    """A generator that tells when it was closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.closed = False
        self.pieces = pieces

    def __call__(self, *_: object) -> Iterator[bytes]:
        try:
            yield from self.pieces
        finally:
            self.closed = True


def test_closing_the_stream_closes_one_that_yields_from_a_file(tmp_path: Path) -> None:
    pieces = Closing([b"1", b"2"])
    running = stream(of_file(pieces), [b"x"], CONTEXT, scratch=tmp_path)
    assert next(running) == b"1"
    assert len(list(tmp_path.iterdir())) == 1
    running.close()
    assert pieces.closed
    assert list(tmp_path.iterdir()) == []


def test_closing_the_stream_closes_the_transformer_and_its_input(tmp_path: Path) -> None:
    source, inner = Closing([b"1", b"2"]), Closing([])

    def passing(chunks: Iterable[bytes]) -> Iterator[bytes]:
        inner.pieces = chunks
        return inner()

    running = stream(of_stream(passing), source(), CONTEXT, scratch=tmp_path)
    assert next(running) == b"1"
    assert not inner.closed
    running.close()
    assert inner.closed
    assert source.closed


def test_the_input_is_closed_when_it_is_not_read_to_the_end(tmp_path: Path) -> None:
    source = Closing([b"1", b"2"])

    def first_only(chunks: Iterable[bytes]) -> Iterator[bytes]:
        yield next(iter(chunks))

    assert list(stream(of_stream(first_only), source(), CONTEXT, scratch=tmp_path)) == [b"1"]
    assert source.closed


def test_closing_the_stream_closes_an_async_generator(tmp_path: Path) -> None:
    closed = threading.Event()

    class Waiting(Transformer):
        name = "waiting"

        async def transform_stream(  # type: ignore[override]
            self, chunks: Iterable[bytes], context: Context
        ) -> AsyncIterator[bytes]:
            try:
                yield b"1"
                yield b"2"
            finally:
                await asyncio.sleep(0)
                closed.set()

    running = stream(Waiting(), [], CONTEXT, scratch=tmp_path)
    assert next(running) == b"1"
    running.close()
    assert closed.is_set()


def test_an_async_stream_may_go_on_in_another_thread(tmp_path: Path) -> None:
    running = stream(AsyncStream(), [b"ab"], CONTEXT, scratch=tmp_path)
    assert next(running) == b"ba"
    rest: list[bytes] = []
    thread = threading.Thread(target=lambda: rest.extend(running))
    thread.start()
    thread.join()
    assert rest == [b"k.tar.gz"]


@pytest.mark.parametrize("error", [Skip("left out"), Reject("bad"), RuntimeError("broken")])
@pytest.mark.parametrize("shape", ["transform", "transform_stream", "transform_file"])
def test_what_is_raised_first_comes_out_of_the_first_next(shape: str, error: Exception, tmp_path: Path) -> None:
    def raising(self: Transformer, given: object, context: Context) -> bytes:
        raise error

    made: Transformer = type("Made", (Transformer,), {"name": "made", shape: raising})()
    running = stream(made, [b"x"], CONTEXT, scratch=tmp_path)
    with pytest.raises(type(error)) as caught:
        next(running)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_what_is_raised_late_comes_after_the_output_so_far(tmp_path: Path) -> None:
    def late(chunks: Iterable[bytes]) -> Iterator[bytes]:
        yield b"1"
        raise RuntimeError("late")

    running = stream(of_stream(late), [], CONTEXT, scratch=tmp_path)
    assert next(running) == b"1"
    with pytest.raises(RuntimeError, match="late"):
        next(running)


def test_an_error_of_the_input_passes_through(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"1"
        raise ConnectionError("gone")

    for transformer in ALL:
        with pytest.raises(ConnectionError, match="gone"):
            list(stream(transformer, broken(), CONTEXT, scratch=tmp_path))
        assert list(tmp_path.iterdir()) == []


def test_a_whole_input_past_the_bound_is_rejected(tmp_path: Path) -> None:
    assert b"".join(stream(Bytes(), [b"12", b"34"], CONTEXT, scratch=tmp_path, max_memory=4)) == b"4321k.tar.gz"
    with pytest.raises(InputTooLarge, match="'bytes' takes objects of up to 4 bytes"):
        list(stream(Bytes(), [b"12", b"345"], CONTEXT, scratch=tmp_path, max_memory=4))
    assert issubclass(InputTooLarge, Reject)


def test_an_input_known_to_pass_the_bound_is_not_read(tmp_path: Path) -> None:
    def unread() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    context = Context(bucket="b", key="k", etl="e", size=5)
    with pytest.raises(InputTooLarge):
        list(stream(Bytes(), unread(), context, scratch=tmp_path, max_memory=4))


def test_a_single_chunk_is_not_copied(tmp_path: Path) -> None:
    class Same(Transformer):
        name = "same"

        def transform(self, data: bytes, context: Context) -> bytes:
            return data

    data = b"x" * 1000
    assert next(stream(Same(), [data], CONTEXT, scratch=tmp_path)) is data


def test_large_results_come_in_pieces(tmp_path: Path) -> None:
    data = os.urandom(2 * PIECE_SIZE + 1)
    for transformer in (Bytes(), FileToBytes(), FileToFile()):
        pieces = list(stream(transformer, [data], CONTEXT, scratch=tmp_path))
        assert [len(piece) for piece in pieces] == [PIECE_SIZE, PIECE_SIZE, 1 + len(b"k.tar.gz")]
        assert b"".join(pieces) == data[::-1] + b"k.tar.gz"


def test_empty_pieces_are_left_out_and_other_buffers_become_bytes(tmp_path: Path) -> None:
    pieces = [b"", bytearray(b"ab"), memoryview(b"cd"), b""]
    assert list(stream(of_stream(lambda _: iter(pieces)), [], CONTEXT, scratch=tmp_path)) == [b"ab", b"cd"]


@pytest.mark.parametrize("given", [None, "text", b"bytes", 7])
def test_a_stream_that_is_no_iterator_of_bytes_breaks_the_contract(given: object, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="where an iterator of bytes is due"):
        list(stream(of_stream(lambda _: given), [], CONTEXT, scratch=tmp_path))


def test_a_piece_or_result_of_the_wrong_type_breaks_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="'made' gave str where bytes are due"):
        list(stream(of_stream(lambda _: ["text"]), [], CONTEXT, scratch=tmp_path))
    with pytest.raises(ContractError, match="'made' gave NoneType where bytes are due"):
        list(stream(of_file(lambda _: None), [], CONTEXT, scratch=tmp_path))


def test_a_file_is_named_with_the_extension_of_its_key(tmp_path: Path) -> None:
    def name(path: Path) -> bytes:
        return path.name.encode()

    assert b"".join(stream(of_file(name), [], CONTEXT, scratch=tmp_path)) == b"input.gz"
    for key in ("plain", "a.b/plain", "odd.e x t", "dot.", "long." + "x" * 17):
        context = Context(bucket="b", key=key, etl="e")
        assert b"".join(stream(of_file(name), [], context, scratch=tmp_path)) == b"input"


def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret, scratch = tmp_path / "secret", tmp_path / "scratch"
    secret.write_bytes(b"secret")
    scratch.mkdir()

    def linked(path: Path) -> Path:
        link = path.parent / "link"
        link.symlink_to(secret)
        return link

    for transformer in (of_file(lambda _: secret), of_file(linked)):
        with pytest.raises(ContractError, match="outside"):
            list(stream(transformer, [], CONTEXT, scratch=scratch))
    assert secret.read_bytes() == b"secret"


def test_the_input_file_may_be_the_result(tmp_path: Path) -> None:
    path, scratch = tmp_path / "blob", tmp_path / "scratch"
    path.write_bytes(b"abc")
    scratch.mkdir()
    for transformer in (of_file(lambda path: path), of_file(lambda path: path.resolve())):
        assert b"".join(stream(transformer, [b"abc"], CONTEXT, scratch=scratch)) == b"abc"
        assert b"".join(stream(transformer, [b"abc"], CONTEXT, scratch=scratch, path=path)) == b"abc"
        assert path.read_bytes() == b"abc"


def test_leaving_a_file_result_in_the_middle_removes_it(tmp_path: Path) -> None:
    running = stream(FileToFile(), [b"x" * 3 * PIECE_SIZE], CONTEXT, scratch=tmp_path)
    assert len(next(running)) == PIECE_SIZE
    assert len(list(tmp_path.iterdir())) == 1
    running.close()
    assert list(tmp_path.iterdir()) == []


def test_an_infinite_stream_is_read_only_as_far_as_asked(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    running = stream(of_stream(lambda chunks: (chunk for chunk in chunks)), endless(), CONTEXT, scratch=tmp_path)
    assert [next(running) for _ in range(3)] == [b"x"] * 3
    running.close()


def test_folders_are_lent_empty_again_and_again_and_each_to_one_run_at_a_time(tmp_path: Path) -> None:
    folders = Folders(tmp_path)

    def begun(chunks: Iterable[bytes] = (b"abc",)) -> Iterator[bytes]:
        return stream(of_file(named), chunks, CONTEXT, scratch=tmp_path, folders=folders)

    def named(path: Path) -> Iterator[bytes]:
        assert [each.name for each in path.parent.iterdir()] == ["input.gz"]
        (path.parent / "left").write_bytes(b"over")
        yield path.parent.name.encode()
        yield path.read_bytes()

    first, second = begun(), begun()
    one, other = next(first), next(second)
    assert one != other
    assert (list(first), list(second)) == ([b"abc"], [b"abc"])
    assert sorted(each.name.encode() for each in tmp_path.iterdir()) == sorted((one, other))
    folder, _ = begun()
    assert folder in (one, other)
    assert not any(list(each.iterdir()) for each in tmp_path.iterdir())
    folders.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_more_than_files_is_not_lent_again(tmp_path: Path) -> None:
    scratch, away = tmp_path / "scratch", tmp_path / "away"
    scratch.mkdir()
    away.mkdir()
    (away / "other").write_bytes(b"somebody's")
    folders = Folders(scratch)

    def nested(path: Path) -> bytes:
        (path.parent / "more" / "and more").mkdir(parents=True)
        return b""

    def swapped(path: Path) -> bytes:
        path.unlink()
        path.parent.rmdir()
        path.parent.symlink_to(away)
        return b""

    for spoil in (nested, swapped):
        assert list(stream(of_file(spoil), [b"abc"], CONTEXT, scratch=scratch, folders=folders)) == []
        assert list(stream(of_file(lambda path: path), [b"abc"], CONTEXT, scratch=scratch, folders=folders)) == [b"abc"]
    assert (away / "other").read_bytes() == b"somebody's"


def test_an_input_on_disk_is_linked_without_touching_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, scratch = tmp_path / "blob", tmp_path / "scratch"
    path.write_bytes(b"abc")
    scratch.mkdir()

    def replaced(given: Path) -> bytes:
        data = given.read_bytes()
        given.unlink()
        given.write_bytes(b"of the transformer")
        return data

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    for _ in ("a hard link", "a symbolic one"):
        assert list(stream(of_file(replaced), [], CONTEXT, path=path, scratch=scratch)) == [b"abc"]
        assert path.read_bytes() == b"abc"
        monkeypatch.setattr(Path, "hardlink_to", refused)
