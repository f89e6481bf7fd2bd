"""Runs what may wait as the work of runs does: on an event loop, as the server's processes have it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop

from transom.target.etl.waiting import LoopWork


def run_on_loop(work: Callable[[], object]) -> None:
    """Do the work on a loop of its own; raises what it raises."""
    uvloop.run(_run(work))


async def _run(work: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def noted() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as caught:
            error = caught
        loop.call_soon(done.set_result, error)

    LoopWork(loop).begin(noted)
    if (error := await done) is not None:
        raise error
