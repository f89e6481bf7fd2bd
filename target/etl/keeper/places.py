"""Where a target's workers have their things: what keeper, server processes and the management REST agree on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transom.target.etl.workers_status import LOCAL, WORKERS

PULL_PREFIX = "/v1/etl/_object/"  # AIStore's own: its workers need nothing else changed


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of one target's workers below the data folder, and the numbers of what is held about them."""

    folder: Path
    target: str = LOCAL

    @property
    def status(self) -> Path:
        """The folder of what the keeper says of each ETL's workers, a file each."""
        return self.folder / WORKERS / self.target

    @property
    def uses(self) -> Path:
        """Holds: a run holds `use_offset` of the workers it is going to need."""
        return self.folder / WORKERS / f"{self.target}.uses"

    @property
    def pulls(self) -> Path:
        """Holds, of all targets together: a run holds `pull_offset` of what its worker may fetch."""
        return self.folder / WORKERS / "pulls"

    @property
    def scratch(self) -> Path:
        """The folder of what workers may write, where they have no file system of their own for it."""
        return self.folder / "run" / "scratch" / self.target

    @property
    def environments(self) -> Path:
        """The folder of what uploaded code has installed, which all targets share."""
        return self.folder / "environments"

    @property
    def logs(self) -> Path:
        """The folder of what workers print, a file for each ETL."""
        return self.folder / "logs" / self.target

    @property
    def mark(self) -> str:
        """The folder id that every child process carries, so that a later keeper knows what a killed one left."""
        digest = hashlib.sha256(str(self.folder.absolute()).encode()).hexdigest()
        return f"{digest[:16]}:{self.target}"

    @property
    def files_folder(self) -> Path:
        """The folder of all `files` folders."""
        return self.folder / "run" / "files" / self.target

    def files(self, etl: str, revision: int) -> Path:
        """The folder in which a worker with direct file access sees the objects it transforms."""
        return self.files_folder / f"{etl}.{revision}"

    def wanted(self, etl: str, revision: int) -> Path:
        """The file whose age says when a run last began or ended."""
        return self.status / f"{etl}.{revision}.wanted"

    def forget(self, etl: str, revision: int) -> None:
        """Remove what was there for a revision that has no worker any more."""
        shutil.rmtree(self.files(etl, revision), ignore_errors=True)
        self.wanted(etl, revision).unlink(missing_ok=True)


def target_path(etl: str, secret: str) -> str:
    """The path of `AIS_TARGET_URL`: a worker puts `/BUCKET/KEY` behind it."""
    return f"{PULL_PREFIX}{etl}/{secret}"


@lru_cache(maxsize=1024)
def use_offset(etl: str, revision: int) -> int:
    """The number under which a revision's worker is held."""
    return _offset([etl, revision])


def pull_offset(etl: str, bucket: str, key: str, etag: str) -> int:
    """The number under which one version of an object is held for an ETL's worker to fetch."""
    return _offset([etl, bucket, key, etag])


def _offset(parts: list[str | int]) -> int:
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 4  # a file offset is a signed 64-bit number
