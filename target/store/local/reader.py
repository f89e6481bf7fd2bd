"""An open object of the local store: one blob, or the blobs of its parts one after the other.

Opened blobs stay readable whatever happens to the key. Of an object with very many parts only those looked at
are open; their blobs outlive the key by a grace period.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import accumulate
from pathlib import Path

from transom.target.errors import SourceChanged
from transom.target.store.base import ObjectInfo
from transom.target.store.files import NEXT_CHUNK, FileReader, OpenFile, whole
from transom.target.store.local.blobs import BlobFolder

KEEP_OPEN = 4
_IN_A_ROW = 64 * 1024  # whoever reads less at a time looks here and there


class LocalReader(FileReader):
    """Reads one object; `pieces` are (size, blob id). Opens the files at once when `eager`."""

    def __init__(
        self,
        info: ObjectInfo,
        pieces: Sequence[tuple[int, bytes]],
        folder: BlobFolder,
        threads: Executor,
        *,
        eager: bool = True,
    ) -> None:
        super().__init__(threads)
        self.info = info
        self._folder = folder
        self._pieces = pieces
        self._ends = list(accumulate(size for size, _ in pieces))
        self._files: dict[int, OpenFile] = {}
        self._lock = threading.Lock()
        self._eager = eager
        self._closed = False
        self._link: Path | None = None
        if eager:
            self._open_all()

    def _open_all(self) -> None:
        try:
            for index, (_, blob) in enumerate(self._pieces):
                self._files[index] = OpenFile(self._folder.open(blob))
        except OSError:
            self.close()
            raise

    @property
    def path(self) -> Path | None:
        """A hard link to the only blob, made when first asked for and removed by `close`."""
        if len(self._pieces) != 1:
            return None
        with self._lock:
            if self._link is None and not self._closed:
                with contextlib.suppress(OSError):  # the key was overwritten meanwhile, or links are not to be had
                    self._link = self._folder.link(self._pieces[0][1])
            return self._link

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`, across parts."""
        stop = min(offset + length, self.info.size)
        found = []
        while offset < stop:
            data = self._read_ahead(offset, stop - offset)
            found.append(data)
            offset += len(data)
        return b"".join(found) if len(found) != 1 else found[0]

    def _locate(self, offset: int, length: int) -> tuple[OpenFile, int, int]:
        """The file that holds `offset`, the offset within it, and how much of `length` it holds."""
        index = bisect_right(self._ends, offset)
        within = offset - (self._ends[index - 1] if index else 0)
        return self._file(index), within, min(length, self._pieces[index][0] - within)

    def _file(self, index: int) -> OpenFile:
        with self._lock:
            if self._closed:
                raise ValueError("the reader is closed")
            file = self._files.get(index)
            if file is None:
                file = self._files[index] = self._open_piece(index)
                if len(self._files) > KEEP_OPEN and not self._eager:
                    self._files.pop(next(iter(self._files))).close()
            return file

    def _open_piece(self, index: int) -> OpenFile:
        try:
            return OpenFile(self._folder.open(self._pieces[index][1]))
        except FileNotFoundError as error:
            raise SourceChanged("The object was replaced while it was read.") from error

    def _read_cached(self, offset: int, length: int) -> bytes | None:
        file, within, length = self._locate(offset, length)
        return file.read_cached(length, within)

    def _read_ahead(self, offset: int, length: int) -> bytes:
        file, within, length = self._locate(offset, length)
        data = whole(file.read(length, within), length, "The object")
        if length >= _IN_A_ROW and offset + length < self.info.size:
            file.will_need(2 * NEXT_CHUNK, within + length)
        return data

    def close(self) -> None:
        """Let go of the files and the link."""
        with self._lock:
            self._closed = True
            files, self._files = list(self._files.values()), {}
            link, self._link = self._link, None
        for file in files:
            file.close()
        if link is not None:
            link.unlink(missing_ok=True)
