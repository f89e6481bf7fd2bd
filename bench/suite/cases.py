"""What the comparison measures, on whom, and which ratios it promises. Data only: nothing here runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024
GRANIAN, HYPERCORN = "transom-granian", "transom-hypercorn"
TRANSOMS = (GRANIAN, HYPERCORN)
EVERYONE = ("nginx", "rclone", "moto", *TRANSOMS)
BARE_LOOP = "bare loop"
SIZES = {"4KiB": 4 * KIB, "100KiB": 100 * KIB, "1MiB": MIB, "64MiB": 64 * MIB}
LARGE = 16 * MIB
PHOTO = (1600, 1200)
IMAGE_ARGS = '{"width":224,"height":224,"format":"jpeg"}'
UNCACHED = {"echo_nc": "echo", "image_nc": "image"}
"""ETLs made for the comparison with the result cache off, and their plugin's transformer."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, on each of `peers`. `does` is what the ETL equals, where answers can be verified."""

    name: str
    peers: Sequence[str]
    op: str = "get"
    size: int = 0
    etl: str = ""
    etl_args: str = ""
    does: str = ""
    pixels: tuple[int, int] | None = None

    @property
    def objects(self) -> int:
        """Distinct keys: enough that none is special, few enough to stay in the page cache."""
        if self.op == "put":
            return 8 if self.size >= LARGE else 64  # more than are under way: nothing is overwritten twice at once
        if self.size >= LARGE:
            return 4
        return 16 if self.size >= MIB or self.pixels else 64

    @property
    def concurrency(self) -> int:
        """Requests under way at once."""
        return 4 if self.size >= LARGE else 16


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure over another, each named by (case, peer); without a target it is only reported."""

    name: str
    over: tuple[str, str]
    under: tuple[str, str]
    target: float | None = None


def cases(sizes: Sequence[str], groups: Sequence[str]) -> list[Case]:
    """The cases of some groups, ordered so that those compared with each other run one after the other."""
    found = []
    for size in sizes:
        n = SIZES[size]
        found += [
            Case(f"get {size}", EVERYONE, size=n),
            Case(f"identity {size}", TRANSOMS, "etl", n, etl="echo_nc", does="echo"),
        ]
        if size in ("100KiB", "1MiB"):
            found.append(Case(f"cached {size}", TRANSOMS, "etl", n, etl="upper", does="upper"))
        found.append(Case(f"put {size}", EVERYONE, "put", n))
    image = Case("image", (*TRANSOMS, BARE_LOOP), "etl", etl="image_nc", etl_args=IMAGE_ARGS, pixels=PHOTO)
    return [case for case in (*found, image) if case.name.split()[0] in groups]


GROUPS = ("get", "identity", "cached", "put", "image")


def _get(size: str, against: str, target: float | None) -> Ratio:
    return Ratio(f"get {size}: transom / {against}", (f"get {size}", GRANIAN), (f"get {size}", against), target)


def _put(size: str, target: float | None) -> Ratio:
    return Ratio(f"put {size}, fsync: transom / rclone", (f"put {size}", GRANIAN), (f"put {size}", "rclone"), target)


def _over_get(group: str, size: str, target: float | None) -> Ratio:
    return Ratio(f"{group} {size} / plain get", (f"{group} {size}", GRANIAN), (f"get {size}", GRANIAN), target)


RATIOS: Sequence[Ratio] = (
    _get("4KiB", "rclone", 0.5),
    _get("4KiB", "moto", 10.0),
    _get("100KiB", "rclone", 1.0),
    _get("1MiB", "rclone", 1.0),
    _get("64MiB", "rclone", 1.0),
    *(_get(size, "nginx", None) for size in SIZES),
    *(_get(size, HYPERCORN, None) for size in SIZES),
    _put("4KiB", None),
    _put("100KiB", None),
    _put("1MiB", 0.5),
    _put("64MiB", 0.5),
    _over_get("identity", "4KiB", None),
    _over_get("identity", "100KiB", None),
    _over_get("identity", "1MiB", None),
    _over_get("identity", "64MiB", 0.7),
    _over_get("cached", "100KiB", 0.8),
    _over_get("cached", "1MiB", 0.8),
    Ratio("image resize / bare loop", ("image", GRANIAN), ("image", BARE_LOOP), 0.8),
)
