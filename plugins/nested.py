"""Runs one transformer from within another, as `tar` runs `image` over the members of a shard.

What is run so was declared by `Transformer.uses`. It knows nothing of where the outer one runs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from pydantic import BaseModel

from transom.plugins.args import parse_args
from transom.plugins.contract import Context, Installed, Transformer
from transom.plugins.errors import ArgsError
from transom.plugins.shapes import MAX_MEMORY, stream

MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Nested:
    """A transformer with its arguments, to be run by another one over parts of its object."""

    transformer: Transformer
    args: BaseModel

    def context(self, outer: Context, *, key: str, content_type: str, size: int | None) -> Context:
        """Make the context of one part from the outer transformer's."""
        return replace(outer, key=key, content_type=content_type, size=size, metadata={}, args=self.args)

    def run(
        self, chunks: Iterable[bytes], context: Context, *, max_memory: int = MAX_MEMORY
    ) -> Generator[bytes, None, None]:
        """Yield the output for one part, whatever the transformer's shape; raises what it raises."""
        return stream(self.transformer, chunks, context, scratch=context.scratch, max_memory=max_memory)


def find(transformers: Installed, name: str, given: object, *, etl: str) -> Nested:
    """Look a transformer up and validate its arguments, as they come in JSON. Raises ArgsError naming `etl`."""
    transformer = transformers.get(name)
    if transformer is None:
        raise ArgsError(etl, transformers.why_not(name))
    try:
        return Nested(transformer, parse_args(transformer, given))
    except ArgsError as error:
        where = f"'{name}', argument '{error.argument}'" if error.argument else f"'{name}'"
        raise ArgsError(etl, f"of {where}: {error.reason}") from error


def is_isolated(transformers: Installed, transformer: Transformer, args: BaseModel) -> bool:
    """Tell whether a run must stay out of the server's own process: for the transformer's sake, or one that it runs."""
    return any(each.isolated for each in _every(transformers, transformer, args))


def memory_limit(transformers: Installed, transformer: Transformer, args: BaseModel) -> int | None:
    """Return how many bytes a run may add to its worker process: the least that any transformer in it declares."""
    limits = (each.memory_limit for each in _every(transformers, transformer, args))
    return min((limit for limit in limits if limit is not None), default=None)


def _every(transformers: Installed, transformer: Transformer, args: BaseModel) -> Iterator[Transformer]:
    yield transformer
    for each in used(transformers, transformer, args, etl=transformer.name):
        yield each.transformer


def used(
    transformers: Installed, transformer: Transformer, args: BaseModel, *, etl: str, depth: int = 0
) -> Iterator[Nested]:
    """List all that a run would run besides: what the transformer uses, what that uses, and so on.

    Raises ArgsError for one that isn't installed or doesn't take its arguments.
    """
    for name, given in transformer.uses(args):
        if depth == MAX_DEPTH:
            raise ArgsError(etl, f"transformers within transformers go {MAX_DEPTH} deep, not deeper")
        found = find(transformers, name, given, etl=etl)
        yield found
        yield from used(transformers, found.transformer, found.args, etl=etl, depth=depth + 1)
