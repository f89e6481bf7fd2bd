"""What an engine is: it performs a job's tasks in workers that open a site of their own, and says which were lost.

It knows nothing of what a task does. `transom.target.jobs.engines.conformance` is the suite every engine must pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from transom.target.errors import TargetError
from transom.target.jobs.site import Site

Opener = Callable[[], Site]
"""Opens the site of a worker, in that worker's process; it can be pickled."""


class Task(Protocol):
    """A piece of work that can be pickled; `place` names the target near which it is best done, "" for anywhere."""

    @property
    def place(self) -> str: ...  # noqa: D102


class Result(Protocol):
    """What a task gave; `worn_out` says that its worker must not be used again: something hangs in it."""

    @property
    def worn_out(self) -> bool: ...  # noqa: D102


T = TypeVar("T", bound=Task)
R = TypeVar("R", bound=Result)
T_contra = TypeVar("T_contra", bound=Task, contravariant=True)
R_co = TypeVar("R_co", bound=Result, covariant=True)


class Work(Protocol[T_contra, R_co]):
    """How a task is done; can be pickled. It returns what went wrong with objects as part of its result.

    What it raises (a TargetError, or anything unforeseen) fails the job.
    """

    def __call__(self, site: Site, task: T_contra, /) -> R_co:
        """Perform a task; blocking."""


@dataclass(frozen=True, slots=True)
class Later(Generic[R]):
    """The result of a task of which only waiting is left: `wait` does that, in any thread, and returns it."""

    wait: Callable[[], R]


class StagedWork(Work[T_contra, R], ABC):
    """Work whose tasks may end with a wait, while which a worker can do the next."""

    @abstractmethod
    def begin(self, site: Site, task: T_contra, /) -> R | Later[R]:
        """Perform a task as far as there is something to do; blocking."""

    def __call__(self, site: Site, task: T_contra, /) -> R:
        """Perform a task; blocking."""
        result = self.begin(site, task)
        return result.wait() if isinstance(result, Later) else result


@dataclass(frozen=True, slots=True)
class Finished(Generic[T, R]):
    """A task that came back: with its result, or `lost` saying how its worker ended ("signal 9")."""

    task: T
    result: R | None
    lost: str = ""


class EngineUnavailable(TargetError):
    """The engine can't be used as things are; the message says what to do about it."""


class WorkFailed(Exception):
    """What work raised in a worker, as text: the cause of that error here, or in its place if it can't be brought."""


class Engine(ABC):
    """Performs tasks. For one job, in the process that runs it; make it with the job's `Opener`."""

    @property
    def places(self) -> Sequence[str]:
        """The targets that tasks may prefer; empty where there is nothing to choose."""
        return ()

    def place_of(self, bucket: str, key: str) -> str:  # noqa: ARG002 - where there is nothing to choose
        """Which of `places` an object is best worked on at, "" for any."""
        return ""

    @property
    @abstractmethod
    def cores(self) -> int:
        """How many tasks it can perform at once without their waiting for each other: a `width` that suits it."""

    @abstractmethod
    def run(
        self, work: Work[T, R], tasks: Iterable[T], *, width: int, look: Callable[[], None] | None = None
    ) -> Generator[Finished[T, R], None, None]:
        """Perform every task, at most `width` at a time; yield each exactly once, in any order, as it comes back.

        `tasks` is taken as workers come free, never all at once. It may be extended by what was yielded: an iterator
        that has no more is asked again after each task that came back. Raises what `work` raised. `look` is called
        while nothing comes back, a few times a second; what it raises ends the run. Closing the generator stops the
        workers at once.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers; safe to call twice."""
