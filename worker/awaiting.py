"""Runs what an author wrote with `async`, from the thread at hand. Costs nothing for those who did not."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any

_local = threading.local()


def resolved(given: Any) -> Any:
    """Return what was given, awaited if it has to be."""
    return _run(given) if hasattr(given, "__await__") else given


def pulled(given: Any) -> Iterator[Any]:
    """Return what was given as a plain iterator; raises TypeError where it is none."""
    if hasattr(given, "__anext__"):
        return _pulled(given)
    if isinstance(given, bytes | bytearray | memoryview | str):
        raise TypeError(f"transform_stream gave {type(given).__name__} where an iterator of bytes is due")
    return iter(given)


def release() -> None:
    """Close this thread's event loop, if it has one."""
    runner = _local.__dict__.pop("runner", None)
    if runner is not None:
        runner.close()


def _pulled(given: AsyncIterator[Any]) -> Generator[Any, None, None]:
    try:
        while True:
            try:
                piece = _run(_next(given))
            except StopAsyncIteration:
                return
            yield piece
    finally:
        close = getattr(given, "aclose", None)
        if close is not None:
            _run(close())


async def _next(given: AsyncIterator[Any]) -> Any:
    return await anext(given)


async def _awaited(given: Any) -> Any:
    return await given


def _run(given: Any) -> Any:
    """Run to its end on this thread's own event loop, which lives as long as the thread."""
    import asyncio  # slow to import, and not everybody's

    if not hasattr(_local, "runner"):
        _local.runner = asyncio.Runner()
    return _local.runner.run(given if isinstance(given, Coroutine) else _awaited(given))
