"""Runs programs of this machine as containers, once a trial has shown that the engine's containers confine them.

It knows nothing of what the programs are.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from transom.target.etl.runtimes.base import Order, StartError
from transom.target.etl.runtimes.container_end import Exit
from transom.target.etl.runtimes.container_program import plan_of_program
from transom.target.etl.runtimes.container_root import root
from transom.target.etl.runtimes.containers import EVERYWHERE, Containers, ContainerWorker, log_of
from transom.target.etl.runtimes.namespaces import can_enter_namespaces
from transom.target.etl.sandbox import system
from transom.target.etl.sandbox.look import CONFINED
from transom.target.etl.sandbox.program import MIB, Limits, Program

_TRIAL_S = 20.0
_TRIAL_LIMITS = Limits(memory=256 * MIB, pids=511)  # gVisor takes no fewer than 512
_SOCKETS_IN = "/tmp"  # noqa: S108 - as the keeper has its own, for a socket's path has 107 characters at most
# What is tried: this machine's Python runs, a socket that it makes is seen outside, and it tells how it is confined.
_TRIAL = """
import ctypes, socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])
print(open("/proc/self/status").read())
print("Namespaces:", "refused" if ctypes.CDLL(None).unshare(0x10000000) else "made")
try:
    print("Vsock:", "made" if socket.socket(40, socket.SOCK_STREAM) else "")
except OSError:
    print("Vsock: refused")
for name, path in [
    *(("Memory", "memory.max"), ("Memory", "memory/memory.limit_in_bytes")),
    *(("Pids", "pids.max"), ("Pids", "pids/pids.max")),
]:
    try:
        print(f"{name}:", open(f"/sys/fs/cgroup/{path}").read().strip())
    except OSError:
        pass
"""
_FIELD = re.compile(r"^(\w+):\s*(\S+)", re.MULTILINE)


class Contained:
    """Runs programs in the containers of an engine. Callable from several threads; every call may block.

    Nothing below `hidden` is shown but what a program names itself. A trial's container has `mark`, to be reaped by.
    """

    def __init__(self, containers: Containers, hidden: Sequence[Path] = (), mark: str = "") -> None:
        self._containers = containers
        self._mark = mark
        self._hidden = tuple(path.absolute() for path in hidden)
        self._tried: set[bool] = set()
        self._trying = threading.Lock()

    def check(self, *, network: bool) -> None:
        """See that programs can be run here, with a network or without: by a trial, the first time.

        Raises StartError with what is missing.
        """
        with self._trying:
            if network not in self._tried:
                self._try(network=network)
                self._tried.add(network)

    def forget(self) -> None:
        """Try anew before the next program: the engine may be another."""
        with self._trying:
            self._tried.clear()

    def start(self, order: Order, program: Program, *, public: bool = False) -> ContainerWorker:
        """Start a worker; with `public` clients are sent to its port. Raises StartError."""
        self.check(network=program.network)
        engine = self._containers.engine()
        image = engine.load(root().reference, root().archive)
        plan = plan_of_program(
            program,
            image=root().reference,
            etl=order.etl,
            revision=order.revision,
            mark=order.mark,
            hidden=self._hidden,
            port=order.port,
        )
        plan = replace(plan, runtime=self._containers.runtime, published=EVERYWHERE if public else plan.published)
        enters = can_enter_namespaces()
        words = engine.words(self._containers.runtime)  # asked first: what it may raise must leave no container behind
        container = engine.start(plan, image, log_of(order))
        return ContainerWorker(
            container,
            order,
            enters=enters,
            network=program.network,
            confinement=words,
            limits=program.limits,
        )

    def _try(self, *, network: bool) -> None:
        engine = self._containers.engine()
        image = engine.load(root().reference, root().archive)
        with _folder() as folder, _pipe() as (reader, writer):
            program = Program(
                argv=(sys.executable, "-c", _TRIAL, str(folder / "trial.sock")),
                write=(folder,),
                network=network,
                limits=_TRIAL_LIMITS,
            )
            plan = plan_of_program(program, root().reference, etl="trial", revision=0, mark=self._mark)
            plan = replace(plan, runtime=self._containers.runtime)
            container = engine.start(plan, image, os.fdopen(os.dup(writer), "wb", buffering=0))
            try:
                how = container.wait(_TRIAL_S)
            finally:
                container.remove()
            problem = self._shortcoming(_said(reader), how, folder / "trial.sock")
        if problem:
            raise StartError(f"{engine.words(self._containers.runtime)} does not do for programs: {problem}")

    def _shortcoming(self, said: str, how: Exit | None, socket: Path) -> str:
        """Why a trial does not convince, empty if it does."""
        told = dict(_FIELD.findall(said))
        if how is None:
            return "a trial took too long"
        if how.code or "CapEff" not in told:
            return said.strip().rpartition("\n")[2] or f"a trial ended with {how}"
        if not (socket.exists() and stat.S_ISSOCK(socket.stat().st_mode)):
            return "its containers are not of this machine: a socket made in one is not seen here"
        wanted = {"Uid": str(system.USER), "CapEff": CONFINED["CapEff"]}
        if not self._containers.runtime:  # one that was asked for may have means of its own
            wanted |= {**CONFINED, "Namespaces": "refused", "Vsock": "refused"}
        limits = {"Memory": str(_TRIAL_LIMITS.memory), "Pids": str(_TRIAL_LIMITS.pids + 1)}
        wanted |= {name: value for name, value in limits.items() if name in told}
        lax = [name for name, value in wanted.items() if told.get(name) != value]
        return f"it does not confine them: {', '.join(lax)}" if lax else ""


@contextmanager
def _folder() -> Iterator[Path]:
    """A short folder for one container to write to, which nobody else finds the way to."""
    above = Path(tempfile.mkdtemp(prefix="transom-", dir=_SOCKETS_IN))
    try:
        folder = above / "trial"
        folder.mkdir()
        folder.chmod(0o777)  # whoever the container's user is; `above` is closed
        yield folder
    finally:
        shutil.rmtree(above, ignore_errors=True)


def _said(reader: int) -> str:
    """What is in a pipe by now."""
    os.set_blocking(reader, False)
    with suppress(BlockingIOError):
        return os.read(reader, 64 * 1024).decode(errors="replace")
    return ""


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
