"""Confines itself and becomes the program: a process of its own, started as `alone` says.

Reads what to do, as JSON, from a descriptor. Imports little: this is part of the start of every such program.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from transom.target.etl.sandbox import landlock

CANNOT = 96  # the exit code of a start that failed: the program has not run
MAPPED = 2 * 1024**3  # bytes of libraries and files that may be mapped beside a process's own memory
_LIMITS = {"memory": resource.RLIMIT_DATA, "output": resource.RLIMIT_FSIZE, "files": resource.RLIMIT_NOFILE}


def main() -> None:
    """Do as the JSON on the descriptor says. Never returns."""
    with os.fdopen(int(sys.argv[1]), "rb") as told:
        task = json.load(told)
    name = task["argv"][0]
    try:
        _confine(task)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by this Python, and so by what it becomes
            signal.signal(ignored, signal.SIG_DFL)
        os.execvpe(name, task["argv"], task["env"])  # noqa: S606 - it is what this is for
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else name
        sys.stderr.write(f"sandbox: {where}: {error.strerror or error}\n")
        sys.stderr.flush()
        os._exit(CANNOT)


def tasks_of(user: int) -> int:
    """How many processes and threads a user has now, as the kernel counts them for RLIMIT_NPROC."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - names
        try:
            if os.stat(f"/proc/{pid}").st_uid == user:  # noqa: PTH116 - pathlib takes long to import
                count += len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
        except OSError:
            continue
    return count


def _confine(task: dict[str, Any]) -> None:
    for door in task["doors"]:
        with open(door, "w") as entered:  # noqa: PTH123 - as above
            entered.write("0")
    user = task["user"]
    _set_limits(task["limits"], os.getuid() if user is None else user)
    os.umask(0o022)
    landlock.no_new_privileges()
    # While it may still enter every folder; where the user then can't, rights in them are of no use.
    landlock.restrict(task["read"], task["write"], task["devices"], network=task["network"])
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    os.chdir(task["folder"])
    landlock.end_with_parent(task["parent"])  # a change of user would undo it
    landlock.load_seccomp(bytes.fromhex(task["seccomp"]))


def _set_limits(limits: dict[str, int], user: int) -> None:
    bounds = {_LIMITS[name]: value for name, value in limits.items() if name in _LIMITS}
    if "memory" in limits:
        bounds[resource.RLIMIT_AS] = limits["memory"] + MAPPED
    if "pids" in limits:
        # The kernel counts all that the user runs, this program or not.
        bounds[resource.RLIMIT_NPROC] = tasks_of(user) + limits["pids"]
    for which, value in {**bounds, resource.RLIMIT_CORE: 0}.items():
        _, most = resource.getrlimit(which)
        bound = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(which, (bound, bound))
