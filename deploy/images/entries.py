"""Lists of what goes into a layer: paths in the image, each once, each with where its bytes come from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Nothing a worker needs, and half of the size.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "pip"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file from `source`, else a symbolic link to `link`, else a folder. `mtime` 0 unless something compares it."""

    path: str
    mode: int = 0o755
    source: str = ""
    link: str = ""
    mtime: int = 0


def a_file(source: Path, path: str) -> Entry:
    """A file of this machine. Python compares the time of a .py with what its .pyc says, so theirs are kept."""
    info = source.stat()
    compared = source.suffix in (".py", ".pyc")
    mode = 0o755 if info.st_mode & 0o100 else 0o644  # whoever it belongs to here, any user may read it there
    return Entry(path, mode, source=str(source), mtime=int(info.st_mtime) if compared else 0)


def a_tree(folder: Path, path: str, left_out: Iterable[str] = ()) -> Iterator[Entry]:
    """A folder of this machine with all that is below it but `left_out`, in a fixed order. Links are followed."""
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in left_out)
        below = PurePosixPath(path, Path(base).relative_to(folder))
        for name in sorted(files):
            source = Path(base, name)
            if source.is_file() and _wanted(source):
                yield a_file(source, str(below / name))


def placed(entries: Iterable[Entry], there: Iterable[str] = ()) -> list[Entry]:
    """Each path once, the first wins, behind the folders that lead to it; without what is `there` already."""
    done = {"/", *there}
    found: list[Entry] = []
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.path).parents):
            if str(parent) not in done:
                done.add(str(parent))
                found.append(Entry(str(parent)))
        if entry.path not in done:
            done.add(entry.path)
            found.append(entry)
    return found


def _wanted(source: Path) -> bool:
    # optimised code is never asked for; archives are for linking; Tk is left out, and its library is large
    return not source.name.endswith((".opt-1.pyc", ".opt-2.pyc", ".a")) and not source.name.startswith("_tkinter")
