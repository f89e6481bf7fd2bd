"""Who makes files under tmp/: each open store has a locked file in makers/, and puts its name before all it makes.

The kernel lets go of the lock when a process ends, however it ends; what it left is then anybody's to remove, while
others use the folder. Nothing of the index, nor of what the files hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

_TRIES = 100  # a name is lost when somebody sweeps just between its making and its locking
_log = logging.getLogger("transom.store")


class Maker:
    """The name of one open store. Not to be shared across a fork, since the child's copy would hold the lock too.

    Make it under a shared hold on the folder: whoever is alone there sweeps without asking. `remove` removes what a
    maker left: a file, unless all who use `root` make something else.
    """

    def __init__(self, root: Path, remove: Callable[[Path], None] = os.unlink) -> None:
        self._root = root
        (root / "makers").mkdir(exist_ok=True)
        sweep_dead(root, remove)  # first: where the disk is full, what follows may need the room
        self.name, self._fd = _enter(root / "makers")

    def release(self) -> None:
        """Give the name up; safe to call twice. It lasts as long as the process where a file of it is left."""
        fd, self._fd = self._fd, -1
        if fd < 0 or _made_by(self._root, self.name):  # a reader that is open yet has its link
            return
        (self._root / "makers" / self.name).unlink(missing_ok=True)
        os.close(fd)


def sweep_dead(root: Path, remove: Callable[[Path], None] = os.unlink) -> None:
    """Remove what dead makers left under tmp/; blocks. What can't be removed is logged and left to the next sweep."""
    for name in _names(root / "makers"):
        try:
            _sweep(root, name, remove)
        except OSError as error:
            _log.warning("what a process left in %s when it died has to wait: %s", root / "tmp", error)


def _enter(folder: Path) -> tuple[str, int]:
    """A new name, and the descriptor that holds its lock."""
    for _ in range(_TRIES):
        name = secrets.token_hex(8)
        fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if _lock(fd) and os.fstat(fd).st_nlink:
                return name, fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise RuntimeError(f"No name in {folder} could be locked: see what removes its files, and try again.")


def _sweep(root: Path, name: str, remove: Callable[[Path], None]) -> None:
    """Remove what a maker left, and last its name, so that a sweep that is cut off is begun again; if it is dead."""
    mark = root / "makers" / name
    try:
        fd = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if _lock(fd):
            for left in _made_by(root, name):
                with contextlib.suppress(FileNotFoundError):
                    remove(left)
            mark.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _made_by(root: Path, name: str) -> list[Path]:
    return [root / "tmp" / each for each in _names(root / "tmp") if each.startswith(f"{name}-")]


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:  # the data folder was removed meanwhile: closing a store must not fail of it
        return []
