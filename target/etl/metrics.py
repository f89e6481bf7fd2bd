"""What ETLs did, as numbers: objects, bytes, errors and seconds, added up over every process of a data folder.

The counting is prometheus_client's, in its multi-process mode: each process maps a file of its own in one folder, so a
count costs no system call and survives the process. Counts begin anew with the server.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from transom.target.etl.limits import SLOTS, waiting
from transom.target.etl.locks import ByteLocks

_FILE_SIZE = 1024 * 1024  # of some 200 ETLs; a larger one grows
_TURN_SIZE = 128 * 1024  # of some 25: those of one job are few, and there are many such files
_READS, _BETWEEN_READS_S = 5, 0.01
_TURNS = "turns"  # the locks of processes that take over each other's files
_MOST_TURNS = 4096  # some file systems refuse every lock
METRICS = Path("run") / "metrics"  # in a data folder
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
# Seconds; each about 1.6 times the one before, so a percentile read off them is within a third of the truth.
BUCKETS_S = (
    *(0.0005, 0.0008, 0.00125, 0.002, 0.00315, 0.005, 0.008, 0.0125, 0.02, 0.0315, 0.05, 0.08, 0.125, 0.2, 0.315),
    *(0.5, 0.8, 1.25, 2.0, 3.15, 5.0, 8.0, 12.5, 20.0, 31.5, 60.0, 120.0, 300.0),
)


def share(folder: Path) -> None:
    """Make this process count where the others do. To be called before anything else imports prometheus_client.

    Where there is no room for that, it counts for itself alone.
    """
    if _makes_room(folder, str(os.getpid()), _FILE_SIZE):
        os.environ[MULTIPROCESS] = str(folder)


def share_in_turn(folder: Path) -> None:
    """The same for one of many processes that come and go; to be called before it makes its `EtlMetrics`.

    It counts on in the files of one that has ended, so that there are no more of them than processes at once.
    """
    _take_turn(folder, os.getpid())


@lru_cache(maxsize=1)
def _take_turn(folder: Path, _pid: int) -> None:
    """Once for each process, forked or not."""
    from prometheus_client import values

    try:
        locks = ByteLocks(folder / _TURNS)  # and never closed: the turn ends with the process
        turn = next((f"turn-{n}" for n in range(_MOST_TURNS) if locks.try_lock(n)), "")
    except OSError:  # no room, or a file system without locks
        return
    if turn and _makes_room(folder, turn, _TURN_SIZE):
        os.environ[MULTIPROCESS] = str(folder)
        values.ValueClass = values.MultiProcessValue(lambda: turn)  # type: ignore[no-untyped-call]


def _makes_room(folder: Path, name: str, size: int) -> bool:
    """Give a process's files their room: they are mapped, and a page without any would kill it at the next count."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("counter", "histogram"):
            with (folder / f"{kind}_{name}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Numbers:
    """One ETL's numbers since the server started; seconds are of whole runs, estimated from a histogram."""

    objects: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    p50_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Series:
    bytes_in: Any
    bytes_out: Any
    seconds: Any


class EtlMetrics:
    """One process's counters. Callable from any thread. How many objects there were, the histogram knows."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        registry = CollectorRegistry()
        self._bytes_in = Counter("transom_etl_bytes_in", "Bytes read by runs", ["etl"], registry=registry)
        self._bytes_out = Counter("transom_etl_bytes_out", "Bytes made by runs", ["etl"], registry=registry)
        self._errors = Counter("transom_etl_errors", "Runs that failed", ["etl", "code"], registry=registry)
        self._seconds = Histogram(
            "transom_etl_seconds",
            "Length of a run, from its first byte asked for to its last",
            ["etl"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.registry = registry
        self._known: dict[str, _Series] = {}

    def ran(self, etl: str, *, bytes_in: int, bytes_out: int, seconds: float) -> None:
        """Count a run that ended well."""
        series = self._known.get(etl) or self._series(etl)
        series.bytes_in.inc(bytes_in)
        series.bytes_out.inc(bytes_out)
        series.seconds.observe(seconds)

    def failed(self, etl: str, code: str) -> None:
        """Count a run that failed, under the stage to blame."""
        self._errors.labels(etl, code).inc()

    def _series(self, etl: str) -> _Series:
        series = _Series(
            self._bytes_in.labels(etl),
            self._bytes_out.labels(etl),
            self._seconds.labels(etl),
        )
        self._known[etl] = series
        return series


def collected(folder: Path) -> Any:
    """A prometheus_client registry that adds up what all processes counted in `folder`."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Shared(folder))
    return registry


@dataclass(frozen=True, slots=True)
class _Shared:
    """Reads the files of all processes, which may be making or growing theirs just now: then once more."""

    folder: Path

    def describe(self) -> list[Any]:
        """Nothing is known ahead."""
        return []

    def collect(self) -> list[Any]:
        """Every metric, added up."""
        from prometheus_client.multiprocess import MultiProcessCollector

        if not self.folder.is_dir():  # nobody has counted yet
            return []
        collector: Any = MultiProcessCollector(None, path=str(self.folder))  # type: ignore[no-untyped-call]
        for _ in range(_READS - 1):
            try:
                return _with_objects(collector.collect())
            except (struct.error, RuntimeError, ValueError):
                time.sleep(_BETWEEN_READS_S)
        return _with_objects(collector.collect())


def _with_objects(metrics: Iterable[Any]) -> list[Any]:
    """The metrics, and beside them the number of objects of each ETL, told from the histogram."""
    from prometheus_client.core import CounterMetricFamily

    objects: Any = CounterMetricFamily("transom_etl_objects", "Runs that ended well", labels=["etl"])
    found = list(metrics)
    for metric in found:
        for sample in metric.samples:
            if sample.name == "transom_etl_seconds_count":
                objects.add_metric([sample.labels["etl"]], sample.value)
    return [*found, objects]


def numbers(folder: Path) -> dict[str, Numbers]:
    """Every ETL's numbers, added up over the processes. Blocking."""
    return {etl: _numbers(found) for etl, found in _by_etl(collected(folder)).items()}


def queued(folder: Path, etl: str, queue: int) -> int:
    """How many runs of an ETL wait for a place just now, of at most `queue`; `folder` is the data folder."""
    locks = ByteLocks(folder / SLOTS)
    try:
        return waiting(locks, etl, queue)
    finally:
        locks.close()


@dataclass(slots=True)
class _Found:
    values: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    buckets: dict[float, float] = field(default_factory=dict)


def _by_etl(registry: Any) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for sample in _samples(registry):
        each = found.setdefault(sample.labels.get("etl", ""), _Found())
        if sample.name == "transom_etl_errors_total":
            each.errors[sample.labels["code"]] = int(sample.value)
        elif sample.name == "transom_etl_seconds_bucket":
            each.buckets[float(sample.labels["le"])] = sample.value
        else:
            each.values[sample.name] = int(sample.value)
    return found


def _samples(registry: Any) -> Iterator[Any]:
    for metric in registry.collect():
        yield from metric.samples


def _numbers(found: _Found) -> Numbers:
    return Numbers(
        objects=found.values.get("transom_etl_objects_total", 0),
        bytes_in=found.values.get("transom_etl_bytes_in_total", 0),
        bytes_out=found.values.get("transom_etl_bytes_out_total", 0),
        errors=dict(sorted(found.errors.items())),
        p50_s=quantile(found.buckets, 0.50),
        p99_s=quantile(found.buckets, 0.99),
    )


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """The quantile `q` of a cumulative histogram, by upper bound; linear within a bucket, None where it is empty."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = q * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return lower  # beyond the last bound nothing more is known
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return lower
