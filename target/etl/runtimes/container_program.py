"""What a program of this machine is as a container: shown what the sandbox would show it, bounded as the sandbox would.

It asks no engine. What the first process tells at its end is read in `container_end`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from transom.target.etl.runtimes.container_plan import ContainerPlan, Mount
from transom.target.etl.sandbox import seccomp, system
from transom.target.etl.sandbox.bubblewrap import LOADER, loading
from transom.target.etl.sandbox.program import Program

# What starts the container's first process: it loads the sandbox's filter of system calls, on top of the engine's own.
# Those let through what leads out of a container without a network (AF_VSOCK), and namespaces of a user's own.
_FILTERING = """
import ctypes, os, signal, sys

class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

code = bytes.fromhex(sys.argv[1])
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(22, 2, ctypes.byref(Filter(len(code) // 8, code)), 0, 0):
    sys.exit(f"transom: no filter of system calls: {os.strerror(ctypes.get_errno())}")
for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by this Python, and so by what it becomes
    signal.signal(ignored, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""
# The container's first process. It lets the program be asked to end, which the kernel doesn't let a first process be,
# buries what that leaves behind, and says which limits were hit, which engines don't. It starts nothing else.
_FIRST = """
trap 'kill -TERM $_transom_program 2>/dev/null' TERM
"$@" &
_transom_program=$!
hit=
while :; do
    wait $_transom_program
    code=$?
    kill -0 $_transom_program 2>/dev/null || break
done
see() {
    [ -r "$2" ] && while read -r name count; do
        [ "$name" = "$1" ] && [ "$count" != 0 ] && hit="$hit $3=$count"
    done <"$2"
}
groups=/sys/fs/cgroup
see oom_kill $groups/memory.events memory
see oom_kill $groups/memory/memory.oom_control memory
see max $groups/pids.events processes
see max $groups/pids/pids.events processes
[ $code = 0 ] || [ -z "$hit" ] || echo "transom: refused by its limits:$hit" >&2
exit $code
"""
# Podman has memory to write to there, however read-only the rest is; what is hidden can't be written.
_WRITABLE = ("/run", "/var/tmp")  # noqa: S108
_ENGINES_OWN = (Path("/etc/resolv.conf"), Path("/etc/hosts"))


def plan_of_program(
    program: Program, image: str, *, etl: str, revision: int, mark: str, hidden: Iterable[Path] = (), port: int = 0
) -> ContainerPlan:
    """The container for a program. Nothing below `hidden` is shown but what the program names itself."""
    limits = program.limits
    shown = _shown(network=program.network)
    return ContainerPlan(
        etl=etl,
        image=image,
        folder=mark,
        revision=revision,
        command=(*_filtering(), *loading(program), "/bin/sh", "-c", _FIRST, "sh", *program.argv),
        env={name: value for name, value in program.environment().items() if not name.startswith(LOADER)},
        mounts=_mounts(shown, program),
        memory=limits.memory,
        cpus=limits.cpu,
        pids=limits.pids + 1,  # the first process
        files=limits.files,
        scratch=limits.scratch,
        output=limits.output,
        hidden=(*_WRITABLE, *(str(folder) for folder in hidden if any(map(folder.is_relative_to, shown)))),
        start_in=program.folder,
        network=program.network,
        port=port,
    )


def _filtering() -> tuple[str, ...]:
    if not seccomp.supported():
        return ()
    # Isolated: what the spec says of Python is for its own program, and may not keep this from its work.
    return (sys.executable, "-I", "-S", "-c", _FILTERING, seccomp.namespaced().hex())


def _shown(*, network: bool) -> tuple[Path, ...]:
    """What of the system is shown: but for links, which the image has, and files that engines write themselves."""
    folders = [path for path in system.FOLDERS if path.is_dir() and not path.is_symlink()]
    files = [path for path in system.files(network=network) if path not in _ENGINES_OWN]
    return (*folders, *files, *system.python())


def _mounts(shown: Iterable[Path], program: Program) -> tuple[Mount, ...]:
    """What is mounted, each path once: engines refuse to mount twice in a place."""
    writable = {**dict.fromkeys((*shown, *program.read), False), **dict.fromkeys(program.write, True)}
    return tuple(Mount(str(path.resolve()), writes, at=str(path)) for path, writes in writable.items())
