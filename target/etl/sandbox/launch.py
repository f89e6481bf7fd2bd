"""Runs programs in the best sandbox that this machine has, or refuses to."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from transom.target.errors import EtlUnavailable
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.sandbox.look import Found, look
from transom.target.etl.sandbox.program import Program
from transom.target.etl.sandbox.starting import Starter, Streams, user_of
from transom.target.etl.sandbox.ways import Bare


class SandboxUnavailable(EtlUnavailable):
    """Nothing that this machine has can confine a program; the message says what is missing."""


class Sandbox:
    """Starts programs. Callable from any thread. What still runs ends when it is closed, or its process ends.

    `folder` is for scratch folders, where a program has no file system of its own. Nothing below `hidden` is shown but
    what a program names itself. `marks` go into every environment. `found` takes the place of a look at the machine.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hidden: Iterable[Path] = (),
        marks: Mapping[str, str] | None = None,
        allow_unsandboxed: bool = False,
        found: Found | None = None,
    ) -> None:
        self._starter = Starter(folder, hidden, marks or {})
        self._allow_unsandboxed = allow_unsandboxed
        self._found = found
        self._looking = threading.Lock()

    @property
    def found(self) -> Found:
        """What there is here. Looks at the machine the first time."""
        with self._looking:
            if self._found is None:
                self._found = look(self._starter)
            return self._found

    @property
    def user(self) -> int | None:
        """The user that programs run as, as the whole machine sees it; None for this process's own."""
        return user_of(self.found.way)

    def folder(self) -> Path:
        """Make a folder that a program may be given to write to. Whoever asks removes it."""
        return self._starter.folder(self.found.way)

    def may_read(self, path: Path) -> bool:
        """Whether a program that is shown this file can read it."""
        if self.user is None:
            return os.access(path, os.R_OK)
        status = path.stat()
        if status.st_uid != self.user and not status.st_mode & stat.S_IROTH:
            return False
        way = self.found.way
        # With no file system of its own it has to find the way there.
        return way is None or not way.shares_files or all(each.stat().st_mode & stat.S_IXOTH for each in path.parents)

    def start(
        self,
        program: Program,
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> Confined:
        """Start a program. Raises SandboxUnavailable."""
        found = self.found
        way = found.way or (Bare() if self._allow_unsandboxed else None)
        if way is None:
            raise SandboxUnavailable(
                f"this machine can't confine it: {'; '.join(found.missing)}. An image runs in a container; "
                "'allow_unsandboxed = true' below [etl] in the configuration runs it with no sandbox at all"
            )
        try:
            return self._starter.start(way, found.home, program, Streams(stdin, stdout, stderr))
        except (OSError, ValueError) as error:
            raise SandboxUnavailable(f"its sandbox could not be made: {error}") from error

    def close(self) -> None:
        """End every program that still runs."""
        self._starter.close()
