"""What a job's worker works with: the store, and what runs pipelines, opened in the worker's own process.

It knows nothing of jobs. The composition root says how one is opened.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from transom.target.etl.pipeline import Pipelines
from transom.target.jobs.fairness import JobPlaces
from transom.target.jobs.hands import Hands
from transom.target.store.base import Store

T = TypeVar("T")


@dataclass(slots=True)
class Site:
    """One worker's access to the store and the ETLs beside it. `scratch` is for temporary files.

    Without `places` no run takes one among an ETL's.
    """

    store: Store
    pipelines: Pipelines
    scratch: Path
    places: JobPlaces | None = None
    hands: Hands = field(default_factory=Hands)
    _local: threading.local = field(default_factory=threading.local)
    _loops: list[asyncio.AbstractEventLoop] = field(default_factory=list)
    _closed: bool = False

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the store to its end; blocking, from any thread: each has an event loop of its own."""
        loop: asyncio.AbstractEventLoop | None = getattr(self._local, "loop", None)
        if loop is None:
            loop = self._local.loop = asyncio.new_event_loop()
            self._loops.append(loop)
        return loop.run_until_complete(work)

    def close(self) -> None:
        """Let go of everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.wait(self.store.close())
        self.pipelines.close()
        self.hands.close()
        if self.places is not None:
            self.places.close()
        for loop in self._loops:
            if not loop.is_running():  # the work of a thread that was given up
                loop.close()
