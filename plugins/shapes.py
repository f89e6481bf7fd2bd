"""Runs a transformer of any shape as a stream: bytes in pieces, bytes out in pieces, in bounded memory.

It blocks, so it is called from a worker thread or process; it knows nothing of deadlines kept, caches or limits.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from transom.plugins.checks import Shape, shapes_of
from transom.plugins.contract import Context, Transformer
from transom.plugins.errors import ContractError, InputTooLarge

MIB = 1024 * 1024
PIECE_SIZE = MIB
MAX_MEMORY = 256 * MIB

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
_T = TypeVar("_T")


def shape_of(transformer: Transformer) -> Shape:
    """Return the one shape that the transformer's author wrote."""
    kind: type = type(transformer)
    return _shape_of_kind(kind)


@cache
def _shape_of_kind(kind: type) -> Shape:
    (shape,) = shapes_of(kind)
    return shape


def stream(
    transformer: Transformer,
    chunks: Iterable[bytes],
    context: Context,
    *,
    path: Path | None = None,
    scratch: Path,
    folders: Folders | None = None,
    max_memory: int = MAX_MEMORY,
) -> Generator[bytes, None, None]:
    """Yield the transformer's output for the input `chunks`; empty pieces are left out.

    The shape that was written is derived from: one that takes whole bytes gets at most `max_memory` of them, else
    InputTooLarge; one that takes a file gets `path` (the same bytes as `chunks`, on disk already) or a copy, in a
    folder of its own: a new one in `scratch`, removed afterwards, or one of `folders`. Whatever the transformer raises
    comes out of `next` unchanged. Closing the generator closes the transformer's own, and `chunks` if that is a
    generator.
    """
    with ExitStack() as stack:
        if isinstance(chunks, Generator):
            stack.enter_context(closing(chunks))
        loop = stack.enter_context(_PrivateLoop())
        shape = shape_of(transformer)
        if shape is Shape.STREAM:
            yield from _run_stream(transformer, chunks, context, loop)
        elif shape is Shape.BYTES:
            data = _joined(transformer, chunks, context, max_memory)
            result = loop.value(transformer.transform(data, context))
            del data
            yield from _pieces(_as_bytes(transformer, result))
        else:
            folder = stack.enter_context(_fresh(scratch) if folders is None else folders.one())
            yield from _run_file(transformer, chunks, context, loop, path, folder)


