"""Small objects done at once come out as the pipeline makes them, whatever a transformer gives or raises."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.target.job_site import LIMITS, Rig, open_rig
from transom.plugins.contract import Reject, Skip
from transom.plugins.manager import Transformers
from transom.target.errors import EtlFailed, EtlOutputTooLarge, EtlTimeout, TargetError
from transom.target.etl.limits import Limits
from transom.target.etl.plan import Plan
from transom.target.etl.registry import Registry
from transom.target.etl.small import MAX_INPUT, is_plain, run_small
from transom.target.etl.watch import Watch

MIB = 1024 * 1024
BOUND = 4 * MIB


@pytest.fixture
def rig(tmp_path: Path, transformers: Transformers, registry: Registry) -> Iterator[Rig]:
    made = open_rig(tmp_path, transformers, registry)
    yield made
    made.site.close()


Outcome = bytes | tuple[type[TargetError], str, str]


def tried(make: Callable[[Watch], bytes | None]) -> Outcome | None:
    watch = Watch("p", 30)
    try:
        return make(watch)
    except TargetError as error:
        return type(error), error.message, error.etl


def both(rig: Rig, plan: Plan, data: bytes) -> tuple[Outcome | None, Outcome | None]:
    """What comes of an object at once, and by the pipeline."""
    rig.put("k", data)
    reader = rig.site.wait(rig.site.store.open("src", "k"))
    pipelines, scratch = rig.site.pipelines, rig.site.scratch

    def at_once(watch: Watch) -> bytes | None:
        made = run_small(pipelines, plan, reader, watch, scratch, BOUND)
        assert made is None or made[0] == pipelines.describe(plan, reader.info)[0]
        return None if made is None else made[1]

    def piped(watch: Watch) -> bytes:
        with closing(pipelines.produce(plan, reader, watch, scratch)) as pieces:
            return b"".join(pieces)

    try:
        return tried(at_once), tried(piped)
    finally:
        reader.close()


@pytest.mark.parametrize("data", [b"", b"one", b"x" * MIB])
@pytest.mark.parametrize(
    ("etl", "args_json"),
    [
        ("upper", None),
        ("upper>>reverse>>append>>md5", None),
        ("grow", "3000000"),
        ("empty>>md5", None),
        ("double", None),
        ("skip", '"out"'),
        ("reject>>upper", '["no", null]'),
        ("upper>>fail", '[null, "broken"]'),
        ("fail_late", "70000"),
        ("tell", None),
    ],
)
def test_installed_transformers(rig: Rig, etl: str, args_json: str | None, data: bytes) -> None:
    plan = rig.registry.plan(etl.split(">>"), args_json)
    assert is_plain(rig.site.pipelines, plan)
    at_once, piped = both(rig, plan, data)
    assert at_once == piped
    assert at_once is not None


def raising(error: Exception) -> Callable[..., Any]:
    def transform(*_: object) -> bytes:
        raise error

    return transform


async def awaited(_: object, data: bytes, __: object) -> bytes:
    return data + b"!"


@pytest.mark.parametrize(
    ("transform", "left"),
    [
        (lambda _, data, __: data + b"!", False),
        (lambda _, data, __: b"x" * (BOUND + 1), False),
        (lambda _, data, __: bytearray(data), True),
        (lambda _, data, __: memoryview(data), True),
        (lambda _, data, __: "text", True),
        (lambda _, data, __: None, True),
        (awaited, True),
        (raising(ValueError("bad")), False),
        (raising(ValueError()), False),
        (raising(TimeoutError("of its own")), False),
        (raising(Skip()), False),
        (raising(Reject("why")), False),
    ],
)
def test_whatever_a_function_of_bytes_gives(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, transform: Callable[..., Any], *, left: bool
) -> None:
    monkeypatch.setattr(type(rig.site.pipelines.transformers["reverse"]), "transform", transform)
    at_once, piped = both(rig, rig.registry.plan(["upper", "reverse"]), b"data")
    assert at_once is None if left else at_once == piped
    assert piped is not None


def late(error: Exception) -> Callable[..., Iterator[bytes]]:
    def transform_stream(*_: object) -> Iterator[bytes]:
        yield b"some"
        raise error

    return transform_stream


def of_pieces(*pieces: object) -> Callable[..., Iterator[object]]:
    def transform_stream(_: object, chunks: Iterable[bytes], __: object) -> Iterator[object]:
        yield from pieces
        yield from chunks

    return transform_stream


async def pieces_awaited(_: object, chunks: Any, __: object) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk + b"!"


@pytest.mark.parametrize(
    ("transform_stream", "left"),
    [
        (of_pieces(), False),
        (of_pieces(b"", b"a", b""), False),
        (lambda _, chunks, __: map(bytes.swapcase, chunks), False),
        (lambda _, chunks, __: [b"a", b"b"], True),
        (lambda _, chunks, __: b"no iterator of bytes", True),
        (of_pieces(bytearray(b"x")), True),
        (of_pieces("text"), True),
        (of_pieces(7), True),
        (of_pieces(*[b"x" * MIB] * 5), True),
        (pieces_awaited, True),
        (late(ValueError("bad")), False),
        (late(Skip("late")), False),
        (raising(KeyError("early")), False),
    ],
)
def test_whatever_a_function_of_a_stream_gives(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, transform_stream: Callable[..., Any], *, left: bool
) -> None:
    monkeypatch.setattr(type(rig.site.pipelines.transformers["upper"]), "transform_stream", transform_stream)
    at_once, piped = both(rig, rig.registry.plan(["upper", "reverse"]), b"data")
    assert at_once is None if left else at_once == piped
    assert piped is not None


def test_what_is_left_to_the_pipeline(rig: Rig) -> None:
    pipelines = rig.site.pipelines
    upper, releasing = rig.registry.plan(["upper"]), rig.registry.plan(["sleep"])
    assert is_plain(pipelines, upper)
    small = replace(pipelines, limits=Limits())
    assert not is_plain(small, upper)  # a larger output would have to go to a worker process
    assert is_plain(small, releasing)
    assert not is_plain(pipelines, rig.registry.plan(["ffmpeg"]))  # wants a file
    assert not is_plain(pipelines, rig.registry.plan(["upper", "sql"], '[null, "SELECT 1"]'))  # is isolated
    apart = replace(upper, stages=(replace(upper.stages[0], runtime="process"),))
    assert not is_plain(pipelines, apart)
    missing = replace(upper, stages=(replace(upper.stages[0], plugin="not-there"),))
    assert not is_plain(pipelines, missing)
    assert both(rig, upper, b"x" * (MAX_INPUT + 1))[0] is None


def test_bounds_are_the_pipelines(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.site.pipelines = replace(rig.site.pipelines, limits=replace(LIMITS, max_output=BOUND, max_memory=100))
    at_once, piped = both(rig, rig.registry.plan(["reverse"]), b"x" * 101)
    assert at_once is None
    assert piped is not None
    monkeypatch.setattr(type(rig.site.pipelines.transformers["reverse"]), "transform", lambda *_: bytes(BOUND + 1))
    at_once, piped = both(rig, rig.registry.plan(["reverse"]), b"x")
    assert at_once == piped
    assert isinstance(at_once, tuple)
    assert at_once[0] is EtlOutputTooLarge


def test_a_run_past_its_deadline_gives_nothing(rig: Rig) -> None:
    rig.put("k", b"data")
    reader = rig.site.wait(rig.site.store.open("src", "k"))
    plan = rig.registry.plan(["upper", "sleep"], "[null, 0.2]")
    try:
        with pytest.raises(EtlTimeout, match="sleep"):
            run_small(rig.site.pipelines, plan, reader, Watch("p", 0.1), rig.site.scratch, BOUND)
    finally:
        reader.close()


def test_stages_of_a_pipeline_given_up_are_closed_from_the_last_to_the_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, closed = iter(("last", "first")), list[str]()  # the last is asked first

    def transform_stream(_: object, chunks: Iterable[bytes], __: object) -> Iterator[bytes]:
        name = next(names)
        try:
            yield from [bytes(chunk) for chunk in itertools.islice(chunks, 1)]
            yield b"never asked for"
        finally:
            closed.append(name)
            raise ValueError(name)

    monkeypatch.setattr(type(rig.site.pipelines.transformers["upper"]), "transform_stream", transform_stream)
    rig.put("k", b"data")
    with closing(rig.site.wait(rig.site.store.open("src", "k"))) as reader:
        plan = rig.registry.plan(["upper", "upper"])
        pieces = rig.site.pipelines.produce(plan, reader, Watch("p", 30), rig.site.scratch)
        assert next(pieces) == b"data"
        with pytest.raises(EtlFailed, match="'upper' failed"):
            pieces.close()
    assert closed == ["last", "first"]
