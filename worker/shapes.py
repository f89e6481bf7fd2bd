"""Turns what an author wrote, a class, an object or a function, into one thing that can be run on an object.

It knows nothing of sockets: input comes as an `Input` or a file, output goes to a `Sink`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from transom.worker.awaiting import pulled, resolved
from transom.worker.contract import Context
from transom.worker.errors import Gone
from transom.worker.reading import PIECE, Input

METHODS = ("transform", "transform_stream", "transform_file")


class Sink(Protocol):
    """Where one object's result goes: exactly one of these is called, once."""

    def whole(self, data: bytes) -> None:
        """Take the whole result."""

    def pieces(self, pieces: Iterator[bytes]) -> None:
        """Take the result as it is made."""

    def file(self, file: BinaryIO, size: int) -> None:
        """Take the first `size` bytes of a file."""


class Source:
    """One object's bytes: on their way here, or in a file that may be read in place."""

    def __init__(self, given: Input | None = None, path: str = "") -> None:
        self._given = given
        self.path = path

    @property
    def broken(self) -> bool:
        """Whether they ended before their end."""
        return self._given is not None and self._given.broken

    @property
    def in_hand(self) -> bool:
        """Whether nobody need be waited for while they are read."""
        return self._given is None or self._given.in_hand

    def read(self) -> bytes:
        """Return all of them."""
        if self._given is not None:
            return self._given.read()
        return Path(self.path).read_bytes()

    def chunks(self) -> Generator[bytes, None, None]:
        """Yield them in pieces of up to 1 MiB."""
        if self._given is not None:
            yield from self._given
            return
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered, and the shorter of the two
            while piece := file.read(PIECE):
                yield piece


class Transform:
    """What an author wrote, ready to run; callable from several threads at once."""

    def __init__(self, written: Any) -> None:
        """Make an instance of a class. Raises TypeError where it isn't clear what to call."""
        self._author = written() if isinstance(written, type) else written
        call = _to_call(self._author)
        self._call = _with_context(call)
        runs = {"transform_stream": self._run_stream, "transform_file": self._run_file}
        self._run = runs.get(getattr(call, "__name__", ""), self._run_bytes)
        self.content_type: str | None = getattr(self._author, "content_type", None)

    def start(self) -> None:
        """Let the author get ready."""
        getattr(self._author, "start", _nothing)()

    def close(self) -> None:
        """Let the author let go."""
        getattr(self._author, "close", _nothing)()

    def run(self, source: Source, context: Context, sink: Sink) -> None:
        """Transform one object. What the author's code raises comes out unchanged."""
        self._run(source, context, sink)

    def _run_bytes(self, source: Source, context: Context, sink: Sink) -> None:
        result = resolved(self._call(source.read(), context))
        sink.whole(result if type(result) is bytes else _as_bytes(result, "transform"))

    def _run_stream(self, source: Source, context: Context, sink: Sink) -> None:
        with closing(source.chunks()) as chunks, closing(_checked(self._call(chunks, context), source)) as pieces:
            sink.pieces(pieces)

    def _run_file(self, source: Source, context: Context, sink: Sink) -> None:
        folder = tempfile.mkdtemp(prefix="transom.")
        try:
            result = resolved(self._call(_as_file(source, context.key, Path(folder)), context))
            if not isinstance(result, Path):
                sink.whole(_as_bytes(result, "transform_file"))
                return
            with result.open("rb", buffering=0) as file:
                sink.file(file, os.fstat(file.fileno()).st_size)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _nothing() -> None:
    pass


def methods_of(written: Any) -> list[str]:
    """Return which of the three methods a class or an object has."""
    return [name for name in METHODS if callable(getattr(written, name, None))]


def _to_call(author: Any) -> Callable[..., Any]:
    """Return the one method of an object, or the function; what it is called says what it takes."""
    names = methods_of(author)
    if len(names) == 1:
        return getattr(author, names[0])  # type: ignore[no-any-return]
    if not names and callable(author):
        return author  # type: ignore[no-any-return]
    kind = type(author).__name__
    if names:
        raise TypeError(f"{kind} has {' and '.join(names)}: write one of them")
    raise TypeError(f"{kind} has none of {', '.join(METHODS)}")


def _with_context(call: Callable[..., Any]) -> Callable[..., Any]:
    """Give `call` the context too, where it doesn't take one."""
    import inspect  # slow to import, and of use once

    parameters = inspect.signature(call).parameters.values()
    takes = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(takes) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return call
    if not takes:
        raise TypeError(f"{getattr(call, '__qualname__', call)} takes no data")
    return lambda data, _: call(data)


def _checked(given: Any, source: Source) -> Generator[bytes, None, None]:
    """Yield what a `transform_stream` gave, without its empty pieces; close it at the end.

    Whoever takes half an input for a whole one and ends well is not believed: that raises Gone.
    """
    pieces = pulled(resolved(given))
    try:
        for piece in pieces:
            whole = piece if type(piece) is bytes else _as_bytes(piece, "transform_stream")
            if whole:
                yield whole
        if source.broken:
            raise Gone
    finally:
        getattr(pieces, "close", _nothing)()


def _as_bytes(value: object, method: str) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{method} gave {type(value).__name__} where bytes are due")


def _as_file(source: Source, key: str, folder: Path) -> Path:
    """Return a path in `folder` with the key's extension: tools go by it."""
    suffix = Path(key).suffix
    path = folder / ("input" + (suffix if suffix[1:].isalnum() and suffix.isascii() else ""))
    if source.path:
        path.symlink_to(source.path)  # whoever writes beside its input doesn't write into a store
        return path
    with path.open("wb", buffering=0) as file:
        for chunk in source.chunks():
            file.write(chunk)
    return path
