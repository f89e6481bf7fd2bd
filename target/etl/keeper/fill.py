"""How much a worker has put into its own folder, which is on a disk that others need too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MOST_FILES = 10_000
_BLOCK = 512  # bytes, in which the system counts whatever the file system's own are


def is_too_full(folder: Path, limit: int) -> bool:
    """Whether what is below the folder takes more than `limit` bytes, or is far too many files. Blocking."""
    taken = 0
    for count, status in enumerate(_below(folder)):
        taken += status.st_blocks * _BLOCK
        if taken > limit or count > _MOST_FILES:
            return True
    return False


def empty(folder: Path) -> None:
    """Remove what is in the folder, as far as that can be done. Blocking."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()


def _below(folder: Path) -> Iterator[os.stat_result]:
    """The status of every entry, links as such; what goes meanwhile, or can't be looked at, is left out."""
    folders = [os.fspath(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
