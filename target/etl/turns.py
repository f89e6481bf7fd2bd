"""Who may make a result for the cache: one run at a time, in all processes of a data folder.

It knows neither results nor runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from transom.target.etl.locks import ByteLocks

TURNS = Path("run") / "results"  # the locks, in a data folder
_POLL_S = (0.005, 0.1)


class Turns:
    """One process's turns; for the event loop. `folder` is the data folder."""

    def __init__(self, folder: Path) -> None:
        self._locks = ByteLocks(folder / TURNS)

    def under_way(self, result_id: str) -> bool:
        """Whether another process is making the result just now."""
        return self._locks.held_elsewhere(_offset(result_id))

    @asynccontextmanager
    async def turn(self, result_id: str, made: Callable[[], bool]) -> AsyncIterator[bool]:
        """Wait for the right to make a result: True once it is ours, False when somebody else has made it meanwhile.

        `made` tells whether it is there; what it raises comes out of here.
        """
        offset, pause = _offset(result_id), _POLL_S[0]
        ours = False
        try:
            while True:
                ours = self._locks.try_lock(offset)
                there = made()
                if ours or there:
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _POLL_S[1])
            yield not there
        finally:
            if ours:
                self._locks.unlock(offset)

    def close(self) -> None:
        """Let go of every turn."""
        self._locks.close()


def _offset(result_id: str) -> int:
    return int(result_id[:15], 16)
