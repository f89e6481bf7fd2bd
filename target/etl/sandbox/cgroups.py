"""Control groups, version 1 or 2: a group for each sandbox, so that its limits hold and it is known which one it hit.

Nothing here is needed for confinement; where no group can be made, rlimits have to do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transom.target.etl.sandbox.program import Limits

_PREFIX = "transom."
_CONTROLLERS = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1000  # the kernel takes no less
_PATIENCE_S = 5.0
_REMOVAL_S = 0.5
_PAUSE_S = 0.001
# The file by which a group's controller is known, and what tells what it refused.
_LIMITS = {
    1: {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"},
    2: {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"},
}
_OOM_EVENTS = {1: "memory.oom_control", 2: "memory.events"}
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a group's limits were hit: processes killed for memory, processes that could not be started."""

    oom: int = 0
    pids: int = 0


@dataclass(frozen=True, slots=True)
class Home:
    """Where groups can be made: a folder for each controller that can be had there."""

    version: int
    folders: Mapping[str, Path]

    def __str__(self) -> str:
        return f"cgroup v{self.version} ({', '.join(self.folders)})"

    def make(self, limits: Limits, beside: int) -> Group:
        """Make a group for a program that has `beside` processes of the sandbox's own around it."""
        name = f"{_PREFIX}{os.getpid()}.{next(_numbers)}"
        group = Group(self.version, {controller: folder / name for controller, folder in self.folders.items()})
        try:
            for folder in group.all:
                folder.mkdir()
            for path, value in settings(group, limits, beside):
                path.write_text(value)
        except BaseException:
            group.remove()
            raise
        return group


@dataclass(frozen=True, slots=True)
class Group:
    """One sandbox's group."""

    version: int
    folders: Mapping[str, Path]

    @property
    def all(self) -> tuple[Path, ...]:
        """Its folder in each hierarchy that it is in."""
        return tuple(dict.fromkeys(self.folders.values()))

    @property
    def doors(self) -> tuple[Path, ...]:
        """The files in which a process writes "0" to be in it."""
        return tuple(folder / "cgroup.procs" for folder in self.all)

    def hits(self) -> Hits:
        """What its limits did so far."""
        oom = _event(self.folders.get("memory"), _OOM_EVENTS[self.version], "oom_kill")
        return Hits(oom, _event(self.folders.get("pids"), "pids.events", "max"))

    def kill(self) -> None:
        """Kill every process in it, and wait until they are gone."""
        give_up = time.monotonic() + _PATIENCE_S
        while (pids := _pids(self.doors[0])) and time.monotonic() < give_up:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)

    def remove(self) -> None:
        """Remove it, for what was in it has ended. What can't be removed, a later process sweeps up."""
        give_up = time.monotonic() + _REMOVAL_S
        for folder in self.all:
            while not _removed(folder) and time.monotonic() < give_up:
                time.sleep(_PAUSE_S)


def find() -> Home | None:
    """Where this process may make groups for memory, and more if it can; None where it can't."""
    own = dict(_own_groups())
    hierarchies = _hierarchies()
    if "" in own and "" in hierarchies:
        folder = _usable_v2(*hierarchies[""], own[""])
        if folder is not None:
            return folder
    folders = {}
    for controller in _CONTROLLERS:
        if controller in own and controller in hierarchies:
            found = _usable(*hierarchies[controller], own[controller], _LIMITS[1][controller])
            if found is not None:
                folders[controller] = found
    return Home(1, folders) if "memory" in folders else None


def settings(group: Group, limits: Limits, beside: int) -> Iterator[tuple[Path, str]]:
    """What is to be written to which of a group's files."""
    files = _LIMITS[group.version]
    if limits.memory and "memory" in group.folders:
        folder = group.folders["memory"]
        yield folder / files["memory"], str(limits.memory)
        swap, value = ("memory.swap.max", "0") if group.version == 2 else ("memory.memsw.limit_in_bytes", None)  # noqa: PLR2004
        if (folder / swap).exists():
            yield folder / swap, value or str(limits.memory)
    if limits.pids and "pids" in group.folders:
        yield group.folders["pids"] / files["pids"], str(limits.pids + beside)
    if limits.cpu and "cpu" in group.folders:
        quota = str(max(int(limits.cpu * _PERIOD_US), _LEAST_QUOTA_US))
        yield group.folders["cpu"] / files["cpu"], f"{quota} {_PERIOD_US}" if group.version == 2 else quota  # noqa: PLR2004


def _own_groups() -> Iterator[tuple[str, str]]:
    """This process's group in each hierarchy, by controller; version 2's has an empty name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                yield controller, path


def _hierarchies() -> dict[str, tuple[Path, str]]:
    """Where each controller's hierarchy is mounted, and from which group on; version 2's has an empty name."""
    found: dict[str, tuple[Path, str]] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            root, point = fields.split(" ")[3:5]
            kind, _, options = rest.split(" ", 2)
            if kind == "cgroup2":
                found[""] = (Path(point), root)
            elif kind == "cgroup":
                found.update((option, (Path(point), root)) for option in options.split(",") if option in _CONTROLLERS)
    return found


def _ancestry(point: Path, root: str, path: str) -> Iterator[Path]:
    """The folder of a group and of those above it, as far as they are mounted."""
    try:
        relative = Path(path).relative_to(root)
    except ValueError:
        relative = Path()
    folder = point / relative
    while folder.is_relative_to(point):
        yield folder
        folder = folder.parent


def _usable(point: Path, root: str, path: str, limit: str) -> Path | None:
    """The nearest group below which one with a given limit can be made."""
    for folder in _ancestry(point, root, path):
        if limit in _offered(folder):
            return folder
    return None


def _usable_v2(point: Path, root: str, path: str) -> Home | None:
    for folder in _ancestry(point, root, path):
        offered = _offered(folder)
        if offered and _LIMITS[2]["memory"] not in offered:
            _hand_on(folder)
            offered = _offered(folder)
        folders = {name: folder for name, limit in _LIMITS[2].items() if limit in offered}
        if "memory" in folders:
            return Home(2, folders)
    return None


def _hand_on(folder: Path) -> None:
    """Let a group's own groups have its controllers; the kernel refuses while processes are in it itself."""
    for controller in _CONTROLLERS:
        with contextlib.suppress(OSError):
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _offered(folder: Path) -> set[str]:
    """What files a group made in `folder` has; none where none can be made. Sweeps up what dead processes left."""
    if not os.access(folder, os.W_OK):
        return set()
    _sweep(folder)
    trial = folder / f"{_PREFIX}{os.getpid()}.{next(_numbers)}"
    try:
        trial.mkdir()
    except OSError:
        return set()
    try:
        return {path.name for path in trial.iterdir()}
    finally:
        trial.rmdir()


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        pid = left.name.split(".")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):  # not empty: something still runs in it
                left.rmdir()


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # processes count until the last of them is forgotten
        return False
    return True


def _event(folder: Path | None, file: str, name: str) -> int:
    if folder is not None:
        with contextlib.suppress(OSError):
            for line in (folder / file).read_text().splitlines():
                key, _, count = line.partition(" ")
                if key == name:
                    return int(count)
    return 0


def _pids(door: Path) -> list[int]:
    try:
        return [int(pid) for pid in door.read_text().split()]
    except OSError:
        return []
