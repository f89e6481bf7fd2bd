"""When a worker that died is started again, and when it has died too often. It looks at no clock but the one given."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STEADY_S = 10.0  # a worker that was well for so long begins anew
MOST = 5
WITHIN_S = 60.0


@dataclass(slots=True)
class Restarts:
    """One worker's deaths; times in seconds of one monotonic clock."""

    count: int = 0
    _pause_s: float = FIRST_PAUSE_S
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MOST))

    def died(self, now: float, well_for_s: float, *, at_work: bool) -> float | None:
        """Note a death; how many seconds to wait before the next start, None for no more starts.

        One that died `at_work` may have died of the object in hand: that can't be held against it for good, for then
        whoever puts such an object could end an ETL for all.
        """
        if well_for_s >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        if not at_work:
            self._deaths.append(now)
            if len(self._deaths) == MOST and now - self._deaths[0] <= WITHIN_S:
                return None
        self.count += 1
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        return pause_s
