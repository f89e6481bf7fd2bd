"""What each target's keeper says of its workers: one small file an ETL and target, under `run/workers`.

Keepers write them, everybody reads them; a reader remembers a file until it is replaced. It decides nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from transom.cluster.records import EtlRecord
from transom.target.etl.sandbox.ending import Bound
from transom.target.etl.transports.base import Address

WORKERS = Path("run") / "workers"
LOCAL = "local"  # the one target of a server that is gateway and target in one
WorkerState = Literal["initializing", "running", "failed", "idle", "stopped"]
UP: tuple[WorkerState, ...] = ("running", "idle")  # idle: stopped for want of work, started again on demand


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One revision's worker on one target. `message` is its own last words, where it failed or was restarted, and
    `bound` the limit that it had reached, if that was why.

    `confinement` is what it runs in, in words. `launch_ns` is the record's that it was started for, `since` when it
    came to this state, in epoch seconds. `cpu_s` and `memory_bytes` are what it used when last looked at, 0 where
    nobody could tell. `chunked` tells that it takes an input whose length isn't known beforehand; `public_port` is
    where clients that are sent to it come, if any are.
    """

    revision: int
    state: WorkerState
    launch_ns: int = 0
    address: Address | None = None
    pid: int = 0
    container: str = ""
    confinement: str = ""
    since: float = 0.0
    restarts: int = 0
    message: str = ""
    bound: Bound = ""
    cpu_s: float = 0.0
    memory_bytes: int = 0
    chunked: bool = False
    public_port: int = 0


@dataclass(frozen=True, slots=True)
class EtlStatus:
    """One ETL's workers on one target, the newest revision last."""

    etl: str
    revisions: tuple[WorkerStatus, ...] = ()

    def of(self, record: EtlRecord) -> WorkerStatus | None:
        """The worker of this very revision and start, or None."""
        for status in reversed(self.revisions):
            if status.revision == record.revision and status.launch_ns == record.launch_ns:
                return status
        return None

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> EtlStatus:
        """Parse `to_json`'s form; unknown fields are passed over. Raises ValueError."""
        try:
            data = json.loads(text)
            return cls(str(data["etl"]), tuple(_worker(item) for item in data["revisions"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a worker status: {error}") from error


@lru_cache(maxsize=1024)
def status_path(folder: Path, target: str, etl: str) -> Path:
    """Where a target's keeper says how an ETL's workers are; `folder` is the data folder."""
    return folder / WORKERS / target / f"{etl}.json"


def write_status(folder: Path, target: str, status: EtlStatus) -> None:
    """Replace the file; a reader sees the old or the new, never a part."""
    path = status_path(folder, target, status.etl)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(status.to_json())
            file.flush()
            # The file system's clock ticks slowly and reuses inodes: a time of our own tells two writes apart.
            now = time.time_ns()
            os.utime(file.fileno(), ns=(now, now))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def forget_status(folder: Path, target: str, etl: str) -> None:
    """Remove the file of an ETL that is gone."""
    status_path(folder, target, etl).unlink(missing_ok=True)


def read_status(folder: Path, etl: str) -> dict[str, EtlStatus]:
    """What every target's keeper says of one ETL, by the target's name."""
    found = {}
    for path in sorted((folder / WORKERS).glob(f"*/{etl}.json")):
        status = read_target(folder, path.parent.name, etl)
        if status is not None:
            found[path.parent.name] = status
    return found


def read_statuses(folder: Path, etl: str) -> list[dict[str, Any]]:
    """Every worker of an ETL on every target, JSON-ready, each with its target's name."""
    return [
        {"target": target, **asdict(worker)}
        for target, status in read_status(folder, etl).items()
        for worker in status.revisions
    ]


def read_target(folder: Path, target: str, etl: str) -> EtlStatus | None:
    """What one target's keeper says of an ETL; None where there is nothing, or nothing that can be read.

    Reading the same file again costs a stat.
    """
    path = str(status_path(folder, target, etl))
    try:
        found = os.stat(path)  # noqa: PTH116 - on the request path: Path.stat costs twice as much
        return _parsed(path, (found.st_mtime_ns, found.st_ino, found.st_size))
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _parsed(path: str, _seen: tuple[int, int, int]) -> EtlStatus:
    return EtlStatus.from_json(Path(path).read_bytes())


def _worker(item: Mapping[str, Any]) -> WorkerStatus:
    known = {name: item[name] for name in WorkerStatus.__dataclass_fields__ if name in item}
    address = known.get("address")
    if address is not None:
        known["address"] = Address(**{name: address[name] for name in Address.__dataclass_fields__ if name in address})
    return WorkerStatus(**known)
