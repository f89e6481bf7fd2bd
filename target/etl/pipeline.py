"""Runs a plan over one object: a chain of blocking iterators, pulled from one thread.

Where a stage runs is decided here: a plugin's native code that releases the GIL, and small inputs, in this process; the
rest in a worker process; what is no plugin's, elsewhere. It knows nothing of caches, waiting or HTTP.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from pydantic import BaseModel

from transom.plugins.args import parse_args
from transom.plugins.checks import Shape
from transom.plugins.contract import Context, Reject, Skip, Transformer
from transom.plugins.manager import Transformers
from transom.plugins.nested import is_isolated
from transom.plugins.shapes import Folders, shape_of, stream
from transom.target.errors import (
    EtlFailed,
    EtlInputRejected,
    EtlOutOfMemory,
    EtlOutputTooLarge,
    EtlSkipped,
    SourceChanged,
    TargetError,
)
from transom.target.etl.limits import Limits
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.runtimes.elsewhere import Elsewhere
from transom.target.etl.runtimes.handover import Handover
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.spec import from_json
from transom.target.etl.stand_in import is_installed, stand_in
from transom.target.etl.transports.base import WorkerLost
from transom.target.etl.waiting import sleep
from transom.target.etl.watch import AbandonedError, Watch
from transom.target.etl.workers import Task, WorkerPool
from transom.target.store.base import ObjectInfo, ObjectReader

_READ = 1024 * 1024
_PAUSES_S = (0.1, 0.5)  # before a run whose worker was lost is begun again
_LOOK_S = 0.05
_log = logging.getLogger("transom.etl")


@dataclass(frozen=True, slots=True)
class Bound:
    """A stage with its transformer and what it will be told."""

    stage: Stage
    transformer: Transformer
    context: Context


@dataclass(frozen=True, slots=True)
class Pipelines:
    """What it takes to run plans in this process; without `elsewhere`, those of plugins only.

    With `folders`, runs over files here take theirs from these.
    """

    transformers: Transformers
    workers: WorkerPool
    limits: Limits
    metrics: EtlMetrics
    elsewhere: Elsewhere | None = None
    folders: Folders | None = None

    def bind(
        self, plan: Plan, source: ObjectInfo, deadline: float = float("inf"), scratch: Path | None = None
    ) -> list[Bound]:
        """Give each stage its transformer and context: content type and size follow the stages as far as known.

        No `scratch` is for asking only, not for a run.
        """
        return self._bind(plan, source, deadline, scratch)[0]

    def _bind(
        self, plan: Plan, source: ObjectInfo, deadline: float = float("inf"), scratch: Path | None = None
    ) -> tuple[list[Bound], str, int | None]:
        """What `bind` tells, with the output's content type and size."""
        bound: list[Bound] = []
        content_type = source.content_type
        size: int | None = source.size
        for stage in plan.stages:
            transformer = self._transformer(stage)
            context = Context(
                bucket=source.bucket,
                key=source.key,
                etl=stage.etl,
                content_type=content_type,
                size=size,
                metadata=source.attributes.metadata,
                args=parsed(transformer, stage.given) if is_installed(stage.runtime) else _plain(stage.args),
                deadline=deadline,
                logger=_logger(stage.etl),
                transformers=self.transformers,
                scratch=scratch or Path(),
            )
            bound.append(Bound(stage, transformer, context))
            content_type = transformer.content_type(context)
            size = transformer.output_size(context)
        return bound, content_type, size

    def describe(self, plan: Plan, source: ObjectInfo) -> tuple[str, int | None]:
        """The output's Content-Type, and its exact size in bytes if that is known without a run."""
        return self._bind(plan, source)[1:]

    @property
    def handover(self) -> Handover | None:
        """What sends clients to workers themselves."""
        return None if self.elsewhere is None else self.elsewhere.handover

    def close(self) -> None:
        """Stop idle workers, let go of connections and of folders."""
        self.workers.close()
        if self.folders is not None:
            self.folders.close()
        if self.elsewhere is not None:
            self.elsewhere.close()

    @contextmanager
    def holding(self, plan: Plan) -> Iterator[None]:
        """Keep the plan's workers up while the block runs, whatever becomes of their ETLs."""
        held = self.hold(plan)
        try:
            yield
        finally:
            self.let_go(held)

    def hold(self, plan: Plan) -> Sequence[int]:
        """Keep the plan's workers up until `let_go` of what is returned, whatever becomes of their ETLs."""
        return () if self.elsewhere is None else self.elsewhere.served.hold(plan)

    def let_go(self, held: Sequence[int]) -> None:
        """Keep workers up no longer."""
        if self.elsewhere is not None:
            self.elsewhere.served.let_go(held)

    def produce(self, plan: Plan, reader: ObjectReader, watch: Watch, scratch: Path) -> Generator[bytes, None, None]:
        """Yield the pipeline's output. Blocking. Raises the Etl* errors of `transom.target.errors`."""
        return self._runs(plan, reader, watch, scratch, None, None)

    def begin(
        self, plan: Plan, reader: ObjectReader, watch: Watch, scratch: Path, known: bytes | None = None
    ) -> tuple[str, int | None, Generator[bytes, None, None]]:
        """What `describe` tells with what `produce` yields, for less than asking for each.

        `known` is all that the reader would read, where that is in hand.
        """
        stages, content_type, size = self._bind(plan, reader.info, watch.deadline, scratch)
        return content_type, size, self._runs(plan, reader, watch, scratch, known, stages)

    def _runs(
        self,
        plan: Plan,
        reader: ObjectReader,
        watch: Watch,
        scratch: Path,
        known: bytes | None,
        stages: list[Bound] | None,
    ) -> Generator[bytes, None, None]:
        run = partial(self._run, plan, reader, watch, scratch, known)
        return run(stages) if plan.in_process else _run_again(run, stages, watch)

    def _run(
        self,
        plan: Plan,
        reader: ObjectReader,
        watch: Watch,
        scratch: Path,
        known: bytes | None,
        stages: list[Bound] | None,
    ) -> Generator[bytes, None, None]:
        chain = [_read(reader, known)]
        stages = stages or self.bind(plan, reader.info, watch.deadline, scratch)
        source: ObjectReader | None = reader
        for bound in stages:
            chain.append(_Stage(self, bound, watch, scratch, source).over(chain[-1]))
            source = None
        total = 0
        try:
            for piece in chain[-1]:
                total += len(piece)
                if total > self.limits.max_output:
                    raise too_large(plan, self.limits)
                watch.check()
                if piece:
                    yield piece
        finally:
            _close(chain)

    def only_waits(self, plan: Plan) -> bool:
        """Whether running a plan over a small object is little but waiting for an answer."""
        return len(plan.stages) == 1 and self.elsewhere is not None and self.elsewhere.only_waits(plan.stages[0])

    def _transformer(self, stage: Stage) -> Transformer:
        if not is_installed(stage.runtime):
            return stand_in(stage.spec)
        try:
            return self.transformers[stage.plugin]
        except KeyError:
            raise EtlFailed(f"transformer '{stage.plugin}' is not installed on this target") from None


