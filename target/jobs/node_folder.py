"""Scratch folders of workers on machines without the data folder: each has one, and removes what dead ones left there.

It knows nothing of jobs; whose folder is whose, and who is dead, is told by locked names as in the store.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.store.local.makers import Maker


class NodeFolder:
    """One worker's folder, `path`, under this machine's folder for temporary files. Not to be shared across a fork.

    Making one removes what workers of this user left that are dead. Raises EngineUnavailable where none can be made.
    """

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir(), f"transom-node-{os.getuid()}")
        try:
            _make_own(root)
            (root / "tmp").mkdir(exist_ok=True)
            self._maker = Maker(root, shutil.rmtree)
            self.path = root / "tmp" / f"{self._maker.name}-scratch"
            self.path.mkdir(mode=0o700)
        except (OSError, RuntimeError) as error:  # no locks, no room
            raise EngineUnavailable(f"no temporary files can be made on a Ray node: {error}") from error

    def remove(self) -> None:
        """Remove it; safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._maker.release()


def _make_own(root: Path) -> None:
    """Make a folder for this user alone. Raises EngineUnavailable where somebody else's is in its place."""
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EngineUnavailable(
            f"{root} on a Ray node isn't a folder of its user's alone: remove it, or start the node with another TMPDIR"
        )
