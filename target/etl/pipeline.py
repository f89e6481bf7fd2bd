"""Runs a plan over one object: a chain of blocking iterators, pulled from one thread.

Where a stage runs is decided here: native code that releases the GIL, and small inputs, in this process; the rest in a
worker process. It knows nothing of caches, waiting or HTTP.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

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
    EtlTimeout,
    SourceChanged,
    TargetError,
)
from transom.target.etl.limits import Limits
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.workers import WorkerPool
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
        content_type, known = source.content_type, cast("int | None", source.size)
        for stage in plan.stages:
            transformer = self._transformer(stage.plugin)
            context = Context(
                bucket=source.bucket,
                key=source.key,
                etl=stage.etl,
                content_type=content_type,
                size=known,
                metadata=source.attributes.metadata,
                args=parsed(transformer, stage.given),
                deadline=deadline,
                logger=logging.getLogger(f"transom.etl.{stage.etl}"),
            )
            bound.append(Bound(stage, transformer, context))
            content_type = transformer.content_type(context)
            known = transformer.output_size(context)
        return bound

    def describe(self, plan: Plan, source: ObjectInfo) -> tuple[str, int | None]:
        """The output's Content-Type, and its exact size in bytes if that is known without a run."""
        last = self.bind(plan, source)[-1]
        return last.transformer.content_type(last.context), last.transformer.output_size(last.context)

    def produce(self, plan: Plan, reader: ObjectReader, deadline: float, scratch: Path) -> Generator[bytes, None, None]:
        """Yield the pipeline's output. Blocking. Raises the Etl* errors of `transom.target.errors`."""
        chunks = _read(reader)
        small = reader.info.size <= self.limits.gil_inline_size
        stages = self.bind(plan, reader.info, deadline)
        path = reader.path if shape_of(stages[0].transformer) is Shape.FILE else None
        for bound in stages:
            chunks = self._stage(bound, chunks, path, scratch, small)
            path = None
        total = 0
        for piece in chunks:
            total += len(piece)
            if total > self.limits.max_output:
                raise EtlOutputTooLarge(f"ETL '{plan.name}' made more than {self.limits.max_output} bytes")
            if time.monotonic() > deadline:
                raise EtlTimeout(f"ETL '{plan.name}' passed its deadline")
            if piece:
                yield piece

    def _stage(
        self, bound: Bound, chunks: Iterator[bytes], path: Path | None, scratch: Path, small: bool
    ) -> Iterator[bytes]:
        if small or bound.transformer.releases_gil:
            output = _here(bound, path, scratch, self.limits.max_memory)
        else:
            output = self._in_worker(bound)
        return _explained(bound, output, chunks)

    def _in_worker(self, bound: Bound) -> Callable[[Iterator[bytes]], Iterator[bytes]]:
        return lambda chunks: self.workers.run(bound.stage.plugin, bound.stage.given, chunks, bound.context)

    def _transformer(self, plugin: str) -> Transformer:
        try:
            return self.transformers[plugin]
        except KeyError:
            raise EtlFailed(f"transformer '{plugin}' is not installed on this target") from None


@lru_cache(maxsize=1024)
def parsed(transformer: Transformer, given: str) -> BaseModel:
    """The arguments of a stage, from the JSON they travel as."""
    value, options = json.loads(given)
    return parse_args(transformer, value, options)


def _here(
    bound: Bound, path: Path | None, scratch: Path, max_memory: int
) -> Callable[[Iterator[bytes]], Iterator[bytes]]:
    return lambda chunks: stream(
        bound.transformer, chunks, bound.context, path=path, scratch=scratch, max_memory=max_memory
    )


def _explained(
    bound: Bound, run: Callable[[Iterator[bytes]], Iterator[bytes]], chunks: Iterator[bytes]
) -> Iterator[bytes]:
    """Turn what a transformer raises into the target's errors, naming its ETL; what its input raises passes through."""
    etl = bound.stage.etl
    upstream: list[BaseException] = []

    def watched() -> Iterator[bytes]:
        try:
            yield from chunks
        except Exception as error:
            upstream.append(error)
            raise

    try:
        yield from run(watched())
    except TargetError:
        raise
    except Exception as error:
        if upstream:
            raise upstream[0] from None
        if isinstance(error, Skip):
            raise EtlSkipped(f"ETL '{etl}' leaves this object out{_reason(error)}") from error
        if isinstance(error, Reject):
            raise EtlInputRejected(f"ETL '{etl}' can't transform this object{_reason(error)}") from error
        _log.warning("ETL %s failed on %s/%s", etl, bound.context.bucket, bound.context.key, exc_info=error)
        raise EtlFailed(f"ETL '{etl}' failed: {type(error).__name__}{_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f": {error}" if str(error) else ""


def _read(reader: ObjectReader) -> Iterator[bytes]:
    offset, size = 0, reader.info.size
    while offset < size:
        piece = reader.read_at(offset, min(_READ, size - offset))
        if not piece:
            raise SourceChanged("the object ended before its size")
        offset += len(piece)
        yield piece
