"""What bounds one run: its deadline, whether anybody still wants it, and which of its stages is at work.

Shared between the run's thread and the event loop. Time spent waiting for a slow client is not the transformer's.
"""

from __future__ import annotations

import threading
import time

from transom.target.errors import EtlTimeout


class AbandonedError(Exception):
    """Nobody wants the run's output any more."""


class Watch:
    """One run's bounds; `pipeline` names it in messages, `timeout_s` is how long its stages may work in all."""

    def __init__(self, pipeline: str, timeout_s: float) -> None:
        self.pipeline = pipeline
        self.timeout_s = timeout_s
        self.stage = ""  # the ETL at work: set by the pipeline as control passes between stages
        self._end = time.monotonic() + timeout_s
        self._paused_at: float | None = None
        self._abandoned = False
        self._unsettled = threading.Lock()

    @property
    def deadline(self) -> float:
        """When the run must have ended, in seconds of `time.monotonic()`; later after every pause."""
        return self._end

    def left_s(self) -> float:
        """Seconds left; they stand still during a pause."""
        return self._end - (self._paused_at or time.monotonic())

    def check(self) -> None:
        """Raise EtlTimeout past the deadline, AbandonedError once nobody wants the output."""
        if self._abandoned:
            raise AbandonedError
        if self.left_s() <= 0:
            raise self.timeout()

    def timeout(self) -> EtlTimeout:
        """The error of a run that passed its deadline, naming the stage at work."""
        etl = self.stage or self.pipeline
        return EtlTimeout(f"ETL '{etl}' passed its deadline of {self.timeout_s:g} s", etl=self.stage)

    def pause(self) -> None:
        """Stop the clock: the run waits for its client."""
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Start the clock again."""
        if self._paused_at is not None:
            self._end += time.monotonic() - self._paused_at
            self._paused_at = None

    def abandon(self) -> None:
        """Say that nobody wants the output; the run stops at its next look."""
        self._abandoned = True

    def settle(self) -> bool:
        """Claim the right to decide the run's outcome: True for the first who asks, False ever after."""
        return self._unsettled.acquire(blocking=False)
