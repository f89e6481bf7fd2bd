"""Runs a plan over one object: a chain of blocking iterators, pulled from one thread.

Where a stage runs is decided here: native code that releases the GIL, and small inputs, in this process; the rest in a
worker process. It knows nothing of caches, waiting or HTTP.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

from transom.plugins.args import parse_args
from transom.plugins.checks import Shape
from transom.plugins.contract import Context, Reject, Skip, Transformer
from transom.plugins.manager import Transformers
from transom.plugins.shapes import shape_of, stream
from transom.target.errors import (
    EtlFailed,
    EtlInputRejected,
    EtlOutputTooLarge,
    EtlSkipped,
    SourceChanged,
    TargetError,
)
from transom.target.etl.limits import Limits
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.watch import AbandonedError, Watch
from transom.target.etl.workers import Task, WorkerPool
from transom.target.store.base import ObjectInfo, ObjectReader

_READ = 1024 * 1024
_log = logging.getLogger("transom.etl")


@dataclass(frozen=True, slots=True)
class Bound:
    """A stage with its transformer and what it will be told."""

    stage: Stage
    transformer: Transformer
    context: Context


@dataclass(frozen=True, slots=True)
class Pipelines:
    """What it takes to run plans in this process."""

    transformers: Transformers
    workers: WorkerPool
    limits: Limits

    def bind(self, plan: Plan, source: ObjectInfo, deadline: float = float("inf")) -> list[Bound]:
        """Give each stage its transformer and context: content type and size follow the stages as far as known."""
        bound: list[Bound] = []
        content_type = source.content_type
        size: int | None = source.size
        for stage in plan.stages:
            transformer = self._transformer(stage.plugin)
            context = Context(
                bucket=source.bucket,
                key=source.key,
                etl=stage.etl,
                content_type=content_type,
                size=size,
                metadata=source.attributes.metadata,
                args=parsed(transformer, stage.given),
                deadline=deadline,
                logger=logging.getLogger(f"transom.etl.{stage.etl}"),
            )
            bound.append(Bound(stage, transformer, context))
            content_type = transformer.content_type(context)
            size = transformer.output_size(context)
        return bound

    def describe(self, plan: Plan, source: ObjectInfo) -> tuple[str, int | None]:
        """The output's Content-Type, and its exact size in bytes if that is known without a run."""
        last = self.bind(plan, source)[-1]
        return last.transformer.content_type(last.context), last.transformer.output_size(last.context)

    def produce(self, plan: Plan, reader: ObjectReader, watch: Watch, scratch: Path) -> Generator[bytes, None, None]:
        """Yield the pipeline's output. Blocking. Raises the Etl* errors of `transom.target.errors`."""
        chunks: Generator[bytes, None, None] = _read(reader)
        stages = self.bind(plan, reader.info, watch.deadline)
        path = reader.path if shape_of(stages[0].transformer) is Shape.FILE else None
        for bound in stages:
            chunks = _Stage(self, bound, watch, scratch, path).over(chunks)
            path = None
        total = 0
        with closing(chunks):
            for piece in chunks:
                total += len(piece)
                if total > self.limits.max_output:
                    raise EtlOutputTooLarge(f"ETL '{plan.name}' made more than {self.limits.max_output} bytes")
                watch.check()
                if piece:
                    yield piece

    def _transformer(self, plugin: str) -> Transformer:
        try:
            return self.transformers[plugin]
        except KeyError:
            raise EtlFailed(f"transformer '{plugin}' is not installed on this target") from None


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage of one run."""

    pipelines: Pipelines
    bound: Bound
    watch: Watch
    scratch: Path
    path: Path | None

    def over(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Transform `chunks`; turn what the transformer raises into the target's errors, naming its ETL.

        What its input raises passes through as it is: that is an earlier stage's.
        """
        etl = self.bound.stage.etl
        upstream: list[BaseException] = []
        try:
            self.watch.stage = etl
            with closing(self._run(self._watched(chunks, upstream))) as output:
                for piece in output:
                    yield piece
                    self.watch.stage = etl
        except (TargetError, AbandonedError):
            if upstream:
                raise upstream[0] from None
            raise
        except Exception as error:
            if upstream:
                raise upstream[0] from None
            raise _explain(self.bound, error) from error

    def _watched(self, chunks: Iterator[bytes], upstream: list[BaseException]) -> Iterator[bytes]:
        try:
            for piece in chunks:
                self.watch.stage = self.bound.stage.etl
                yield piece
        except Exception as error:
            upstream.append(error)
            raise
        self.watch.stage = self.bound.stage.etl

    def _run(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        bound, limits = self.bound, self.pipelines.limits
        here = bound.transformer.releases_gil
        if not here:
            chunks, here = _is_small(chunks, bound.context.size, limits.gil_inline_size)
        if here:
            return stream(
                bound.transformer,
                chunks,
                bound.context,
                path=self.path,
                scratch=self.scratch,
                max_memory=limits.max_memory,
            )
        task = Task(bound.stage.plugin, bound.stage.given, bound.context, limits.max_memory)
        return self.pipelines.workers.run(task, chunks, self.watch)


@lru_cache(maxsize=1024)
def parsed(transformer: Transformer, given: str) -> BaseModel:
    """The arguments of a stage, from the JSON they travel as."""
    value, options = json.loads(given)
    return parse_args(transformer, value, options)


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


def _explain(bound: Bound, error: Exception) -> TargetError:
    etl = bound.stage.etl
    reason = f": {error}" if str(error) else ""
    if isinstance(error, Skip):
        return EtlSkipped(f"ETL '{etl}' leaves this object out{reason}", etl=etl)
    if isinstance(error, Reject):
        return EtlInputRejected(f"ETL '{etl}' can't transform this object{reason}", etl=etl)
    _log.warning("ETL %s failed on %s/%s", etl, bound.context.bucket, bound.context.key, exc_info=error)
    return EtlFailed(f"ETL '{etl}' failed: {type(error).__name__}{reason}", etl=etl)


def _read(reader: ObjectReader) -> Generator[bytes, None, None]:
    offset, size = 0, reader.info.size
    while offset < size:
        piece = reader.read_at(offset, min(_READ, size - offset))
        if not piece:
            raise SourceChanged("the object ended before its size")
        offset += len(piece)
        yield piece
