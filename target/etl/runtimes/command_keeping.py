"""The programs that one process keeps for command ETLs: each ends once it is wanted no more.

What is wanted is the catalog's to say. It doesn't know how a program is started or spoken with.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping

from transom.cluster.catalog import Catalog
from transom.cluster.records import CatalogError
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.watch import Watch
from transom.target.etl.workers import Pool, Pooled

_LOOK_EVERY_S = 1.0
_ENDING_S = 5.0
_log = logging.getLogger("transom.etl")

Key = tuple[str, int, int]
"""An ETL, its revision, and the `launch_ns` of its last start or restart."""


class KeptPrograms:
    """Keeps programs warm that `start` makes, for one start of one ETL's revision each. Callable from any thread.

    A thread, from the first program on, ends those of ETLs that were stopped, removed, changed or restarted, and those
    that nobody used for `unused_s`; those at work once they have done it. Without a `catalog`, ETLs stay as they are.
    """

    def __init__(self, start: Callable[[Job, Watch], Pooled[Job]], catalog: Catalog | None, *, unused_s: float) -> None:
        self._start = start
        self._catalog = catalog
        self._unused_s = unused_s
        self._pools: dict[Key, Pool[Job]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._tending: threading.Thread | None = None

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one object in a program; raises what it does, and what its start does."""
        return self._pool(job).run(job, chunks, watch)

    def close(self) -> None:
        """End every program that is idle, and those at work once they have done it; none is kept from now on."""
        self._closed.set()
        with self._lock:
            pools, self._pools = self._pools, {}
            tending, self._tending = self._tending, None
        if tending is not None:
            tending.join(_ENDING_S)  # before the catalog is closed
        for pool in pools.values():
            pool.close()

    def _pool(self, job: Job) -> Pool[Job]:
        stage = job.stage
        key = (stage.etl, stage.revision, stage.launch_ns)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = Pool(self._start)
                if self._closed.is_set():
                    pool.close()
                    return pool
                self._pools[key] = pool
                self._tend_later()
        return pool

    # --- housekeeping -------------------------------------------------------------------------

    def _tend_later(self) -> None:
        if self._tending is None:
            tending = threading.Thread(target=self._tend, name="kept-programs", daemon=True)
            tending.start()
            self._tending = tending

    def _tend(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            with self._lock:
                pools = dict(self._pools)
            unwanted = self._unwanted(pools)
            with self._lock:
                for key in unwanted:
                    self._pools.pop(key, None)
            for key, pool in pools.items():
                _let_go(pool, None if key in unwanted else self._unused_s)

    def _unwanted(self, pools: Mapping[Key, object]) -> set[Key]:
        """Those of which the ETL doesn't run as it did; asked after they were made, so that none is too new."""
        if self._catalog is None or not pools:
            return set()
        try:
            etls = self._catalog.snapshot().etls
        except CatalogError:  # whoever asks for an ETL says so
            return set()
        records = {key: etls.get(key[0]) for key in pools}
        return {
            key
            for key, record in records.items()
            if record is None or record.state != "running" or (record.revision, record.launch_ns) != key[1:]
        }


def _let_go(pool: Pool[Job], unused_s: float | None) -> None:
    """End the pool's programs, or those unused for so many seconds; what is in the way of that is only noted."""
    try:
        if unused_s is None:
            pool.close()
        else:
            pool.trim(unused_s)
    except Exception:  # the others are to end all the same
        _log.exception("a program that was kept can't be ended")
