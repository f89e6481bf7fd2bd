"""Gives back what it gets, as it comes: the least there is to a worker, and a measure of what any other costs."""

from __future__ import annotations

from collections.abc import Iterator

from transom.worker import Context, Worker


class Echo(Worker):
    """The input, unchanged."""

    def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:  # noqa: ARG002
        """Hand every piece on."""
        yield from chunks
