"""Streams a body into a blob: the event loop gathers chunks, a worker thread writes and hashes the batch before.

Bodies at hand go to the thread as they are, many at once.

It knows nothing of the index.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Any

from transom.target.store.base import Intake
from transom.target.store.local.blobs import Blob, BlobFolder, BlobWriter
from transom.target.store.local.together import write_together

BATCH = 1024 * 1024


async def receive(body: AsyncIterator[bytes], folder: BlobFolder, threads: Executor, intake: Intake | None) -> Blob:
    """Return a durable blob of the whole body; nothing is left behind when this raises.

    A body that fits in one batch costs one thread hop; of a longer one at most two batches are in memory.
    """
    writer = BlobWriter(folder, intake)
    under_way: Future[Any] | None = None
    try:
        batch: list[bytes] = []
        size = 0
        async for chunk in body:
            if size >= BATCH:
                if under_way is not None:
                    await asyncio.wrap_future(under_way)
                under_way = threads.submit(writer.write, batch)
                batch, size = [], 0
            batch.append(chunk)
            size += len(chunk)
        if under_way is not None:
            await asyncio.wrap_future(under_way)
        under_way = last = threads.submit(writer.finish, batch)
        return await asyncio.wrap_future(last)
    except BaseException:
        await _abandon(writer, under_way, threads)
        raise


async def receive_many(bodies: Sequence[bytes], folder: BlobFolder, threads: Executor) -> list[Blob | Exception]:
    """A durable blob for each body, or why there is none; nothing is left behind when the caller is cancelled."""
    under_way = threads.submit(write_together, folder, bodies)
    try:
        return await asyncio.wrap_future(under_way)
    except BaseException:
        under_way.add_done_callback(lambda done: _discard(done, folder))
        raise


def _discard(done: Future[list[Blob | Exception]], folder: BlobFolder) -> None:
    if not done.cancelled() and done.exception() is None:
        folder.discard([blob.id for blob in done.result() if isinstance(blob, Blob)])


async def _abandon(writer: BlobWriter, under_way: Future[Any] | None, threads: Executor) -> None:
    """Clean up in a thread, once the hop under way has ended; being cancelled again does not stop it."""

    def clean_up() -> None:
        if under_way is not None:
            wait([under_way])
        writer.abandon()

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.shield(asyncio.wrap_future(threads.submit(clean_up)))
