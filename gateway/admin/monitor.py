"""What an admin may look at: an ETL's numbers, errors, workers' logs and health, and all of it for Prometheus.

It reads what the targets left in the data folder and asks no process anything.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transom.target.etl.error_log import ErrorLog
from transom.target.etl.metrics import METRICS, Numbers, collected, numbers, queued
from transom.target.etl.workers_status import read_statuses

LOG_PIECE = 64 * 1024
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of one worker's log: `text` ends at byte `offset` of what the target keeps."""

    target: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Monitor:
    """Reads a data folder; `queue` bounds how many requests wait for one ETL. Every method is blocking."""

    folder: Path
    queue: int
    errors_log: ErrorLog

    def numbers(self, etls: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Objects, bytes, errors, percentiles and the queue of each ETL, JSON-ready."""
        found = numbers(self._metrics)
        return {etl: {**asdict(found.get(etl, Numbers())), "queue": self.queue_of(etl)} for etl in etls}

    def queue_of(self, etl: str) -> int:
        """How many requests wait for a place of the ETL just now."""
        return queued(self.folder, etl, self.queue)

    def forget(self, etl: str) -> None:
        """Forget the errors of an ETL that was removed: another may get its name."""
        with suppress(sqlite3.Error):  # it is removed all the same
            self.errors_log.forget(etl)

    def errors(self, etl: str, limit: int) -> list[dict[str, Any]]:
        """The newest errors of one ETL, JSON-ready."""
        return [
            {
                "time": entry.at_s,
                "bucket": entry.bucket,
                "key": entry.key,
                "code": entry.code,
                "message": entry.message,
                "stage": entry.etl,
                "pipeline": entry.pipeline,
            }
            for entry in self.errors_log.of_etl(etl, limit)
        ]

    def logs(self, etl: str, target: str = "", offset: int | None = None) -> list[LogPiece]:
        """The end of each worker's log, or what follows `offset` in one target's."""
        folder = self.folder / "logs"
        names = [target] if target else sorted(each.name for each in folder.glob("*") if each.is_dir())
        return [_piece(name, folder / name / f"{etl}.log", offset) for name in names if _plain(name)]

    def workers(self, etl: str) -> list[dict[str, Any]]:
        """What each target says of the ETL's workers."""
        return read_statuses(self.folder, etl)

    def exposition(self, etls: Iterable[str]) -> bytes:
        """Everything in Prometheus's text format."""
        from prometheus_client import generate_latest

        registry = collected(self._metrics)
        registry.register(_Gauges(self, list(etls)))
        return generate_latest(registry)

    @property
    def _metrics(self) -> Path:
        return self.folder / METRICS


class _Gauges:
    """What is so just now: a collector for prometheus_client."""

    def __init__(self, monitor: Monitor, etls: list[str]) -> None:
        self._monitor = monitor
        self._etls = etls

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        queue = GaugeMetricFamily("transom_etl_queue", "Requests that wait for a place", labels=["etl"])
        labels = ["etl", "target", "revision"]
        running = GaugeMetricFamily("transom_worker_running", "Whether the worker runs", labels=labels)
        memory = GaugeMetricFamily("transom_worker_memory_bytes", "Memory of the worker", labels=labels)
        cpu = CounterMetricFamily("transom_worker_cpu_seconds", "Processor time of the worker", labels=labels)
        for etl in self._etls:
            queue.add_metric([etl], self._monitor.queue_of(etl))
            for worker in self._monitor.workers(etl):
                at = [etl, str(worker["target"]), str(worker["revision"])]
                running.add_metric(at, float(worker["state"] == "running"))
                memory.add_metric(at, worker.get("memory_bytes") or 0)
                cpu.add_metric(at, worker.get("cpu_s") or 0.0)
        yield from (queue, running, memory, cpu)


def _plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _piece(target: str, path: Path, offset: int | None) -> LogPiece:
    """What a log holds from `offset` on; where it was rotated since, from its start."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - LOG_PIECE) if offset is None else offset if offset <= size else 0
            file.seek(start)
            data = file.read(LOG_PIECE)
    except FileNotFoundError:
        return LogPiece(target, 0, "")
    return LogPiece(target, start + len(data), data.decode(errors="replace"))


def health(state: str, message: str, workers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One word for an ETL's health, and why: "ok", "degraded" (some worker doesn't run), or its state."""
    found = list(workers)
    if state != "running":
        return {"health": state, "message": message}
    down = [worker for worker in found if worker["state"] not in ("running", "idle")]
    if down:
        first = down[0]
        return {"health": "degraded", "message": f"{first['target']}: {first['state']}: {first.get('message', '')}"}
    return {"health": "ok", "message": ""}
