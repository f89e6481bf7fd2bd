"""Tasks that may become more while an engine performs them: the rest of a long one, and those whose worker was lost."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from transom.target.jobs.engines.base import Engine, R, T, Work

WORKER_LOST = "WorkerLost"
_TRIES = 3
Added = TypeVar("Added")


class Tasks(Iterator[Added], Generic[Added]):
    """What is still to be handed out: first what was put in, then the rest."""

    def __init__(self, tasks: Iterable[Added]) -> None:
        self._tasks = iter(tasks)
        self._more: deque[Added] = deque()

    def add(self, task: Added) -> None:
        """Have one more performed."""
        self._more.append(task)

    def __next__(self) -> Added:
        return self._more.popleft() if self._more else next(self._tasks)


def perform(
    engine: Engine, work: Work[T, R], tasks: Tasks[T], *, width: int, look: Callable[[], None]
) -> Iterator[tuple[T, R | str]]:
    """Yield each task with its result, or with how its worker was lost, three times over.

    `look` is called after each, and a few times a second; what it raises ends it.
    """
    losses: Counter[int] = Counter()
    kept: dict[int, T] = {}  # so that an id stays a task's own
    with closing(engine.run(work, tasks, width=width, look=look)) as run:
        for finished in run:
            look()
            if finished.result is not None:
                yield finished.task, finished.result
                continue
            kept[id(finished.task)] = finished.task
            losses[id(finished.task)] += 1
            if losses[id(finished.task)] < _TRIES:
                tasks.add(finished.task)
            else:
                yield finished.task, finished.lost


def lost_message(how: str) -> str:
    """Say that a task's workers were lost, and how the last one was."""
    return f"its worker was lost each of {_TRIES} times: {how}"
