"""What is to run in a sandbox, what it may see there and how much it may use: plain values, no system calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SCRATCH = "/tmp"  # noqa: S108 - inside the sandbox, where it is a file system of its own
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a program and all it starts may use. Sizes in bytes, `cpu` in cores, 0 for no limit.

    `output` is of each file that it writes, `scratch` of what is in its /tmp; `wall_s` seconds from its start. `files`
    is how many a process may have open.
    """

    memory: int = GIB
    cpu: float = 0.0
    pids: int = 64
    output: int = 0
    wall_s: float = 0.0
    scratch: int = 256 * MIB
    files: int = 1024


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run. It sees the system's programs and libraries, and of all else only what is named here.

    `env` is its whole environment, but for the defaults of `environment`. `read` are files and folders it may read,
    `write` those it may write to as well, both at the paths they have outside; what is in `write` becomes the sandbox
    user's. It starts in `folder`. Without `network` there is a loopback of its own at most. One that `serves` many at
    once does not take a core from its clients the moment it is woken.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    folder: str = SCRATCH
    network: bool = False
    serves: bool = False
    limits: Limits = field(default_factory=Limits)

    def environment(self, scratch: str = SCRATCH) -> dict[str, str]:
        """The environment it runs in, where its scratch folder is `scratch`."""
        return {"PATH": PATH, "HOME": scratch, "TMPDIR": scratch, "USER": "nobody", "LANG": "C.UTF-8", **self.env}


def in_words(size: int) -> str:
    """A size as people say it: `256 MiB`, `1.5 GiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"
