"""What a run measured: counting in a worker, merging over workers, and the JSON and table that come of it.

It knows nothing of sockets or processes. The JSON (schema `transom.bench/1`) is described in
docs/how-to/benchmark.md; latencies are HdrHistograms of microseconds with three significant digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram
from rich.box import SIMPLE_HEAD
from rich.table import Table

SCHEMA = "transom.bench/1"
MIB = 1024 * 1024
HIGHEST_US = 3600 * 1_000_000
SIGNIFICANT_DIGITS = 3
FOLD_AT = 20_000  # samples kept as a list before they are folded into counts
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
CORRUPT = "BodyMismatch"


def new_histogram() -> HdrHistogram:
    """An empty histogram of microseconds up to an hour."""
    return HdrHistogram(1, HIGHEST_US, SIGNIFICANT_DIGITS)


class Samples:
    """Latencies of one kind; cheap to add to, folded into a histogram only when asked."""

    __slots__ = ("_counts", "_recent", "add")

    def __init__(self) -> None:
        self._recent: list[int] = []
        self._counts: Counter[int] = Counter()
        self.add = self._recent.append

    def fold(self, *, at: int = FOLD_AT) -> None:
        """Turn samples into counts once there are `at` of them."""
        if len(self._recent) >= at:
            self._counts.update(self._recent)
            self._recent.clear()

    def encoded(self) -> bytes:
        """As a compressed HdrHistogram."""
        self.fold(at=0)
        histogram = new_histogram()
        for value_us, count in self._counts.items():
            histogram.record_value(min(max(1, value_us), HIGHEST_US), count)
        encoded: bytes = histogram.encode()
        return encoded


@dataclass(slots=True)
class Tally:
    """One operation in one worker. `moved` is payload bytes, sent or received; failed requests are in `errors`."""

    latency: Samples = field(default_factory=Samples)
    first_byte: Samples = field(default_factory=Samples)
    done: int = 0
    moved: int = 0
    corrupt: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def succeeded(self, started_s: float, first_byte_s: float, finished_s: float, moved: int) -> None:
        """Count one answer; times are of one clock."""
        self.done += 1
        self.moved += moved
        self.latency.add(int((finished_s - started_s) * 1_000_000))
        self.first_byte.add(int((first_byte_s - started_s) * 1_000_000))

    def packed(self) -> PackedTally:
        """As it travels to the parent process."""
        return PackedTally(
            self.latency.encoded(), self.first_byte.encoded(), self.done, self.moved, self.corrupt, dict(self.errors)
        )


@dataclass(frozen=True, slots=True)
class PackedTally:
    """A `Tally` with its histograms encoded."""

    latency: bytes
    first_byte: bytes
    done: int
    moved: int
    corrupt: int
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What one worker hands back; times are seconds of `time.perf_counter()`, one clock for the whole machine."""

    started_s: float
    finished_s: float
    tallies: Mapping[str, PackedTally]
    written: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class OpReport:
    """One operation over all workers; latencies in microseconds."""

    done: int
    moved: int
    corrupt: int
    errors: Mapping[str, int]
    latency: HdrHistogram
    first_byte: HdrHistogram

    @property
    def failed(self) -> int:
        """Requests that did not end in a success."""
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `unread` counts written objects that did not read back as they were put."""

    elapsed_s: float
    ops: Mapping[str, OpReport]
    unread: int = 0

    @property
    def done(self) -> int:
        """Successful requests."""
        return sum(op.done for op in self.ops.values())

    @property
    def failed(self) -> int:
        """Failed requests."""
        return sum(op.failed for op in self.ops.values())

    @property
    def corrupt(self) -> int:
        """Answers whose bytes were not those expected, and objects that read back wrong."""
        return sum(op.corrupt for op in self.ops.values()) + self.unread

    @property
    def good(self) -> bool:
        """Something succeeded and nothing was corrupt."""
        return self.done > 0 and not self.corrupt

    def ops_per_s(self) -> float:
        """Successful requests a second."""
        return self.done / self.elapsed_s if self.elapsed_s else 0.0

    def mib_per_s(self) -> float:
        """Payload MiB a second, both ways."""
        moved = sum(op.moved for op in self.ops.values())
        return moved / MIB / self.elapsed_s if self.elapsed_s else 0.0


def merge(results: Iterable[WorkerResult], *, unread: int = 0) -> Report:
    """One report of all workers' results."""
    results = list(results)
    names = {name: None for result in results for name in result.tallies}
    ops = {name: _merge_op([r.tallies[name] for r in results if name in r.tallies]) for name in names}
    elapsed_s = max(r.finished_s for r in results) - min(r.started_s for r in results)
    return Report(max(elapsed_s, 1e-9), ops, unread)


