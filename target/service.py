"""A target: the store, the ETLs beside it, and the results they made. What an edge asks of it, in one place.

It knows nothing of S3 or HTTP; `transom.target.answer` speaks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.plugins.manager import Transformers
from transom.target.errors import EtlInputRejected, ResultPreconditionFailed
from transom.target.etl.error_log import ErrorLog
from transom.target.etl.limits import SLOTS, Gate, Limits
from transom.target.etl.locks import ByteLocks
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.outputs import CachedRun, DirectRun, OpenResult
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Identity, Plan, identify
from transom.target.etl.registry import Registry
from transom.target.etl.results import Results
from transom.target.etl.runs import Failures, Runner, Wanted
from transom.target.etl.runtimes.elsewhere import Elsewhere
from transom.target.etl.runtimes.handover import Door
from transom.target.etl.turns import Turns
from transom.target.etl.workers import WorkerPool
from transom.target.store.base import ObjectInfo, Store


@dataclass(frozen=True, slots=True)
class ResultSettings:
    """Bounds of the result cache, in bytes."""

    max_bytes: int = 10 * 1024**3


@dataclass(frozen=True, slots=True)
class Described:
    """A result as far as it is known without a run; `size` None where only a run can tell."""

    source: ObjectInfo
    identity: Identity
    etag: str
    content_type: str
    size: int | None


class Target:
    """One process's part of a target. Everything it keeps is shared with the others through `folder`.

    `elsewhere` makes the runtimes that are no plugin's, given the folder for what runs write meanwhile; without it,
    only plugins run.
    """

    def __init__(
        self,
        store: Store,
        transformers: Transformers,
        catalog: Catalog,
        folder: Path,
        *,
        limits: Limits,
        results: ResultSettings,
        elsewhere: Callable[[Path], Elsewhere] | None = None,
    ) -> None:
        self.store = store
        self.registry = Registry(transformers, catalog)
        self.limits = limits
        self._results = Results(folder / "results", max_bytes=results.max_bytes)
        self.errors = ErrorLog(folder / "errors.sqlite")
        metrics = EtlMetrics()
        scratch = self._results.scratch_folder
        apart = None if elsewhere is None else elsewhere(scratch)
        self._pipelines = Pipelines(transformers, WorkerPool(scratch), limits, metrics, apart)
        gate = Gate(ByteLocks(folder / SLOTS), limits, catalog)
        failures = Failures(self.errors, metrics)
        self._runner = Runner(store, self._results, self._pipelines, gate, Turns(folder), failures)

    # --- which result -------------------------------------------------------------------------

    def describe(self, plan: Plan, source: ObjectInfo, version_id: str = "") -> Described:
        """What LIST says of a result: its ETag needs no run and pins nothing; its size is never invented.

        Raises EtlSkipped where it is known already that the object is left out.
        """
        identity = identify(plan, source, version_id)
        wanted = Wanted(plan, source, identity, self.current(identity))
        content_type, size = self._pipelines.describe(plan, source)
        with suppress(EtlInputRejected):
            known = self._runner.known_size(wanted)
            size = size if known is None else known
        return Described(source, identity, identity.etag(wanted.generation), content_type, size)

    def current(self, identity: Identity) -> int:
        """The generation that conditions are judged against."""
        return 0 if identity.deterministic else self._results.generation(identity.base)

    async def named(self, identity: Identity) -> int:
        """The generation a HEAD or a range speaks of, pinned by it."""
        return 0 if identity.deterministic else await asyncio.to_thread(self._results.name_generation, identity.base)

    async def fresh(self, identity: Identity) -> int:
        """The generation a plain GET reads."""
        return 0 if identity.deterministic else await asyncio.to_thread(self._results.next_generation, identity.base)

    def pinned(self, identity: Identity, etags: Iterable[str]) -> int:
        """The generation If-Match names. Raises ResultPreconditionFailed for one that is gone or never was."""
        wanted = frozenset(etag.removesuffix("-1") for etag in etags)
        generation = self._results.generation_of(identity.base, wanted)
        if generation is None:
            raise ResultPreconditionFailed("The result that If-Match names is gone, or was never made")
        return generation

    # --- its bytes ----------------------------------------------------------------------------

    def known_size(self, plan: Plan, source: ObjectInfo) -> tuple[str, int | None]:
        """The result's Content-Type, and its size in bytes if that is known without a run."""
        return self._pipelines.describe(plan, source)

    def cached(self, wanted: Wanted) -> OpenResult | None:
        """The result if it is there; raises what the transformer refused the object with lately."""
        return self._runner.known(wanted)

    async def materialise(self, wanted: Wanted) -> OpenResult:
        """The whole result, made if need be; raises SlowDown past the wait budget, the work goes on."""
        return await self._runner.materialise(wanted, self.limits.wait_s)

    def start(self, wanted: Wanted) -> CachedRun:
        """Start or join the run that makes the result."""
        return self._runner.start(wanted)

    def under_way(self, wanted: Wanted) -> bool:
        """Whether the result is being made for the cache just now."""
        return self._runner.under_way(wanted)

    async def direct(self, wanted: Wanted, give_up: float) -> DirectRun:
        """Run for one client, keeping nothing; raises SlowDown when it can't begin before `give_up`."""
        return await self._runner.direct(wanted, give_up)

    def hands_over(self, plan: Plan) -> bool:
        """Whether clients that follow are to be sent to the plan's worker itself."""
        handover = self._pipelines.handover
        return handover is not None and handover.wanted(plan)

    def door(self, plan: Plan, source: ObjectInfo, until: float | None) -> Door | None:
        """A signed way to the plan's worker, no longer than `until` in epoch seconds; None where there is none now."""
        handover = self._pipelines.handover
        return None if handover is None else handover.door(plan, source, until)

    async def close(self) -> None:
        """Give up what is under way and close the index."""
        await self._runner.close()
        self._results.close()
        self.errors.close()
