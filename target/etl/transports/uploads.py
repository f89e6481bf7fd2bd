"""The object's bytes on their way to a worker: what is in hand, the rest, and whether it could be sent again."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transom.target.errors import EtlFailed
from transom.target.etl.transports.exchange import MAX_READ


class Upload:
    """The input of one call. `first` is pulled at once, the rest as it is sent.

    `size` is the whole length in bytes, None where only the end of the input will tell. `replayable` says that all
    that was pulled is still in hand.
    """

    def __init__(self, etl: str, chunks: Iterator[bytes], size: int | None) -> None:
        self._etl = etl
        self._chunks = filter(None, chunks)
        self.first = next(self._chunks, b"")
        self.replayable = True
        self.size = size
        if size is None:
            self._look_ahead()
        elif len(self.first) > size:
            raise self._misjudged("more")

    @property
    def whole(self) -> bool:
        """Whether `first` is all there is."""
        return len(self.first) == self.size

    def rest(self) -> Iterator[bytes]:
        """Yield what comes after `first`; raises EtlFailed when the input isn't of the size that was promised."""
        left = None if self.size is None else self.size - len(self.first)
        for piece in self._chunks:
            self.replayable = False
            if left is not None:
                left -= len(piece)
                if left < 0:
                    raise self._misjudged("more")
            yield piece
        if left:
            raise self._misjudged("less")

    def _look_ahead(self) -> None:
        second = next(self._chunks, None)
        if second is None:
            self.size = len(self.first)
        else:
            self._chunks = filter(None, itertools.chain([second], self._chunks))

    def _misjudged(self, how: str) -> EtlFailed:
        return EtlFailed(
            f"ETL '{self._etl}' failed: its input was {how} than the {self.size} bytes promised", etl=self._etl
        )


@contextmanager
def measured(chunks: Iterator[bytes], scratch: Path | None) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Collect an input of unknown length in a file, for a worker that must be told the length first."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        for piece in chunks:
            file.write(piece)
        size = file.tell()
        file.seek(0)
        yield size, iter(lambda: file.read(MAX_READ), b"")
