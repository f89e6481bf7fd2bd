"""The checks a transformer passes before it is registered; each refusal names the transformer and the remedy."""

from __future__ import annotations

import inspect
import re
from enum import Enum

from pydantic import BaseModel

from transom.plugins.args import first_fields
from transom.plugins.contract import Transformer
from transom.plugins.errors import LoadError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_EXTENSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}(\.[A-Za-z0-9_-]{1,31}){0,3}")


class Shape(Enum):
    """Which method a transformer's author wrote; the value is the method's name."""

    BYTES = "transform"
    STREAM = "transform_stream"
    FILE = "transform_file"


def valid_name(name: str) -> bool:
    """Tell whether `name` may name a transformer or an ETL: `[a-z0-9][a-z0-9_-]{0,31}`, no `--`."""
    return _NAME.fullmatch(name) is not None and "--" not in name


def shapes_of(kind: type) -> list[Shape]:
    """List the shapes that a transformer's class overrides."""
    return [shape for shape in Shape if getattr(kind, shape.value) is not getattr(Transformer, shape.value)]


def check_transformer(transformer: object) -> Transformer:
    """Return `transformer` if it keeps the contract. Raises LoadError."""
    if isinstance(transformer, type) and issubclass(transformer, Transformer):
        raise LoadError(f"{transformer.__qualname__} is a class; give an instance: {transformer.__qualname__}()")
    if not isinstance(transformer, Transformer):
        raise LoadError(f"{transformer!r} is no transom.plugins.Transformer")
    _check_name(transformer)
    _check_shape(transformer)
    _check_declarations(transformer)
    _check_args(transformer)
    return transformer


def _check_name(transformer: Transformer) -> None:
    name = getattr(transformer, "name", None)
    if not isinstance(name, str):
        raise LoadError(f"{type(transformer).__qualname__} has no name: set the class attribute 'name'")
    if not valid_name(name):
        raise LoadError(f"transformer name {name!r} must be [a-z0-9][a-z0-9_-]{{0,31}} without '--'")


def _check_shape(transformer: Transformer) -> None:
    written = [shape.value for shape in shapes_of(type(transformer))]
    if len(written) == 1:
        return
    choice = ", ".join(shape.value for shape in Shape)
    found = "none of them" if not written else " and ".join(written)
    raise LoadError(f"transformer '{transformer.name}' must implement exactly one of {choice}; it has {found}")


def _check_declarations(transformer: Transformer) -> None:
    name = transformer.name
    if not isinstance(transformer.version, str) or not transformer.version:
        raise LoadError(f"transformer '{name}': version must be a non-empty string, not {transformer.version!r}")
    for flag in ("deterministic", "releases_gil", "isolated"):
        if not isinstance(getattr(transformer, flag), bool):
            raise LoadError(f"transformer '{name}': {flag} must be True or False")
    limit = transformer.memory_limit
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise LoadError(f"transformer '{name}': memory_limit must be a number of bytes, not {limit!r}")
    extension = transformer.extension
    if extension is not None and not (isinstance(extension, str) and _EXTENSION.fullmatch(extension)):
        raise LoadError(f"transformer '{name}': extension must be like 'jpg', without a dot, not {extension!r}")
    for method in ("content_type", "output_extension", "output_key", "output_size", "uses"):
        if inspect.iscoroutinefunction(getattr(transformer, method)):
            raise LoadError(f"transformer '{name}': {method} must not be async: it is asked before any run")


def _check_args(transformer: Transformer) -> None:
    model = transformer.Args
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise LoadError(f"transformer '{transformer.name}': Args must be a pydantic model class, not {model!r}")
    try:
        model.model_json_schema()
    except Exception as error:  # pydantic lets an author's own schema hooks raise anything
        raise LoadError(f"transformer '{transformer.name}': Args has no JSON schema: {error}") from error
    first = first_fields(model)
    if len(first) > 1:
        raise LoadError(f"transformer '{transformer.name}': more than one argument is marked first: {', '.join(first)}")
