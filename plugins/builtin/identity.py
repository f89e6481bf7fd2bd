"""`echo` and `hello_world`: the two transformers to try a connection with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transom.plugins.contract import Context, Transformer

_GREETING = b"Hello World!"


class Echo(Transformer):
    """Returns the object as it is."""

    name = "echo"
    releases_gil = True

    def output_size(self, context: Context) -> int | None:
        """The input's."""
        return context.size

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Pass every chunk on."""
        return iter(chunks)


class HelloWorld(Transformer):
    """Returns `Hello World!`, whatever the object."""

    name = "hello_world"
    releases_gil = True
    extension = "txt"

    def content_type(self, context: Context) -> str:
        """Plain text."""
        return "text/plain"

    def output_size(self, context: Context) -> int | None:
        """The greeting's."""
        return len(_GREETING)

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Greet without reading the input."""
        yield _GREETING