def _merge_op(tallies: list[PackedTally]) -> OpReport:
    latency, first_byte = new_histogram(), new_histogram()
    errors: Counter[str] = Counter()
    for tally in tallies:
        latency.decode_and_add(tally.latency)
        first_byte.decode_and_add(tally.first_byte)
        errors.update(tally.errors)
    return OpReport(
        done=sum(t.done for t in tallies),
        moved=sum(t.moved for t in tallies),
        corrupt=sum(t.corrupt for t in tallies),
        errors=errors,
        latency=latency,
        first_byte=first_byte,
    )


def summary_ms(histogram: HdrHistogram) -> dict[str, float]:
    """Percentiles, mean and maximum in milliseconds; empty for an empty histogram."""
    if not histogram.get_total_count():
        return {}
    figures = {f"p{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in PERCENTILES}
    return {**figures, "max": histogram.get_max_value() / 1000, "mean": round(histogram.get_mean_value() / 1000, 3)}


def to_json(report: Report, about: Mapping[str, Any]) -> dict[str, Any]:
    """The run as the documented JSON; `about` says what was run."""
    return {
        "schema": SCHEMA,
        **about,
        "elapsed_s": round(report.elapsed_s, 3),
        "requests": report.done,
        "failed": report.failed,
        "corrupt": report.corrupt,
        "ops_per_s": round(report.ops_per_s(), 2),
        "mib_per_s": round(report.mib_per_s(), 2),
        "ops": {name: _op_json(op, report.elapsed_s) for name, op in report.ops.items()},
    }


def _op_json(op: OpReport, elapsed_s: float) -> dict[str, Any]:
    return {
        "requests": op.done,
        "failed": op.failed,
        "corrupt": op.corrupt,
        "bytes": op.moved,
        "ops_per_s": round(op.done / elapsed_s, 2),
        "mib_per_s": round(op.moved / MIB / elapsed_s, 2),
        "latency_ms": summary_ms(op.latency),
        "ttfb_ms": summary_ms(op.first_byte),
        "errors": dict(op.errors),
    }


def tables(report: Report) -> list[Table]:
    """The run for a person: throughput and latency by operation, then errors by code if there were any."""
    speeds = Table(title=f"{report.done} requests in {report.elapsed_s:.2f} s", title_justify="left", box=SIMPLE_HEAD)
    speeds.add_column("op")
    columns = ("ops/s", "MiB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "ttfb p50", "failed", "corrupt")
    for column in columns:
        speeds.add_column(column, justify="right")
    for name, op in report.ops.items():
        figures = _op_json(op, report.elapsed_s)
        latency = figures["latency_ms"]
        speeds.add_row(
            name,
            f"{figures['ops_per_s']:,.1f}",
            f"{figures['mib_per_s']:,.1f}",
            *(f"{latency[k]:.2f}" if latency else "-" for k in ("p50", "p90", "p99", "p99.9", "max")),
            f"{figures['ttfb_ms']['p50']:.2f}" if latency else "-",
            str(op.failed),
            str(op.corrupt),
        )
    return [speeds, *_error_table(report)]


def _error_table(report: Report) -> list[Table]:
    rows = [(name, code, count) for name, op in report.ops.items() for code, count in op.errors.items()]
    if report.unread:
        rows.append(("read back", CORRUPT, report.unread))
    if not rows:
        return []
    table = Table("op", "error", title="errors", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("count", justify="right")
    for name, code, count in rows:
        table.add_row(name, code, str(count))
    return [table]
