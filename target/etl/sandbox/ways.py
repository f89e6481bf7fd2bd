"""What the ways into a sandbox share: what surrounds a program, how its start is written, and the first stage of it."""

from __future__ import annotations

import os
import resource
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from transom.target.etl.sandbox.confine import CANNOT, MAPPED
from transom.target.etl.sandbox.program import KIB, SCRATCH, Program

_BLOCK = 512  # what POSIX shells count file sizes in


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around one program: where its control group is entered, and which limits that counts.

    `scratch` is a folder of its own, for ways that have no file system for it. Nothing below `hidden` is to be seen,
    but what the program names itself. `marks` go into the environment. `others` are processes that the limit of the
    program's user must leave room for.
    """

    doors: tuple[Path, ...] = ()
    counted: Collection[str] = ()
    scratch: Path = Path(SCRATCH)
    hidden: tuple[Path, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    others: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A command line, and the descriptors that it inherits and nobody else needs."""

    argv: list[str]
    fds: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class Way(Protocol):
    """A way to confine a program."""

    @property
    def beside(self) -> int:
        """How many processes of its own stay around the program, one in the other."""

    @property
    def steps_down(self) -> bool:
        """Whether what root starts runs as nobody, for the whole machine."""

    @property
    def shares_files(self) -> bool:
        """Whether there is no file system of its own around the program, so that it needs a scratch folder."""

    def start_of(self, program: Program, surroundings: Surroundings) -> Start:
        """How to start a program."""


@dataclass(frozen=True, slots=True)
class Bare:
    """No confinement: limits only, as far as they go. For those who said that they want it so."""

    beside: ClassVar[int] = 0
    steps_down: ClassVar[bool] = False
    shares_files: ClassVar[bool] = True

    def __str__(self) -> str:
        return "no sandbox"

    def start_of(self, program: Program, surroundings: Surroundings) -> Start:
        """How to start a program."""
        scratch = str(surroundings.scratch)
        argv = [*entering(program, surroundings), "/bin/sh", "-c", 'cd "$0" && exec "$@"']
        folder = scratch if program.folder == SCRATCH else program.folder
        return Start([*argv, folder, *program.argv], env=program.environment(scratch))


def in_memory(data: bytes) -> int:
    """A descriptor to read `data` from, which a child can inherit."""
    fd = os.memfd_create("transom", 0)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def entering(program: Program, surroundings: Surroundings) -> list[str]:
    """The first stage of a start, which becomes the second: it enters the control group and sets what is inherited."""
    limits = program.limits
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines = [f"echo 0 >{shlex.quote(str(door))} || exit {CANNOT}" for door in surroundings.doors]
    lines += ["umask 022", "ulimit -c 0", f"ulimit -n {min(limits.files, most)}"]
    if limits.output:
        lines.append(f"ulimit -f {-(-limits.output // _BLOCK)}")
    if limits.memory and "memory" not in surroundings.counted:
        lines += [f"ulimit -d {limits.memory // KIB}", f"ulimit -v {(limits.memory + MAPPED) // KIB}"]
    return ["/bin/sh", "-c", "; ".join([*lines, 'exec "$@"']), "sh"]
