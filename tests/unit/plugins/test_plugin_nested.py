"""A transformer that runs others: what it may, with which arguments, and how deep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from transom.plugins import Context, Reject, Transformer, hookimpl, manager, nested
from transom.plugins.errors import ArgsError


class TwiceArgs(BaseModel):
    of: str = "append"
    given: Any = None


class Twice(Transformer):
    """Runs another one over its input, twice."""

    name = "twice"
    Args = TwiceArgs

    def uses(self, args: TwiceArgs) -> Iterable[tuple[str, object]]:
        return [(args.of, args.given)] * 2

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        args: TwiceArgs = context.args
        for _ in range(2):
            inner = nested.find(context.transformers, args.of, args.given, etl=context.etl)
            part = inner.context(context, key="part", content_type="text/plain", size=None)
            chunks = inner.run(chunks, part)
        yield from chunks


def load() -> manager.Transformers:
    @hookimpl
    def transom_transformers() -> Iterable[Transformer]:
        return [Twice()]

    return manager.load([SimpleNamespace(__name__="mine", transom_transformers=transom_transformers)], False)


FOUND = load()


def names(args: TwiceArgs) -> list[str]:
    return [each.transformer.name for each in nested.used(FOUND, FOUND["twice"], args, etl="mine")]


def test_a_transformer_runs_others(tmp_path: Path) -> None:
    context = Context("b", "k", "mine", args=TwiceArgs(given="?"), transformers=FOUND, scratch=tmp_path)
    assert b"".join(Twice().transform_stream([b"what"], context)) == b"what??"


def test_what_the_inner_one_raises_comes_out(tmp_path: Path) -> None:
    context = Context("b", "k", "mine", args=TwiceArgs(of="decompress"), transformers=FOUND, scratch=tmp_path)
    with pytest.raises(Reject, match="not gzip"):
        list(Twice().transform_stream([b"what"], context))


def test_the_context_of_a_part_is_its_own(tmp_path: Path) -> None:
    outer = Context(
        "b", "k", "mine", "a/b", 9, {"color": "red"}, TwiceArgs(), 5.0, transformers=FOUND, scratch=tmp_path
    )
    inner = nested.find(FOUND, "append", "?", etl="mine").context(outer, key="p", content_type="c/d", size=3)
    assert (inner.bucket, inner.etl, inner.deadline, inner.scratch) == ("b", "mine", 5.0, tmp_path)
    assert (inner.key, inner.content_type, inner.size, inner.metadata, inner.args.text) == ("p", "c/d", 3, {}, "?")


def test_all_that_is_used_is_listed_in_depth() -> None:
    assert names(TwiceArgs()) == ["append", "append"]
    assert names(TwiceArgs(of="twice", given={"of": "upper"})) == ["twice", "upper", "upper"] * 2
    assert list(nested.used(FOUND, FOUND["md5"], FOUND["md5"].Args(), etl="mine")) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (TwiceArgs(of="md6"), "ETL 'mine': there is no transformer 'md6'; did you mean 'md5'"),
        (TwiceArgs(given={"txet": 1}), "ETL 'mine': of 'append', argument 'txet': there is no such argument"),
        (TwiceArgs(of="upper", given=1), "ETL 'mine': of 'upper': it takes no arguments"),
    ],
)
def test_what_can_not_be_run_is_named(args: TwiceArgs, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        names(args)


def test_nesting_has_an_end() -> None:
    args = TwiceArgs()
    for _ in range(nested.MAX_DEPTH - 1):
        args = TwiceArgs(of="twice", given=args.model_dump())
    names(args)
    with pytest.raises(ArgsError, match="transformers within transformers go 4 deep, not deeper"):
        names(TwiceArgs(of="twice", given=args.model_dump()))


def test_with_nothing_said_of_what_is_installed_there_is_nothing() -> None:
    context = Context("b", "k", "mine")
    assert context.transformers.get("md5") is None
    with pytest.raises(ArgsError, match="there is no transformer 'md5'"):
        nested.find(context.transformers, "md5", None, etl="mine")