class Folders:
    """Folders for runs, emptied after each and kept for the next; from any thread.

    Where a disk is told of every block that is freed, a new folder for each run takes as long as a short run.
    """

    def __init__(self, under: Path) -> None:
        self._under = under
        self._idle: list[Path] = []

    @contextmanager
    def one(self) -> Iterator[Path]:
        """Lend an empty folder."""
        try:
            folder = self._idle.pop()
        except IndexError:
            folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=self._under))
        try:
            yield folder
        finally:
            if _emptied(folder):
                self._idle.append(folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove those that nobody has."""
        while self._idle:
            shutil.rmtree(self._idle.pop(), ignore_errors=True)


def _emptied(folder: Path) -> bool:
    """Unlink the files in a folder; False where there is more than files, or it is no folder any more."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            os.unlink(name, dir_fd=fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@contextmanager
def _fresh(scratch: Path) -> Iterator[Path]:
    """A folder for one run alone."""
    with tempfile.TemporaryDirectory(prefix=_prefix(), dir=scratch) as name:
        yield Path(name)


def _prefix() -> str:
    return f"etl.{os.getpid()}."


def _run_stream(
    transformer: Transformer, chunks: Iterable[bytes], context: Context, loop: _PrivateLoop
) -> Iterator[bytes]:
    given: object = transformer.transform_stream(_BothWays(chunks) if _is_async(transformer) else chunks, context)
    return _yielded(transformer, given, loop)


def _yielded(transformer: Transformer, given: object, loop: _PrivateLoop) -> Iterator[bytes]:
    with loop.iterated(given, transformer.name) as pieces:
        for piece in pieces:
            whole = piece if type(piece) is bytes else _as_bytes(transformer, piece)
            if whole:
                yield whole


def _run_file(
    transformer: Transformer,
    chunks: Iterable[bytes],
    context: Context,
    loop: _PrivateLoop,
    path: Path | None,
    folder: Path,
) -> Iterator[bytes]:
    source = _source_file(folder, chunks, context, path)
    result: object = loop.value(transformer.transform_file(source, context))
    if isinstance(result, Path):
        return _file_pieces(transformer, result, source, folder)
    if isinstance(result, Iterator | AsyncIterator):
        return _yielded(transformer, result, loop)
    return _pieces(_as_bytes(transformer, result))


def _file_pieces(transformer: Transformer, result: Path, source: Path, folder: Path) -> Iterator[bytes]:
    inside = result == source or result.resolve().is_relative_to(folder.resolve())
    if not inside and result.resolve() != source.resolve():
        raise ContractError(f"ETL '{transformer.name}' returned a file outside of its input's folder")
    with result.open("rb") as output:
        while piece := output.read(PIECE_SIZE):
            yield piece


def _source_file(folder: Path, chunks: Iterable[bytes], context: Context, path: Path | None) -> Path:
    """Give the input a path in `folder`, with the key's extension: tools go by it."""
    suffix = Path(context.key).suffix
    source = folder / ("input" + (suffix if _SUFFIX.fullmatch(suffix) else ""))
    if path is not None:
        # A link and not the path itself: the transformer writes beside its input, and must not do so in a store. A
        # symbolic one takes a block of the disk where the path is long.
        try:
            source.hardlink_to(path)
        except OSError:  # on another file system, or on one that has none
            source.symlink_to(path.absolute())
        return source
    with source.open("wb") as spool:
        for chunk in chunks:
            spool.write(chunk)
    return source


def _joined(transformer: Transformer, chunks: Iterable[bytes], context: Context, max_memory: int) -> bytes:
    refusal = f"ETL '{transformer.name}' takes objects of up to {max_memory} bytes, this one is larger"
    if context.size is not None and context.size > max_memory:
        raise InputTooLarge(refusal)
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_memory:
            raise InputTooLarge(refusal)
        parts.append(chunk)
    # One chunk is passed on as it is, so a small object isn't copied.
    return parts[0] if len(parts) == 1 and type(parts[0]) is bytes else b"".join(parts)


def _pieces(data: bytes) -> Iterator[bytes]:
    if len(data) <= PIECE_SIZE:
        if data:
            yield data
        return
    for start in range(0, len(data), PIECE_SIZE):
        yield data[start : start + PIECE_SIZE]


def _as_bytes(transformer: Transformer, value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise ContractError(f"ETL '{transformer.name}' gave {type(value).__name__} where bytes are due")


def _is_async(transformer: Transformer) -> bool:
    method = transformer.transform_stream
    return inspect.isasyncgenfunction(method) or inspect.iscoroutinefunction(method)


class _BothWays:
    """The input chunks, for `for` and `async for` alike."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class _PrivateLoop:
    """An event loop for one run, made only if the transformer turns out to be asynchronous."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> _PrivateLoop:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()

    def value(self, given: object) -> object:
        """Return what was given, awaited if it has to be."""
        return self._run(given) if inspect.isawaitable(given) else given

    @contextmanager
    def iterated(self, given: object, etl: str) -> Iterator[Iterator[object]]:
        """Give what a `transform_stream` returned as a plain iterator, and close it at the end."""
        given = self.value(given)
        if isinstance(given, AsyncIterator):
            try:
                yield self._pulled(given)
            finally:
                if isinstance(given, AsyncGenerator):
                    self._run(given.aclose())
        elif isinstance(given, Iterable) and not isinstance(given, bytes | bytearray | memoryview | str):
            try:
                yield iter(given)
            finally:
                if isinstance(given, Generator):
                    given.close()
        else:
            raise ContractError(f"ETL '{etl}' returned {type(given).__name__} where an iterator of bytes is due")

    def _pulled(self, given: AsyncIterator[_T]) -> Iterator[_T]:
        while True:
            try:
                piece = self._run(anext(given))
            except StopAsyncIteration:
                return
            yield piece

    def _run(self, awaitable: Awaitable[_T]) -> _T:
        if self._runner is None:
            # A loop factory keeps the runner from binding its loop to this thread: the next piece may be
            # asked for from another one.
            self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        return self._runner.run(_awaited(awaitable))


async def _awaited(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
