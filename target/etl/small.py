"""Runs a plan over a small object at once, where nothing of the pipeline's machinery is needed; else leaves it to that.

What comes out, and what is raised, is the same. It knows nothing of caches, waiting or HTTP.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from pathlib import Path

from transom.plugins.checks import Shape
from transom.plugins.nested import is_isolated
from transom.plugins.shapes import shape_of
from transom.target.errors import SourceChanged, TargetError
from transom.target.etl.pipeline import Bound, Pipelines, explain, parsed, too_large
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.watch import Watch
from transom.target.store.base import ObjectReader

MAX_INPUT = 1024 * 1024  # what the pipeline reads at once: a stream is cut alike


def is_plain(pipelines: Pipelines, plan: Plan) -> bool:
    """Whether every stage is a plain function that may run in this process, whatever its input's size."""
    return all(_is_plain(pipelines, stage) for stage in plan.stages)


def _is_plain(pipelines: Pipelines, stage: Stage) -> bool:
    transformer = pipelines.transformers.get(stage.plugin) if stage.runtime == "plugin" else None
    if transformer is None or shape_of(transformer) is Shape.FILE:
        return False
    if is_isolated(pipelines.transformers, transformer, parsed(transformer, stage.given)):
        return False
    return transformer.releases_gil or pipelines.limits.gil_inline_size >= pipelines.limits.max_output


def run_small(
    pipelines: Pipelines, plan: Plan, reader: ObjectReader, watch: Watch, scratch: Path, max_output: int
) -> tuple[str, bytes] | None:
    """The output's Content-Type and all of it; None if this object needs the pipeline. `plan` is plain. Blocking.

    A stream that turns out to have more than `max_output` bytes is begun anew by the pipeline then.
    """
    size, limits = reader.info.size, pipelines.limits
    if size > MAX_INPUT or max_output > limits.max_output:
        return None
    data = reader.read_at(0, size)
    if len(data) != size:
        raise SourceChanged("the object ended before its size")
    stages = pipelines.bind(plan, reader.info, watch.deadline, scratch)
    for bound in stages:
        made = _made(pipelines, bound, data, watch, max_output) if len(data) <= limits.max_memory else None
        if made is None:
            return None
        data = made
    if len(data) > limits.max_output:
        raise too_large(plan, limits)
    last = stages[-1]
    return last.transformer.content_type(last.context), data


def _made(pipelines: Pipelines, bound: Bound, data: bytes, watch: Watch, max_output: int) -> bytes | None:
    watch.stage = bound.stage.etl
    started = time.perf_counter()
    try:
        made = _called(bound, data, max_output)
    except TargetError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError):
            watch.check()  # a transformer that keeps to its deadline may see it pass first
        raise explain(bound, error) from error
    watch.check()
    if made is not None:
        seconds = time.perf_counter() - started
        pipelines.metrics.ran(bound.stage.etl, bytes_in=len(data), bytes_out=len(made), seconds=seconds)
    return made


def _called(bound: Bound, data: bytes, max_output: int) -> bytes | None:
    transformer = bound.transformer
    if shape_of(transformer) is Shape.BYTES:
        given: object = transformer.transform(data, bound.context)
        if type(given) is bytes:
            return given
        _forget(given)
        return None
    given = transformer.transform_stream(iter((data,) if data else ()), bound.context)
    if not isinstance(given, Iterator):
        _forget(given)
        return None
    pieces: list[bytes] = []
    left = max_output
    try:
        for piece in given:
            if type(piece) is not bytes:
                return None
            left -= len(piece)
            if left < 0:
                return None
            pieces.append(piece)
    finally:
        close = getattr(given, "close", None)
        if close is not None:
            close()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _forget(given: object) -> None:
    """Leave it to the pipeline, which awaits what is to be awaited and refuses what is no bytes."""
    if inspect.iscoroutine(given):
        given.close()
