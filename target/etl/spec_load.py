"""From the text of specs to specs: what is wrong is told by document, line and key, with what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from transom.target.etl.spec import RuntimeSpec, Spec, normalised
from transom.target.etl.spec_rules import faults
from transom.target.etl.spec_text import Document, SpecTextError, documents

MAX_DOCUMENTS = 100
_SHOWN_CHARS = 80
_REASONS = {
    "model_type": "write a mapping of keys",
    "dict_type": "write a mapping of keys",
    "tuple_type": "write a list",
    "string_type": "write text",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
}
_FORMS = {  # in words, what the keys with a pattern take
    "name": "1 to 32 of a-z, 0-9, '_' and '-', the first a letter or digit",
    "plugin": "a transformer's name, as `transom plugins` shows it",
    "process": "a transformer's name, as `transom plugins` shows it",
    "image": "an image's reference, such as python:3.12-slim",
    "class": "the name of a class or function",
    "entry": "the name of a class or function",
    "content_type": "a type such as image/webp",
    "extension": "an extension such as webp, without a dot",
    "[key]": "a variable's name of letters, digits and '_'",
}
_NAMES = {"class": "entry"}  # keys with two spellings, as the model knows them


class SpecError(Exception):
    """A spec can't be used; the message says all that is wrong, and is public."""


def load(
    text: str, *, overrides: Mapping[str, Any] | None = None, files: Mapping[str, str] | None = None
) -> list[Spec]:
    """Read every spec in a text, normalised. Raises SpecError, with all that is wrong.

    `overrides` are top-level keys that come before the text's own; `files` the texts that `code` and `requirements`
    may name.
    """
    try:
        found = documents(text)
    except SpecTextError as error:
        raise SpecError(str(error)) from error
    if not 0 < len(found) <= MAX_DOCUMENTS:
        raise SpecError(f"a text holds 1 to {MAX_DOCUMENTS} specs, this one {len(found)}")
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if "name" in given and len(found) > 1:
        raise SpecError(f"a name was given beside the text, which has {len(found)} specs")
    specs: list[Spec] = []
    wrong: list[str] = []
    for number, document in enumerate(found, 1):
        reader = _Reader(document, given, files or {}, _title(document, number) if len(found) > 1 else "")
        spec = reader.spec()
        wrong += reader.wrong
        if spec is not None:
            specs.append(spec)
    names = [spec.name for spec in specs]
    wrong += [f"two specs are named {name!r}" for name in sorted({name for name in names if names.count(name) > 1})]
    if wrong:
        raise SpecError("; ".join(wrong))
    return specs


class _Reader:
    """Reads one document, and gathers what is wrong with it."""

    def __init__(self, document: Document, given: Mapping[str, Any], files: Mapping[str, str], title: str) -> None:
        self._wrong: list[tuple[int, str]] = []
        self._document = document
        self._given = given
        self._files = files
        self._title = title

    @property
    def wrong(self) -> list[str]:
        """All that is wrong, from top to bottom."""
        return [message for _, message in sorted(self._wrong, key=lambda fault: fault[0])]

    def spec(self) -> Spec | None:
        """The spec, or None if anything is wrong."""
        value = self._document.value
        if not isinstance(value, dict):
            self._fault((), "a spec is a mapping with name and runtime")
            return None
        if "kind" in value and "apiVersion" in value:
            self._fault(("kind",), "this is a Kubernetes object; write a spec: name, runtime.image, communication")
            return None
        try:
            said = {key: each for key, each in value.items() if each is not None or key not in Spec.model_fields}
            spec = Spec.model_validate(self._completed({**said, **self._given}))
            json.dumps(value, ensure_ascii=False).encode()
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain(detail)
            return None
        except UnicodeEncodeError:
            self._fault((), "there is half a character in it (a lone surrogate)")
            return None
        for path, message in faults(spec):
            self._fault(path, message)
        return None if self._wrong else normalised(spec)

    def _completed(self, value: dict[str, Any]) -> dict[str, Any]:
        """The value with the texts of the files it names."""
        runtime = value.get("runtime")
        if not isinstance(runtime, dict):
            return value
        named = {
            key: self._files[runtime[key]]
            for key in ("code", "requirements")
            if isinstance(runtime.get(key), str) and runtime[key] in self._files
        }
        return {**value, "runtime": {**runtime, **named}}

    def _explain(self, detail: ErrorDetails) -> None:
        path = _path(detail["loc"])
        if detail["type"] == "extra_forbidden":
            self._fault(path, _unknown(path))
        elif detail["type"] == "missing":
            self._fault(path, "it is required")
        elif detail["type"] == "value_error":
            self._fault(path, detail["msg"].removeprefix("Value error, "))
        else:
            self._fault(path, f"{_reason(detail)}, not {_shown(detail['input'])}")

    def _fault(self, path: tuple[str | int, ...], message: str) -> None:
        where = [self._title] if self._title else []
        line = 0 if path and path[0] in self._given else self._line(path)
        if line:
            where.append(f"line {line}")
        if path:
            where[-1:] = [f"{where[-1]}: {_dotted(path)}"] if where else [_dotted(path)]
        self._wrong.append((line, f"{', '.join(where)}: {message}" if where else message))

    def _line(self, path: tuple[str | int, ...]) -> int:
        """The line of a key, by whichever of its spellings is there."""
        other = {name: key for key, name in _NAMES.items()}
        spelt = tuple(other.get(str(step), step) for step in path)
        return self._document.line(spelt if spelt in self._document.lines else path)


def _path(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A location without the words that pydantic adds for keys of mappings."""
    return tuple(step for step in loc if step != "[key]")


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "string_pattern_mismatch":
        return f"write {_FORMS[str(detail['loc'][-1])]}"
    if detail["type"] in _REASONS:
        return _REASONS[detail["type"]]
    message = detail["msg"].replace("Input should", "it should")
    return message[:1].lower() + message[1:]


def _unknown(path: tuple[str | int, ...]) -> str:
    here = _keys(path[:-1])
    key = str(path[-1])
    if len(path) == 1 and key in _keys(("runtime",)):
        return "there is no such key; write it under 'runtime'"
    if path[:-1] == ("runtime",) and key in _keys(()):
        return "there is no such key; write it beside 'runtime', not under it"
    near = difflib.get_close_matches(key, here, n=1)
    if near:
        return f"there is no such key; did you mean {near[0]!r}?"
    return f"there is no such key; there are {', '.join(here)}"


def _keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys there are at a place of a spec."""
    model: type[BaseModel] = Spec
    for step in path:
        found = _model_in(model.model_fields[str(step)].annotation) if str(step) in model.model_fields else None
        if found is None:
            return []
        model = found
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return ["class" if model is RuntimeSpec and key == "entry" else key for key in keys]


def _model_in(annotation: object) -> type[BaseModel] | None:
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _title(document: Document, number: int) -> str:
    name = document.value.get("name") if isinstance(document.value, dict) else None
    return f"document {number} ({name})" if isinstance(name, str) else f"document {number}"
