"""The transform a query asks for: etl=, AIStore's spelling, etl_args= and NAME.option=value. It knows no ETL."""

from __future__ import annotations

import re

from transom.s3compat.errors import S3Error
from transom.s3compat.operations.types import TransformAsk
from transom.s3compat.query import Query

RESERVED = frozenset(("etl", "etl_name", "etl_args", "etl_pipeline"))
OPTION = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})\.([A-Za-z_]\w*)", re.ASCII)


def touches(query: Query) -> bool:
    """Tell whether the query says anything of transforms."""
    return any(name in RESERVED or OPTION.fullmatch(name) for name in query.names)


def refuse(query: Query) -> None:
    """Refuse an etl parameter on an operation that can't transform, rather than overlook it."""
    for name in query.names:
        if name in RESERVED:
            raise _invalid(name, query.get(name) or "", f"{name} applies to GetObject and HeadObject only")


def parse(query: Query) -> TransformAsk | None:
    """Read the transform asked for; None where the query names none."""
    pipeline = _pipeline(query)
    named = frozenset(pipeline)
    args = query.get("etl_args")
    options = []
    for name, value in query.pairs:
        if match := OPTION.fullmatch(name):
            options.append((match.group(1), match.group(2), value))
            if match.group(1) not in named:
                raise _invalid(name, value, f"The option {name} belongs to no ETL that the request names")
    if not pipeline:
        if args is not None:
            raise _invalid("etl_args", args, "etl_args needs etl")
        return None
    if options and args:
        raise _invalid("etl_args", args, "Give either etl_args or NAME.option parameters, not both")
    return TransformAsk(pipeline, args or None, tuple(options))


def _pipeline(query: Query) -> tuple[str, ...]:
    given = query.first
    name, aistore, further = given.get("etl"), given.get("etl_name"), given.get("etl_pipeline")
    if len(query.pairs) > len(given):  # something is given twice
        for each in ("etl", "etl_name", "etl_pipeline", "etl_args"):
            if len(query.all(each)) > 1:
                raise _invalid(each, query.get(each) or "", f"{each} is given more than once")
    if name is not None and (aistore is not None or further is not None):
        raise _invalid("etl", name, "Give either etl or etl_name and etl_pipeline, not both")
    if name is not None:
        return _stages("etl", name, name.split(">>"))
    if aistore is None and further is None:
        return ()
    # AIStore: etl_name runs first, then what etl_pipeline lists after it.
    stages = () if aistore is None else _stages("etl_name", aistore, aistore.split(">>"))
    return stages + (() if further is None else _stages("etl_pipeline", further, further.split(",")))


def _stages(parameter: str, value: str, stages: list[str]) -> tuple[str, ...]:
    stripped = tuple(stage.strip() for stage in stages)
    if not all(stripped):
        raise _invalid(parameter, value, "The pipeline has an empty stage")
    return stripped


def _invalid(name: str, value: str, message: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)
