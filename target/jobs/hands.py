"""Threads that can be left alone: whoever waits for a piece of work may stop waiting.

They are daemons, so one that never returns does not keep its process from ending. It knows nothing of jobs.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

_Handed = tuple[Callable[[], None], "Future[None]"]


class Hands:
    """Threads that are kept: each does one piece of work at a time, and there are as many as are needed at once."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[_Handed | None]] = []
        self._lock = threading.Lock()

    def do(self, work: Callable[[], None]) -> Future[None]:
        """Begin `work` in a thread that has nothing else to do."""
        future: Future[None] = Future()
        with self._lock:
            hand = self._idle.pop() if self._idle else None
        if hand is None:
            hand = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(hand,), name="transom-job", daemon=True).start()
        hand.put((work, future))
        return future

    def close(self) -> None:
        """Let idle threads end; those at work end with their process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for hand in idle:
            hand.put(None)

    def _serve(self, hand: queue.SimpleQueue[Any]) -> None:
        while (handed := hand.get()) is not None:
            work, future = handed
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:  # whatever it is, whoever waits has to hear of it
                error = raised
            with self._lock:
                self._idle.append(hand)
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
            del handed, work, future, error


def is_done(future: Future[None], within_s: float) -> bool:
    """Wait for a piece of work; whether it has ended."""
    return bool(wait([future], within_s).done)
