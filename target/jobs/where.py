"""The predicate of a job's `where`: CEL, the Common Expression Language, over an object and what was made of it.

It knows nothing of stores or pipelines: it is given what it judges. docs/reference/where.md is its user's page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from transom.target.errors import JobRefused, WhereFailed
from transom.target.jobs.where_rules import check_text
from transom.target.store.base import Attributes, ObjectInfo

if TYPE_CHECKING:
    from cel import Program

MAX_OUTPUT = 1024 * 1024  # bytes of an output that a predicate reads
MAX_VALUES = 5000  # in an output that is JSON
MAX_DEPTH = 32  # of an output that is JSON
_MAX_MESSAGE = 300
_OF_OUTPUT = ("output", "output_size")
_UNTYPED = ("metadata", "tags", "output", "output_size")  # what they hold differs from object to object
_SAMPLE = ObjectInfo("bucket", "folder/name.txt", 1, "0" * 32, 0, Attributes({"content-type": "text/plain"}))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US, _LAST_US = -62_135_596_800 * 10**6, 253_402_300_799 * 10**6  # the years 1 to 9999
_SYNTAX = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


@dataclass(frozen=True, slots=True)
class Predicate:
    """A compiled predicate; make it with `parse`. Callable from any thread; it pickles as its text.

    `needs_output` says that it asks for what a pipeline makes: `before` can then leave the answer open. `reads_output`
    that it asks for more than its size.
    """

    text: str
    needs_output: bool
    reads_output: bool
    _program: Program = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Compile a predicate. Raises JobRefused for what is no predicate, can't be one or isn't bounded."""
        patterns = check_text(text)
        program = _compiled(text)
        for pattern in patterns:
            _check_pattern(pattern)
        used = set(program.variables())
        if any(name.startswith(".") for name in used):
            raise JobRefused("where: a variable's name stands without a dot before it")
        made = cls(text, any(name in used for name in _OF_OUTPUT), "output" in used, program)
        made._try(used)
        return made

    def __reduce__(self) -> tuple[Callable[[str], Predicate], tuple[str]]:
        return Predicate.parse, (self.text,)

    def before(self, info: ObjectInfo) -> bool:
        """Whether an object may be chosen, before anything is made of it; True where that depends on the output.

        Raises WhereFailed, unless the output is needed: then `after` will.
        """
        if not self.needs_output:
            return self._judge(_variables(info))
        try:
            # without the output, what depends on it is an error, and `false && error` is false
            return self._judge(_variables(info))
        except WhereFailed:
            return True

    def after(self, info: ObjectInfo, output: bytes | None, size: int) -> bool:
        """Whether an object is kept, by what was made of it: its bytes and their number. Raises WhereFailed.

        `output` may be None where `reads_output` is False, or where `size` is more than MAX_OUTPUT.
        """
        variables = _variables(info)
        if self.needs_output:
            variables["output_size"] = size
        if self.reads_output:
            variables["output"] = _value(output, size)
        return self._judge(variables)

    def _judge(self, variables: dict[str, Any]) -> bool:
        try:
            answer = self._program.execute(variables)
        except Exception as error:
            raise WhereFailed(f"where: {_reason(error)}") from error
        if not isinstance(answer, bool):
            raise WhereFailed(f"where: it gives {_kind(answer)}, not true or false")
        return answer

    def _try(self, used: set[str]) -> None:
        """Refuse what is sure to fail for every object: an operation that the types don't allow, another answer."""
        try:
            answer = self._program.execute(_variables(_SAMPLE))
        except Exception as error:
            wrong = isinstance(error, TypeError) or str(error).startswith("Undefined")
            if wrong and used.isdisjoint(_UNTYPED):
                raise JobRefused(f"where: {_reason(error)}") from error
            return
        if not isinstance(answer, bool):
            raise JobRefused(f"where: it gives {_kind(answer)}; a predicate gives true or false, as in 'size > 1000'")


def _compiled(text: str) -> Program:
    # imported only where there is a predicate: the package brings a command of its own, slow to import
    from cel import compile as compile_cel

    try:
        return compile_cel(text)
    except ValueError as error:
        found = _SYNTAX.search(str(error))
        if not text.strip() or found is None:
            raise JobRefused("where: the predicate can't be read; one is 'size > 1000'") from error
        line, column, reason = found.groups()
        raise JobRefused(f"where: line {line}, column {column}: {reason[:_MAX_MESSAGE]}") from error


def _check_pattern(pattern: str) -> None:
    try:
        _compiled(f'"".matches({pattern})').execute({})
    except RuntimeError as error:
        raise JobRefused(f"where: matches({pattern}): {_pattern_reason(error)}") from error


def _pattern_reason(error: Exception) -> str:
    """The last line of what the library says is the reason, followed by advice."""
    text = str(error).removesuffix(". Check function arguments and their types.")
    return text.strip().splitlines()[-1].removeprefix("error: ")[:_MAX_MESSAGE]


def _variables(info: ObjectInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "size": info.size,
        "metadata": dict(info.attributes.metadata),
        "tags": dict(info.attributes.tags),
        "content_type": info.content_type,
        "etag": info.etag,
        "modified": _EPOCH + timedelta(microseconds=min(max(info.modified_ns // 1000, _FIRST_US), _LAST_US)),
    }


def _value(output: bytes | None, size: int) -> Any:
    """An output as a value: what its JSON says, else its text, else None."""
    if output is None or len(output) > MAX_OUTPUT:
        raise WhereFailed(f"where: the output has {size} bytes; a predicate reads up to {MAX_OUTPUT} of one")
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise WhereFailed(f"where: the output's JSON is nested more than {MAX_DEPTH} deep") from error
    except ValueError:
        return text
    if sum(1 for _ in _leaves(value, 0)) > MAX_VALUES:
        raise WhereFailed(f"where: the output's JSON has more than {MAX_VALUES} values")
    return value


def _leaves(value: Any, depth: int) -> Iterator[None]:
    """One for each value, inner ones too."""
    if depth > MAX_DEPTH:
        raise WhereFailed(f"where: the output's JSON is nested more than {MAX_DEPTH} deep")
    yield None
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each, depth + 1)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}; ask first whether there is, as in {error} in metadata"
    text = str(error)
    if text.startswith("Undefined variable or function: "):
        name = text.split("'")[1]
        return f"'{name}' doesn't take values of these types"
    if text.startswith("Conversion Error"):
        return "the output holds a number or a text that a predicate can't"
    return text.splitlines()[0][:_MAX_MESSAGE] if text else type(error).__name__


def _kind(value: object) -> str:
    names = {int: "a number", float: "a number", str: "a text", list: "a list", dict: "a map", type(None): "null"}
    return names.get(type(value), "another value")
