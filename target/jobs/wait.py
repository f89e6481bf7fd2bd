"""How long to wait before what can't be had is tried again, and whether there is something new to say of it. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass

_MOST_S = 300.0
_DOUBLINGS = 20


@dataclass(slots=True)
class Wait:
    """Why something can't be had now, and until when (`time.monotonic`) it isn't tried again."""

    reason: str = ""
    tries: int = 0
    until: float = 0.0

    def begin(self, reason: str, first_s: float) -> bool:
        """Wait, each time twice as long, at first `first_s`; whether it is for another reason than the last time."""
        self.until = time.monotonic() + min(first_s * 2.0 ** min(self.tries, _DOUBLINGS), _MOST_S)
        self.tries += 1
        before, self.reason = self.reason, reason
        return reason != before

    @property
    def is_over(self) -> bool:
        """Whether it may be tried again."""
        return time.monotonic() >= self.until
