"""Transformers for Transom's own tests: they fail, crash, stall and put out odd sizes on request."""

from __future__ import annotations

from collections.abc import Iterator

from transom.plugins import Transformer, hookimpl
from transom_test_transformers import faults, outputs, probes, timing
from transom_test_transformers.outputs import grow_bytes, grow_chunks

__all__ = ["grow_bytes", "grow_chunks", "transom_transformers"]


@hookimpl
def transom_transformers() -> Iterator[Transformer]:
    """Yield all of them."""
    yield from (faults.Fail(), faults.FailLate(), faults.Crash(), faults.SkipIt(), faults.RejectIt(), faults.Swallow())
    yield faults.Leak()
    yield from (outputs.Random(), outputs.Grow(), outputs.Empty(), outputs.Double())
    yield from (probes.Count(), probes.Tap(), probes.Tell(), probes.Needs(), probes.Probe(), probes.Whereabouts())
    yield from (timing.Sleep(), timing.SlowStart(), timing.Busy(), timing.LoopForever())
