"""The places that a job's runs take among those of an ETL: only the upper half, so that GETs always find some.

The places are those of `transom.target.etl.limits`: shared by all processes, and freed when one dies.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from transom.target.errors import SlowDown
from transom.target.etl.limits import SLOTS, Limits, offset_of
from transom.target.etl.locks import ByteLocks
from transom.target.etl.plan import Plan

_POLL_S = (0.002, 0.1)
_PATIENCE_S = 600.0


class JobPlaces:
    """One process's hold on places. For any thread."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """`folder` is the data folder."""
        self._locks = ByteLocks(folder / SLOTS)
        self._concurrency = limits.concurrency
        self._lock = threading.Lock()

    def bounded(self, plan: Plan) -> tuple[tuple[str, int], ...]:
        """Which ETLs of a plan need a place, with how many each has: those that say so, and what runs apart."""
        stages = (s for s in plan.stages if s.concurrency or s.runtime not in ("plugin", "process"))
        return tuple(sorted({(stage.etl, stage.concurrency or self._concurrency) for stage in stages}))

    @asynccontextmanager
    async def holding(self, etls: Sequence[tuple[str, int]]) -> AsyncIterator[None]:
        """Hold a place of every (ETL, concurrency), in `bounded`'s order; raises SlowDown when none comes free."""
        taken: list[int] = []
        try:
            for etl, concurrency in etls:
                taken.append(await self._place(etl, concurrency))
            yield
        finally:
            with self._lock:
                for offset in taken:
                    self._locks.unlock(offset)

    def close(self) -> None:
        """Let go of everything."""
        self._locks.close()

    async def _place(self, etl: str, concurrency: int) -> int:
        base, share = offset_of(etl), max(1, concurrency // 2)
        give_up, pause_s = time.monotonic() + _PATIENCE_S, _POLL_S[0]
        while time.monotonic() < give_up:
            with self._lock:
                for offset in range(base + concurrency - share, base + concurrency):
                    if self._locks.try_lock(offset):
                        return offset
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause_s = min(pause_s * 1.5, _POLL_S[1])
        raise SlowDown(f"ETL '{etl}' is busy: no place came free in {_PATIENCE_S:g} s", etl=etl)
