"""What the clients read: sources, the ETLs over them, and the bytes that must come out, worked out by hand."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transom_test_transformers import grow_bytes

from transom.plugins import Context
from transom.plugins.args import parse_args
from transom.plugins.manager import load
from transom.plugins.shapes import stream

KIB, MIB = 1024, 1024 * 1024


@functools.cache
def big() -> bytes:
    """20 MiB: half text, half what no compressor makes smaller."""
    chance = random.Random(20)
    line = b"".join(b"%d windows over a gate; " % number for number in range(2000))
    return (line * (10 * MIB // len(line) + 1))[: 10 * MIB] + chance.randbytes(10 * MIB)


def small() -> bytes:
    """A few KiB of text."""
    return b"".join(b"line %d of a small text\n" % number for number in range(100))


SOURCES: Mapping[str, Callable[[], bytes]] = {"big.bin": big, "small.txt": small}


@dataclass(frozen=True, slots=True)
class Case:
    """One ETL over one source. `result` is None where every run gives other bytes."""

    name: str
    plugin: str
    source: str
    result: Callable[[], bytes] | None
    size: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def etl(self) -> str:
        """The ETL's name."""
        return f"m-{self.name}"

    @property
    def view(self) -> str:
        """The made view's name."""
        return f"view-{self.name}"

    @property
    def exact_view(self) -> str:
        """The name of the made view that lists exact sizes, making results to know them."""
        return f"exact-{self.name}"

    def result_bytes(self) -> bytes:
        """What must come out, of one that has the same bytes every time."""
        assert self.result is not None
        return self.result()


def by_hand(plugin: str, data: bytes, args: object = None, scratch: Path = Path()) -> bytes:
    """What the transformer makes of `data` when it is called directly."""
    transformer = load()[plugin]
    context = Context("bucket", "key", transformer.name, size=len(data), args=parse_args(transformer, args))
    return b"".join(stream(transformer, [data], context, scratch=scratch))


@functools.cache
def _packed() -> bytes:
    return by_hand("compress", big(), {"level": 1})


def _grown(size: int) -> Callable[[], bytes]:
    return functools.cache(lambda: grow_bytes(size))


CASES = (
    Case("constant", "hello_world", "big.bin", lambda: by_hand("hello_world", b"")),
    Case("packed", "compress", "big.bin", _packed, args={"level": 1}),
    Case("upper", "upper", "big.bin", functools.cache(lambda: big().upper())),
    Case("grow12", "grow", "small.txt", _grown(12 * MIB), args={"size": 12 * MIB}),
    Case("grow30", "grow", "small.txt", _grown(30 * MIB), args={"size": 30 * MIB}),
    Case("empty", "empty", "small.txt", lambda: b""),
    Case("random", "random", "small.txt", None, size=12 * MIB, args={"size": 12 * MIB}),
)
# What a parallel ranged download is made for.
LARGE = Case("grow100", "grow", "small.txt", _grown(100 * MIB), args={"size": 100 * MIB})
# Source and result both of several parts: what a client that goes by listed sizes gets wrong most easily.
WIDER = Case("wider", "grow", "big.bin", _grown(30 * MIB), args={"size": 30 * MIB})
EVERY = (*CASES, LARGE, WIDER)
CASE = {case.name: case for case in EVERY}
