"""When a running job has to stop: somebody aborted it, or its time is over. Asked often, cheap to ask.

It stops nothing itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from transom.cluster.stamp import Stamp
from transom.target.jobs.catalog import JobCatalog

T = TypeVar("T")
_LOOK_S = 0.1


class JobAborted(Exception):
    """Somebody wants the job to stop."""


class JobTimedOut(Exception):
    """The job's own time is over; the message says how long it was."""


class Alarm:
    """Watches over one run of a job. `timeout_s` counts from now; None is as long as it takes."""

    def __init__(self, catalog: JobCatalog, stamp: Stamp, job_id: str, timeout_s: float | None) -> None:
        self._catalog, self._stamp, self._job_id = catalog, stamp, job_id
        self._timeout_s = timeout_s
        self._end = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    def check(self) -> None:
        """Raise JobAborted or JobTimedOut when it is time to."""
        if not self._stamp.fresh():
            self._stamp.note()
            if self._catalog.abort_ordered(self._job_id):
                raise JobAborted
        if time.monotonic() > self._end:
            raise JobTimedOut(f"the job took longer than {self._timeout_s:g} s")

    async def over(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on an event loop, given up when it is time to."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=_LOOK_S)
                self.check()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return task.result()