@dataclass(slots=True)
class _Taken:
    """How much of its input a stage took, in bytes, and what that ended with."""

    size: int = 0
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage of one run; the first has the object's `reader`."""

    pipelines: Pipelines
    bound: Bound
    watch: Watch
    scratch: Path
    reader: ObjectReader | None

    def over(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Transform `chunks`, and count the run once it has ended well. Whoever calls it closes them after it.

        What the transformer raises turns into the target's errors, naming its ETL; what its input raises passes
        through as it is: that is an earlier stage's.
        """
        etl, watch = self.bound.stage.etl, self.watch
        taken = _Taken()
        made, started = 0, time.perf_counter()
        watch.stage = etl
        try:
            output = self._run(self._watched(chunks, taken))
            try:
                for piece in output:
                    made += len(piece)
                    yield piece
                    watch.stage = etl
            finally:
                output.close()
        except (TargetError, AbandonedError, WorkerLost):
            if taken.error is not None:
                raise taken.error from None
            raise
        except Exception as error:
            if taken.error is not None:
                raise taken.error from None
            if isinstance(error, TimeoutError):
                watch.check()  # a transformer that keeps to its deadline may see it pass first
            raise explain(self.bound, error) from error
        if taken.error is not None:  # a library may have swallowed it, and taken the input for ended
            raise taken.error
        self.pipelines.metrics.ran(etl, bytes_in=taken.size, bytes_out=made, seconds=time.perf_counter() - started)

    def _watched(self, chunks: Iterator[bytes], taken: _Taken) -> Generator[bytes, None, None]:
        watch, etl = self.watch, self.bound.stage.etl
        try:
            for piece in chunks:
                watch.stage = etl
                taken.size += len(piece)
                yield piece
        except Exception as error:
            taken.error = error
            raise
        watch.stage = etl

    def _run(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        bound, limits = self.bound, self.pipelines.limits
        if bound.stage.runtime != "plugin":
            return self._run_apart(chunks)
        if is_isolated(self.pipelines.transformers, bound.transformer, bound.context.args):
            return self._run_pooled(chunks)
        here = bound.transformer.releases_gil
        if not here:
            chunks, here = _is_small(chunks, bound.context.size, limits.gil_inline_size)
        if here:
            path = None
            if self.reader is not None and shape_of(bound.transformer) is Shape.FILE:
                path = self.reader.path
            return stream(
                bound.transformer,
                chunks,
                bound.context,
                path=path,
                scratch=self.scratch,
                folders=self.pipelines.folders,
                max_memory=limits.max_memory,
            )
        return self._run_pooled(chunks)

    def _run_pooled(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        stage = self.bound.stage
        task = Task(stage.plugin, stage.given, self.bound.context, self.pipelines.limits.max_memory)
        return self.pipelines.workers.run(task, chunks, self.watch)

    def _run_apart(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Run a stage that is not to run in this process, whatever its input."""
        stage, elsewhere = self.bound.stage, self.pipelines.elsewhere
        if stage.runtime == "process":
            return self._run_pooled(chunks)
        if elsewhere is None:
            raise EtlFailed(f"ETL '{stage.etl}' can't be run in this process", etl=stage.etl)
        job = Job(stage, from_json(stage.spec), self.bound.context, self.reader)
        pieces = elsewhere.run(job, chunks, self.watch)
        return pieces if job.spec.max_output is None else _bounded(stage.etl, pieces, job.spec.max_output)


def _run_again(
    run: Callable[[list[Bound] | None], Generator[bytes, None, None]], stages: list[Bound] | None, watch: Watch
) -> Generator[bytes, None, None]:
    """Run it; where a worker is lost with none of the output handed on, again from the source, a few times."""
    for pause_s in (*_PAUSES_S, None):
        begun = False
        pieces = run(stages)
        try:
            for piece in pieces:
                begun = True
                yield piece
        except WorkerLost as lost:
            if begun or pause_s is None or watch.left_s() <= pause_s:
                raise lost.error from lost
            _log.warning("a run of ETL %s begins again: %s", watch.pipeline, lost)
            _pause(pause_s, watch)
            stages = None  # its deadline may be another by now
        else:
            return
        finally:
            pieces.close()


def _close(chain: list[Generator[bytes, None, None]]) -> None:
    """Close each before the one that it reads from, whatever comes of it."""
    try:
        chain.pop().close()
    finally:
        if chain:
            _close(chain)


@lru_cache(maxsize=1024)
def _logger(etl: str) -> logging.Logger:
    return logging.getLogger(f"transom.etl.{etl}")


def too_large(plan: Plan, limits: Limits) -> EtlOutputTooLarge:
    """The error of a pipeline whose output has more bytes than any may."""
    return EtlOutputTooLarge(f"ETL '{plan.name}' made more than {limits.max_output} bytes")


@lru_cache(maxsize=1024)
def parsed(transformer: Transformer, given: str) -> BaseModel:
    """The arguments of a stage, from the JSON they travel as."""
    value, options = json.loads(given)
    return parse_args(transformer, value, options)


@lru_cache(maxsize=64)
def _plain(args: str) -> object:
    """The arguments of a stage that no transformer here is to see: one value for all its runs."""
    return json.loads(args)


def _is_small(chunks: Iterator[bytes], size: int | None, limit: int) -> tuple[Iterator[bytes], bool]:
    """Whether an input has at most `limit` bytes, looking ahead where its size isn't known; and the whole input."""
    if size is not None:
        return chunks, size <= limit
    head: list[bytes] = []
    seen = 0
    for piece in chunks:
        head.append(piece)
        seen += len(piece)
        if seen > limit:
            return itertools.chain(head, chunks), False
    return iter(head), True


def _bounded(etl: str, pieces: Generator[bytes, None, None], max_output: int) -> Generator[bytes, None, None]:
    total = 0
    try:
        for piece in pieces:
            total += len(piece)
            if total > max_output:
                raise EtlOutputTooLarge(f"ETL '{etl}' made more than {max_output} bytes", etl=etl)
            yield piece
    finally:
        pieces.close()


def _pause(pause_s: float, watch: Watch) -> None:
    end = time.monotonic() + pause_s
    while time.monotonic() < end:
        watch.check()
        sleep(_LOOK_S)


def explain(bound: Bound, error: Exception) -> TargetError:
    """The target's error for what a transformer raised, naming its ETL."""
    etl = bound.stage.etl
    reason = f": {error}" if str(error) else ""
    if isinstance(error, Skip):
        return EtlSkipped(f"ETL '{etl}' leaves this object out{reason}", etl=etl)
    if isinstance(error, Reject):
        return EtlInputRejected(f"ETL '{etl}' can't transform this object{reason}", etl=etl)
    _log.warning("ETL %s failed on %s/%s", etl, bound.context.bucket, bound.context.key, exc_info=error)
    if isinstance(error, MemoryError):
        return EtlOutOfMemory(f"ETL '{etl}' failed: out of memory{reason}", etl=etl)
    return EtlFailed(f"ETL '{etl}' failed: {type(error).__name__}{reason}", etl=etl)


def _read(reader: ObjectReader, known: bytes | None) -> Generator[bytes, None, None]:
    if known is not None:
        if known:
            yield known
        return
    offset, size = 0, reader.info.size
    while offset < size:
        piece = reader.read_at(offset, min(_READ, size - offset))
        if not piece:
            raise SourceChanged("the object ended before its size")
        offset += len(piece)
        yield piece
