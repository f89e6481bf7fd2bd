"""Keeps a run's deadline where its transformer works long without giving anything out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from transom.plugins.contract import Context

_T = TypeVar("_T")


class Clock:
    """The time a run has left; it stands still while the consumer holds what was yielded through `over`."""

    def __init__(self, context: Context) -> None:
        self._deadline = context.deadline

    def left_s(self) -> float:
        """Seconds left to work."""
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Raise TimeoutError past the deadline."""
        if self.left_s() <= 0:
            raise TimeoutError("the deadline has passed")

    def over(self, pieces: Iterable[_T]) -> Iterator[_T]:
        """Pass the pieces on; the time until the next is asked for doesn't count."""
        for piece in pieces:
            handed_over = time.monotonic()
            yield piece
            self._deadline += time.monotonic() - handed_over
