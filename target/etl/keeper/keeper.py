"""Sees to it that every ETL that should have a worker beside this target has one, and no other ETL has.

What should be is the catalog's to say; what is, each worker's `Life`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from transom.cluster.catalog import Catalog
from transom.cluster.records import CatalogError, EtlRecord, Snapshot
from transom.target.etl.keeper.life import TICK_S, Life
from transom.target.etl.keeper.logs import LogFile
from transom.target.etl.keeper.workshop import Workshop
from transom.target.etl.lifecycle import settle
from transom.target.etl.runtimes.services import fetches
from transom.target.etl.workers_status import EtlStatus, WorkerState, forget_status, write_status

LINGER_S = 2.0  # a request may have been planned with a revision just before that was replaced
_CLIENT_S = 60.0
_SETTLE_EVERY_S = 1.0
_log = logging.getLogger("transom.keeper")

Key = tuple[str, int, int]


@dataclass(slots=True)
class _Kept:
    """A worker, since when it is wanted no more, and its ending once that has begun."""

    life: Life
    retired: float | None = None
    ending: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Keeper:
    """The workers of one target; `targets` are the names of all. On one event loop.

    One that is wanted no more goes on for `linger_s` after it was last used.
    """

    catalog: Catalog
    shop: Workshop
    targets: Sequence[str]
    linger_s: float = LINGER_S
    _kept: dict[Key, _Kept] = field(default_factory=dict)
    _logs: dict[str, LogFile] = field(default_factory=dict)
    _seen: Snapshot | None = None
    _wanted: dict[Key, EtlRecord] = field(default_factory=dict)
    _count: int = 0
    _settling: asyncio.Task[None] | None = None
    _unsettled: bool = True
    _settled: float = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Keep workers until `stop`, then end them all."""
        try:
            while not stop.is_set():
                self._tick()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), TICK_S)
        finally:
            await self._end_all()

    # --- what should be -----------------------------------------------------------------------

    def _tick(self) -> None:
        try:
            snapshot = self.catalog.snapshot()
        except CatalogError as error:
            _log.error("the catalog can't be read: %s", error)
            return
        if snapshot is not self._seen:
            self._seen, self._wanted = snapshot, wanted(snapshot)
            services = [each.name for each in snapshot.etls.values() if fetches(each)]
            self.shop.desk.admit_services({name: self.shop.pull_secret_of(name) for name in services})
        for key in [key for key in self._wanted if key not in self._kept]:
            self._take_on(key, self._wanted[key])
        for key, kept in list(self._kept.items()):
            if key not in self._wanted:
                self._retire(key, kept)
            else:
                kept.retired = None
        self._settle()

    def _take_on(self, key: Key, record: EtlRecord) -> None:
        self._count += 1
        name = record.name

        def changed(state: WorkerState) -> None:
            self._unsettled = self._unsettled or state != "running" or not self._is_settled(record)
            self._write(name)

        try:
            life = Life(record, self.shop, self._log_of(name), self._count, changed)
        except (OSError, ValueError) as error:
            _log.error("no worker of ETL %s can be kept: %s", name, error)
            del self._wanted[key]  # until the catalog says something else
            return
        self._kept[key] = _Kept(life)
        self._write(name)

    def _retire(self, key: Key, kept: _Kept) -> None:
        """End a worker that is wanted no more, once no run needs it, or none can need it any longer."""
        now = time.monotonic()
        if kept.ending is not None:
            if kept.ending.done():
                self._forget(key, kept)
            return
        if kept.retired is None:
            if not self._is_succeeded(key):
                return
            kept.retired = now
        retired_s = now - kept.retired
        overdue = retired_s > kept.life.patience_s + _CLIENT_S
        if overdue or (retired_s > self.linger_s and kept.life.unused_for_s > self.linger_s):
            self._write(key[0], without=key)
            # a run that held it before that was written has read that it is there; later ones read that it isn't
            if overdue or not kept.life.busy:
                kept.ending = asyncio.create_task(kept.life.end())
            else:
                self._write(key[0])

    def _is_succeeded(self, key: Key) -> bool:
        """Whether a worker needn't stay for the one that is to replace it: a revision that is started anew."""
        successors = [other for other in self._wanted if other[:2] == key[:2]]
        return all(
            other in self._kept and self._kept[other].life.status.state != "initializing" for other in successors
        )

    def _forget(self, key: Key, kept: _Kept) -> None:
        if kept.ending is not None and (error := kept.ending.exception()) is not None:
            _log.error("the worker of ETL %s could not be ended", key[0], exc_info=error)
        del self._kept[key]
        name, revision, _ = key
        if not any(other[:2] == key[:2] for other in self._kept):
            self.shop.places.forget(name, revision)
        self._write(name)

    # --- what is ------------------------------------------------------------------------------

    def _write(self, etl: str, without: Key | None = None) -> None:
        """Say how an ETL's workers are, but for one; those that are being ended are there no more."""
        lives = [
            kept.life
            for key, kept in sorted(self._kept.items())
            if key[0] == etl and not kept.ending and key != without
        ]
        places = self.shop.places
        try:
            if lives:
                write_status(places.folder, places.target, EtlStatus(etl, tuple(life.status for life in lives)))
            else:
                forget_status(places.folder, places.target, etl)
                if not any(key[0] == etl for key in self._kept) and etl in self._logs:
                    self._logs.pop(etl).close()
        except OSError as error:
            _log.error("can't say how the workers of ETL %s are: %s", etl, error)

    def _log_of(self, etl: str) -> LogFile:
        if etl not in self._logs:
            self._logs[etl] = LogFile(self.shop.places.logs / f"{etl}.log")
        return self._logs[etl]

    # --- what follows -------------------------------------------------------------------------

    def _is_settled(self, record: EtlRecord) -> bool:
        current = None if self._seen is None else self._seen.etls.get(record.name)
        return current is not None and current.revision == record.revision and current.state == "running"

    def _settle(self) -> None:
        """Have the catalog decide on what changed, and now and then on what did not change in time."""
        if self._settling is not None and not self._settling.done():
            return
        now = time.monotonic()
        if self._unsettled or (self._wanted and now - self._settled > _SETTLE_EVERY_S):
            self._unsettled, self._settled = False, now
            self._settling = asyncio.create_task(self._settle_once())

    async def _settle_once(self) -> None:
        try:
            await asyncio.to_thread(settle, self.catalog, self.shop.places.folder, self.targets)
        except CatalogError as error:
            self._unsettled = True
            _log.error("the catalog can't be written: %s", error)

    async def _end_all(self) -> None:
        if self._settling is not None:
            await asyncio.wait([self._settling])
        endings = [kept.ending or asyncio.create_task(kept.life.end()) for kept in self._kept.values()]
        if endings:
            await asyncio.wait(endings)
        for name, _, _ in self._kept:
            forget_status(self.shop.places.folder, self.shop.places.target, name)
        for log in self._logs.values():
            log.close()


def wanted(snapshot: Snapshot) -> dict[Key, EtlRecord]:
    """The workers that should be up: those of ETLs that run or start, and of revisions that start beside them."""
    records = [*snapshot.etls.values(), *snapshot.pending.values()]
    return {(each.name, each.revision, each.launch_ns): each for each in records if each.wants_worker}
