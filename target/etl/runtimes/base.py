"""What a keeper asks of a served runtime: start a worker, say how it fares, stop it.

It knows nothing of the catalog, of health or of restarts: those are the keeper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transom.target.etl.sandbox.ending import Bound
from transom.target.etl.spec import Spec
from transom.target.etl.transports.base import Address

MARK = "TRANSOM_WORKER_OF"  # in the environment of every child process: the folder id of its keeper
LABEL = "transom.folder"  # the same on a container


class StartError(Exception):
    """The worker could not be started at all. The message is public; with `final` it is no use to try again."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True)
class Order:
    """One worker to start.

    `folder` is short, exists, and is the worker's own: its sockets live there, and nothing else of the host need be
    writable. `files` is to be readable at this very path, and no more than that: the objects being transformed appear
    in it, where the spec asks for direct file access; None otherwise. `env` is all the environment it gets, beside what
    its sandbox or image brings. `port` is where it should listen if it listens on TCP: the spec's own in a network
    namespace of its own, a free one of the host else. What it prints goes to `log_fd`, which stays the keeper's to
    close. `mark` is the keeper's folder id.
    """

    etl: str
    revision: int
    spec: Mapping[str, Any]
    folder: Path
    files: Path | None
    env: Mapping[str, str]
    port: int
    log_fd: int
    mark: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker has used: CPU seconds since its start, and bytes of memory now, all its processes together."""

    cpu_s: float
    memory: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended, in words ("exit code 3", "signal 9"), and the limit that was the cause, if one was."""

    words: str
    bound: Bound = ""

    def __str__(self) -> str:
        return self.words


class Running(Protocol):
    """A worker that was started. Callable from several threads."""

    @property
    def pid(self) -> int:
        """Its first process, as this machine counts; 0 where nobody knows."""

    @property
    def container(self) -> str:
        """The engine's id of it, empty for a process."""

    @property
    def confinement(self) -> str:
        """What confines it, in words for an administrator."""

    @property
    def hint(self) -> str:
        """Why it may never be reached, and the remedy, in words for an administrator; "" where it can be."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it may come to listen, the best first."""

    def ended(self, words: str = "") -> Ended | None:
        """None while it runs, else how it ended; `words` are the last that it printed. Never blocks."""

    def usage(self) -> Usage | None:
        """What it uses; None where that can't be told. May block for a moment."""

    def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill what is left after `grace_s`; nothing of it runs on return. Blocking."""


class Launcher(Protocol):
    """Starts workers of one runtime."""

    def own_network(self, spec: Spec) -> bool:
        """Whether a worker of this spec gets a network namespace of its own. May block. Raises StartError."""

    def start(self, order: Order) -> Running:
        """Start a worker. Blocking, and for long where something must be installed or fetched. Raises StartError."""

    def reap(self, mark: str) -> None:
        """End what a killed keeper of the same folder left behind. Blocking."""
