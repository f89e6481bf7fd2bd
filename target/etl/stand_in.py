"""What stands for an ETL whose code is elsewhere, where plans are made and answers described: its spec's word.

It runs nothing: a stage of these runtimes goes to a worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from transom.plugins.contract import Context, Transformer
from transom.target.errors import EtlArgsInvalid
from transom.target.etl.spec import Spec, from_json

_MAX_ARGS_CHARS = 16 * 1024


def is_installed(runtime: str) -> bool:
    """Whether a stage of this runtime is run by an installed transformer."""
    return runtime in ("plugin", "process")


@lru_cache(maxsize=64)
def stand_in(spec: str) -> Transformer:
    """A transformer that declares what the canonical spec says, and can't be run."""
    return _stand_in(from_json(spec))


def merged_args(etl: str, spec: Spec, value: object, options: Mapping[str, str]) -> str:
    """The arguments of one stage as the text that is part of the identity. Raises EtlArgsInvalid.

    What is asked for lies over the spec's own where both are objects; else it takes their place.
    """
    args = spec.args
    if value is not None:
        args = {**args, **value} if isinstance(args, dict) and isinstance(value, dict) else value
    if options:
        if args is not None and not isinstance(args, dict):
            raise EtlArgsInvalid(f"ETL '{etl}': options go with arguments by name, not with {json.dumps(args)[:60]}")
        twice = value.keys() & options.keys() if isinstance(value, dict) else set()
        if twice:
            raise EtlArgsInvalid(f"ETL '{etl}': '{min(twice)}' is given twice, as an option and in the arguments")
        args = {**(args or {}), **{name: _read(text) for name, text in options.items()}}
    return _canonical(etl, args)


@lru_cache(maxsize=64)
def args_text(canonical: str) -> str:
    """What a worker is sent as `etl_args`: text as it is, any other value as JSON, nothing for none."""
    value = json.loads(canonical)
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical


def _canonical(etl: str, args: object) -> str:
    """Arguments as text; objects keep their order: to some it counts, as in a list of steps."""
    try:
        text = json.dumps(args, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise EtlArgsInvalid(f"ETL '{etl}': the arguments are no JSON that can be sent on") from error
    if len(text) > _MAX_ARGS_CHARS:
        raise EtlArgsInvalid(
            f"ETL '{etl}' takes arguments of up to {_MAX_ARGS_CHARS} characters, these are {len(text)}"
        )
    return text


def _read(text: str) -> Any:
    """An option's value: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _stand_in(spec: Spec) -> Transformer:
    class StandIn(Transformer):
        name = spec.name
        deterministic = spec.deterministic is not False
        extension = spec.extension

        def content_type(self, context: Context) -> str:
            return spec.content_type or context.content_type

        def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
            raise NotImplementedError(f"ETL '{spec.name}' runs in a worker")

    return StandIn()
