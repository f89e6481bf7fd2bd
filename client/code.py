"""ETLs of Python code at hand: a decorator that uploads the source of a class or function.

@etl(client, name="shout", requirements=["regex"])
def shout(data, context):
    return data.upper()

What the code needs it imports inside, or at the top of its module with `module=True`.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from transom.client.admin import AdminClient

T = TypeVar("T", bound=type[Any] | FunctionType)


def etl(
    client: AdminClient,
    *,
    name: str | None = None,
    requirements: Sequence[str] = (),
    module: bool = False,
    **settings: Any,
) -> Callable[[T], T]:
    """Upload what is decorated as an ETL, and return it unchanged once it runs on all targets.

    The ETL is called `name`, else as the class or function in lower case. `requirements` are installed beside the code.
    With `module` the whole module goes along. `settings` are other keys of a spec: communication, args, resources and
    so on. Raises AdminError where the server refuses, or the code does not start; ValueError without a source.
    """

    def upload(thing: T) -> T:
        source = source_of(thing, module=module)
        called = name or thing.__name__.lower()
        client.init_code(called, source, requirements=requirements, entry=thing.__name__, **settings)
        return thing

    return upload


def source_of(thing: type[Any] | FunctionType, *, module: bool = False) -> str:
    """The source of a class or function, or of its module, without the decorators of this module."""
    if not isinstance(thing, type | FunctionType):
        raise ValueError(f"an ETL is made of a class or a function, not of {thing!r}")  # noqa: TRY004 - as documented
    if thing.__qualname__ != thing.__name__ and module:
        raise ValueError(f"{thing.__qualname__} is not at the top of its module")
    home = sys.modules.get(thing.__module__)
    try:
        source = inspect.getsource(home if module and home is not None else thing)
    except (OSError, TypeError) as error:
        raise ValueError(f"{thing.__name__} has no source file: {error}") from error
    return _without_uploads(textwrap.dedent(source), {} if home is None else vars(home))


def _without_uploads(source: str, names: Mapping[str, Any]) -> str:
    """The source without the decorators that upload: where it runs there is no client."""
    gone: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        for decorator in getattr(node, "decorator_list", ()):
            if _is_upload(decorator, names):
                gone.update(range(decorator.lineno, (decorator.end_lineno or decorator.lineno) + 1))
    lines = source.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines, 1) if number not in gone)


def _is_upload(decorator: ast.expr, names: Mapping[str, Any]) -> bool:
    if not isinstance(decorator, ast.Call):
        return False
    found = _value(decorator.func, names)
    # a name that the module doesn't know was imported in a function: it is taken at its word
    return found is etl or (found is None and isinstance(decorator.func, ast.Name) and decorator.func.id == "etl")


def _value(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    """What a dotted name stands for; None where that isn't known."""
    if isinstance(expression, ast.Name):
        return names.get(expression.id)
    if isinstance(expression, ast.Attribute):
        return getattr(_value(expression.value, names), expression.attr, None)
    return None
