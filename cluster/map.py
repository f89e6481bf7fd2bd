"""The cluster map: the versioned list of targets, and the file that processes share it by.

One supervisor writes the file, whole, by rename; everyone else reads it. It must not know who owns which key.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

State = Literal["up", "down"]
MAX_PORT = 65535


class ClusterMapError(Exception):
    """The cluster map can't be read, or says something a map can't say."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target's public listener; `weight` is its share relative to the others."""

    id: str
    host: str
    port: int
    weight: float = 1.0
    state: State = "up"

    def __post_init__(self) -> None:
        if not self.id or not self.host:
            raise ClusterMapError("a target needs an id and a host")
        if not 0 < self.port <= MAX_PORT:
            raise ClusterMapError(f"target {self.id}: {self.port} is no port")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ClusterMapError(f"target {self.id}: a weight is a number above 0, not {self.weight}")
        if self.state not in ("up", "down"):
            raise ClusterMapError(f"target {self.id}: a state is up or down, not {self.state!r}")


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """All targets at one moment; a higher `version` is newer, 0 is the map before any was written."""

    version: int = 0
    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        ids = [target.id for target in self.targets]
        if len(set(ids)) != len(ids):
            raise ClusterMapError("two targets have one id")

    def target(self, target_id: str) -> Target | None:
        """The target of that id, or None."""
        return next((target for target in self.targets if target.id == target_id), None)

    def with_target(self, target: Target) -> ClusterMap:
        """The next version, with `target` in the place of the one with its id, or added."""
        if self.target(target.id) is None:
            return ClusterMap(self.version + 1, (*self.targets, target))
        return ClusterMap(self.version + 1, tuple(target if old.id == target.id else old for old in self.targets))

    def with_state(self, target_id: str, state: State) -> ClusterMap:
        """The next version, with one target up or down; this very map if it already is."""
        target = self.target(target_id)
        if target is None:
            raise ClusterMapError(f"no target {target_id!r}")
        return self if target.state == state else self.with_target(replace(target, state=state))

    def without(self, target_id: str) -> ClusterMap:
        """The next version, with one target gone."""
        return ClusterMap(self.version + 1, tuple(target for target in self.targets if target.id != target_id))

    def to_json(self) -> str:
        """The map as the file holds it."""
        return json.dumps({"version": self.version, "targets": [asdict(target) for target in self.targets]}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> ClusterMap:
        """Parse `to_json`'s form. Raises ClusterMapError."""
        try:
            data = json.loads(text)
            return cls(int(data["version"]), tuple(_target(item) for item in data["targets"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ClusterMapError(f"not a cluster map: {error}") from error


def _target(item: dict[str, Any]) -> Target:
    known = {"id": str, "host": str, "port": int, "weight": float, "state": str}
    if unknown := sorted(item.keys() - known.keys()):
        raise ClusterMapError(f"unknown keys of a target: {', '.join(unknown)}")
    return Target(**{name: known[name](value) for name, value in item.items()})


class MapFile:
    """The map's file. `current` costs one stat when nothing has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._map = ClusterMap()

    def current(self) -> ClusterMap:
        """The newest map; an empty one of version 0 where there is no file. Raises ClusterMapError."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - on the request path: Path.stat costs twice as much
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._map = ClusterMap.from_json(self.path.read_bytes())
                # Set only now: after an error the next call reads again, as it does if the file was replaced meanwhile.
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._map = None, ClusterMap()
        return self._map

    def save(self, cluster_map: ClusterMap) -> None:
        """Replace the file; a reader sees the old map or the new one, never a part."""
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(cluster_map.to_json())
                file.flush()
                # The file system's clock ticks slowly and reuses inodes: a time of our own tells two saves apart.
                now = time.time_ns()
                os.utime(file.fileno(), ns=(now, now))
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                temporary.replace(self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
