"""What `scripts/bench offline` measures: jobs, the same function by hand, a script with boto3. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transom.bench.suite.cases import Ratio

KIB, MIB = 1024, 1024 * 1024
LOCAL, RAY, POOL = "job", "job on ray", "bare pool"
OWN, RCLONE = "boto3 at transom", "boto3 at rclone"
QUICK = 20  # a smoke run has so many times fewer objects


@dataclass(frozen=True, slots=True)
class OfflineCase:
    """`count` objects of a kind, of about `size` bytes each, through one built-in; `contestants` do it in turn."""

    name: str
    etl: str
    kind: str
    count: int
    contestants: Sequence[str]
    size: int = 0
    pixels: tuple[int, int] | None = None
    args: str = ""


CASES: Mapping[str, OfflineCase] = {
    case.name: case
    for case in (
        OfflineCase("echo", "echo", "random", 10_000, (LOCAL, POOL, OWN, RCLONE), size=20 * KIB),
        OfflineCase(
            "resize",
            "image",
            "photo",
            2_000,
            (LOCAL, RAY, POOL, OWN, RCLONE),
            pixels=(800, 600),
            args='{"width":224,"height":224,"format":"jpeg"}',
        ),
        OfflineCase("flac", "ffmpeg", "flac", 500, (LOCAL, POOL, OWN, RCLONE), size=200 * KIB, args='{"format":"wav"}'),
        OfflineCase("sort", "", "shard", 64, (LOCAL, POOL), size=16 * MIB),
    )
}

RATIOS: Sequence[Ratio] = (
    Ratio("resize: job / bare pool", ("resize", LOCAL), ("resize", POOL), 0.8),
    Ratio("flac: job / bare pool", ("flac", LOCAL), ("flac", POOL), 0.8),
    Ratio("echo: job / bare pool", ("echo", LOCAL), ("echo", POOL), 0.5),
    Ratio("echo: job / boto3 at transom", ("echo", LOCAL), ("echo", OWN), 3.0),
    Ratio("echo: job / boto3 at rclone", ("echo", LOCAL), ("echo", RCLONE), 3.0),
    Ratio("resize: job on ray / job", ("resize", RAY), ("resize", LOCAL), 0.7),
    Ratio("resize: job / boto3 at transom", ("resize", LOCAL), ("resize", OWN)),
    Ratio("resize: job / boto3 at rclone", ("resize", LOCAL), ("resize", RCLONE)),
    Ratio("flac: job / boto3 at transom", ("flac", LOCAL), ("flac", OWN)),
    Ratio("flac: job / boto3 at rclone", ("flac", LOCAL), ("flac", RCLONE)),
    Ratio("sort: job / bare pool", ("sort", LOCAL), ("sort", POOL)),
)


def contestants(cases: Sequence[OfflineCase]) -> list[str]:
    """Everybody who takes part in any of the cases, each once."""
    return list(dict.fromkeys(name for case in cases for name in case.contestants))
