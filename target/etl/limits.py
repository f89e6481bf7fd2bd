"""How much may run at once: slots and a bounded queue per ETL, and the circuit that opens when it keeps failing.

Slots are shared by all processes of a data folder: a byte lock each, so a killed process frees its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.target.errors import EtlUnavailable, SlowDown
from transom.target.etl.locks import ByteLocks

SLOTS = Path("run") / "slots"  # the locks, in a data folder
_POLL_FIRST_S = 0.002
_POLL_MAX_S = 0.05
_CIRCUIT_FAILURES = 5
_CIRCUIT_OPEN_S = 15
_TICKETS = 1_000_000  # where the queue's locks begin, beyond those of the places


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a target's ETLs; times in seconds, sizes in bytes."""

    concurrency: int = 8
    queue: int = 256
    timeout_s: float = 60.0
    wait_s: float = 20.0
    max_output: int = 16 * 1024**3
    max_memory: int = 1024**3
    gil_inline_size: int = 64 * 1024


class Slot:
    """A place among the runs of one ETL; `release` may be called late, when a lost thread comes back."""

    def __init__(self, locks: ByteLocks, offsets: Sequence[int]) -> None:
        self._locks = locks
        self._offsets = list(offsets)

    def release(self) -> None:
        """Give the place back; safe to call twice."""
        while self._offsets:
            self._locks.unlock(self._offsets.pop())


@dataclass(slots=True)
class Gate:
    """Lets a bounded number of runs of each ETL through, queues a bounded number, refuses the rest."""

    locks: ByteLocks
    limits: Limits
    catalog: Catalog
    _lost: Counter[str] = field(default_factory=Counter)

    async def enter(self, etls: Sequence[tuple[str, int]], deadline: float) -> Slot:
        """Wait for a place in every (ETL, concurrency); raises SlowDown, EtlUnavailable.

        Places are taken in one order by everybody, so two pipelines can't wait for each other.
        """
        taken: list[int] = []
        try:
            for etl, concurrency in sorted(set(etls)):
                self.check(etl, concurrency)
                taken.append(await self._place(etl, concurrency, deadline))
        except BaseException:
            Slot(self.locks, taken).release()
            raise
        return Slot(self.locks, taken)

    def check(self, etl: str, concurrency: int) -> None:
        """Raise EtlUnavailable while the ETL's circuit is open."""
        lost = self._lost.get(etl, 0)  # a Counter makes up what is missing, slowly
        if lost >= max(1, concurrency // 2):
            raise EtlUnavailable(
                f"ETL '{etl}' is unavailable: {lost} runs passed their deadline and have not returned yet",
                retry_after_s=_CIRCUIT_OPEN_S,
            )
        circuit = self.catalog.snapshot().circuits.get(etl)
        if circuit is not None and circuit.is_open(time.time_ns()):
            raise EtlUnavailable(
                f"ETL '{etl}' is unavailable: its last {circuit.failures} runs crashed or timed out",
                retry_after_s=_CIRCUIT_OPEN_S,
            )

    def has_failed(self, etl: str) -> bool:
        """Whether failures of the ETL are on record."""
        return etl in self.catalog.snapshot().circuits

    def succeeded(self, etls: Sequence[str]) -> None:
        """Note a run that ended as it should; its ETLs' circuits close. Blocking."""
        for etl in etls:
            self.catalog.record_success(etl)

    def broke(self, etl: str) -> None:
        """Note a crash or timeout; after several in a row the circuit opens for a while. Blocking."""
        self.catalog.record_failure(etl, threshold=_CIRCUIT_FAILURES, open_for_ns=_CIRCUIT_OPEN_S * 1_000_000_000)

    def lost(self, etl: str, by: int) -> None:
        """Count runs that passed their deadline in a thread that can't be stopped, or that came back (-1)."""
        self._lost[etl] += by

    async def _place(self, etl: str, concurrency: int, deadline: float) -> int:
        base = offset_of(etl)
        offset = self._try_places(base, concurrency)
        if offset is not None:
            return offset
        async with self._queued(etl, base):
            pause = _POLL_FIRST_S
            while time.monotonic() < deadline:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 1.5, _POLL_MAX_S)
                offset = self._try_places(base, concurrency)
                if offset is not None:
                    return offset
        raise SlowDown(f"ETL '{etl}' is busy: no place within the wait budget. Try again.", retry_after_s=1)

    def _try_places(self, base: int, concurrency: int) -> int | None:
        start = int(random.random() * concurrency)  # noqa: S311 - spreads processes over the places
        for i in range(concurrency):
            offset = base + (start + i) % concurrency
            if self.locks.try_lock(offset):
                return offset
        return None

    @asynccontextmanager
    async def _queued(self, etl: str, base: int) -> AsyncIterator[None]:
        for i in range(self.limits.queue):
            ticket = base + _TICKETS + i
            if self.locks.try_lock(ticket):
                try:
                    yield
                finally:
                    self.locks.unlock(ticket)
                return
        raise SlowDown(
            f"ETL '{etl}' is busy and {self.limits.queue} requests wait for it already. Try again.", retry_after_s=1
        )


def waiting(locks: ByteLocks, etl: str, queue: int) -> int:
    """How many runs of an ETL wait for a place, in all processes; `locks` must hold none itself."""
    tickets = range(offset_of(etl) + _TICKETS, offset_of(etl) + _TICKETS + queue)
    return sum(locks.held_elsewhere(ticket) for ticket in tickets)


@lru_cache(maxsize=4096)
def offset_of(etl: str) -> int:
    """Where the locks of an ETL's places begin."""
    digest = hashlib.blake2b(etl.encode(), digest_size=4).digest()
    return int.from_bytes(digest) << 24
