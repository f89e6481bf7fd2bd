"""From the rounds' figures to ratios, the tables a person reads, and the JSON of `out/bench.json`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.table import Table

from transom.bench.suite.cases import RATIOS, Ratio

SCHEMA = "transom.suite/1"


@dataclass(slots=True)
class Figures:
    """One case on one peer, a value a round. Throughput is of successful requests and of payload bytes."""

    ops_per_s: list[float] = field(default_factory=list)
    mib_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    failed: int = 0
    corrupt: int = 0
    error: str = ""


Results = Mapping[tuple[str, str], Figures]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A ratio as measured: the median of each round's own ratio, which a drifting machine disturbs least."""

    ratio: Ratio
    value: float
    rounds: Sequence[float]

    @property
    def verdict(self) -> str:
        """`met` or `missed`, or nothing where no target is set."""
        if self.ratio.target is None:
            return ""
        return "met" if self.value >= self.ratio.target else "missed"


def median(values: Sequence[float]) -> float:
    """The middle value, 0 when there is none."""
    return statistics.median(values) if values else 0.0


def outcomes(results: Results, ratios: Sequence[Ratio] = RATIOS) -> list[Outcome]:
    """Every ratio both of whose figures were measured."""
    found = []
    for ratio in ratios:
        over, under = results.get(ratio.over), results.get(ratio.under)
        if over is None or under is None:
            continue
        rounds = [a / b for a, b in zip(over.ops_per_s, under.ops_per_s, strict=False) if b]
        if rounds:
            found.append(Outcome(ratio, median(rounds), rounds))
    return found


class Named(Protocol):
    """A case, as far as a table shows it."""

    @property
    def name(self) -> str:
        """What its row is called."""


def figures_table(cases: Sequence[Named], peers: Sequence[str], results: Results) -> Table:
    """Median throughput, a row a case and a column a peer."""
    table = Table("case", title="median requests/s (MiB/s)", title_justify="left", box=SIMPLE_HEAD)
    for peer in peers:
        table.add_column(peer, justify="right")
    for case in cases:
        table.add_row(case.name, *(_cell(results.get((case.name, peer))) for peer in peers))
    return table


def _cell(figures: Figures | None) -> str:
    if figures is None:
        return ""
    if figures.error:
        return "failed"
    speed = median(figures.mib_per_s)
    bad = f" [{figures.failed} failed]" if figures.failed else ""
    return f"{median(figures.ops_per_s):,.0f}" + (f" ({speed:,.0f})" if speed else "") + bad


def ratios_table(found: Sequence[Outcome]) -> Table:
    """The ratios against their targets."""
    table = Table("ratio", title="ratios", title_justify="left", box=SIMPLE_HEAD)
    for column in ("measured", "rounds", "at least", ""):
        table.add_column(column, justify="right")
    for outcome in found:
        rounds = f"{min(outcome.rounds):.2f}-{max(outcome.rounds):.2f}"
        target = "" if outcome.ratio.target is None else f"{outcome.ratio.target:g}"
        table.add_row(outcome.ratio.name, f"{outcome.value:.2f}", rounds, target, outcome.verdict)
    return table


def to_json(results: Results, found: Sequence[Outcome], about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole comparison as the JSON described in docs/how-to/benchmark.md."""
    return {
        "schema": SCHEMA,
        **about,
        "measurements": [
            {
                "case": case,
                "peer": peer,
                "ops_per_s": round(median(figures.ops_per_s), 2),
                "mib_per_s": round(median(figures.mib_per_s), 2),
                "p50_ms": round(median(figures.p50_ms), 3),
                "p99_ms": round(median(figures.p99_ms), 3),
                "rounds_ops_per_s": [round(value, 2) for value in figures.ops_per_s],
                "failed": figures.failed,
                "corrupt": figures.corrupt,
                "error": figures.error,
            }
            for (case, peer), figures in results.items()
        ],
        "ratios": [
            {
                "name": outcome.ratio.name,
                "value": round(outcome.value, 4),
                "rounds": [round(value, 4) for value in outcome.rounds],
                "target": outcome.ratio.target,
                "met": None if outcome.ratio.target is None else outcome.verdict == "met",
            }
            for outcome in found
        ],
    }
