"""The text of specs, YAML or JSON, as plain values that remember which line each key stands on.

YAML is read event by event, so that no nesting, alias or tag in it can cost more than its own length. It knows no key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CHARS = 2 * 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000  # of one document, aliases counted as often as they are used
Path = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING = "tag:yaml.org,2002:str"
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,4000})|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,20}")
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_NO_LINES: Mapping[Path, int] = {}


class SpecTextError(Exception):
    """The text can't be read; `line` counts from 1, 0 where none is to blame. The message is public."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the line of each key and list element by its path."""

    value: Any
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of what stands at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def documents(text: str) -> list[Document]:
    """Read every document that isn't empty. Raises SpecTextError."""
    if len(text) > MAX_CHARS:
        raise SpecTextError(f"a spec has at most {MAX_CHARS} characters, this one {len(text)}")
    if text.lstrip().startswith("{"):
        found = _json(text)
        if found is not None:
            return [found]
    try:
        return list(_yaml(text))
    except yaml.YAMLError as error:
        raise _explained(error, text) from error


def _json(text: str) -> Document | None:
    """The text as JSON; None if it is none: it may be YAML that begins like it."""
    try:
        value = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    try:
        (document,) = _yaml(text)
    except (yaml.YAMLError, ValueError):  # JSON may hold what YAML's reader refuses: no lines, then
        return Document(value, _NO_LINES)
    return Document(value, document.lines)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise SpecTextError(f"the key {twin!r} is given twice")
    return found


def _no_number(word: str) -> float:
    raise SpecTextError(f"{word} isn't a value of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _yaml(text: str) -> Iterator[Document]:
    builder: _Builder | None = None
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            builder = _Builder()
        elif isinstance(event, yaml.DocumentEndEvent) and builder is not None:
            document, builder = builder.document(), None
            if document.value is not None:
                yield document
        elif builder is not None:
            builder.take(event)


@dataclass(slots=True)
class _Open:
    """A mapping or list that has begun."""

    value: dict[str, Any] | list[Any]
    path: Path
    anchor: str | None
    key: str | None = None

    def next_path(self) -> Path:
        return (*self.path, len(self.value) if isinstance(self.value, list) else self.key or "")


class _Builder:
    """Makes a document's value of its events."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._root: Any = None
        self._lines: dict[Path, int] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}  # the value, and how many values it is
        self._count = 0
        self._line = 0

    def document(self) -> Document:
        return Document(self._root, self._lines)

    def take(self, event: yaml.Event) -> None:
        self._line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.AliasEvent):
            value, count = self._known(str(event.anchor))
            self._grow(count)
            self._put(value)
        elif isinstance(event, yaml.ScalarEvent):
            self._grow(1)
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._grow(1)
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._key(top, event)
            return
        value = self._resolved(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._put(value)

    def _key(self, top: _Open, event: yaml.ScalarEvent) -> None:
        if event.value == "<<" and event.implicit[0]:
            raise SpecTextError("'<<' isn't used here: write the keys out", self._line)
        if event.value in top.value:
            raise SpecTextError(f"the key {event.value!r} is given twice", self._line)
        top.key = event.value
        self._lines[top.next_path()] = self._line

    def _resolved(self, event: yaml.ScalarEvent) -> Any:
        if event.tag not in (None, "!", _STRING):
            raise SpecTextError(f"the tag {event.tag!r} isn't used here", self._line)
        return _plain(event.value) if event.implicit[0] else event.value

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        if event.tag is not None:
            raise SpecTextError(f"the tag {event.tag!r} isn't used here", self._line)
        if len(self._open) >= MAX_DEPTH:
            raise SpecTextError(f"nested more than {MAX_DEPTH} deep", self._line)
        path = self._open[-1].next_path() if self._open else ()
        self._check_place()
        self._lines.setdefault(path, self._line)
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Open(value, path, event.anchor))

    def _end(self) -> None:
        ended = self._open.pop()
        if ended.anchor:
            self._anchors[ended.anchor] = (ended.value, _values_in(ended.value))
        self._put(ended.value)

    def _put(self, value: Any) -> None:
        self._check_place()
        if not self._open:
            self._root = value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            self._lines.setdefault(top.next_path(), self._line)
            top.value.append(value)
        else:
            top.value[top.key or ""] = value
            top.key = None

    def _check_place(self) -> None:
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise SpecTextError("a key is a word, not a list or a mapping", self._line)

    def _known(self, anchor: str) -> tuple[Any, int]:
        try:
            return self._anchors[anchor]
        except KeyError:
            raise SpecTextError(f"'*{anchor}' stands for nothing that ended before it", self._line) from None

    def _grow(self, count: int) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise SpecTextError(f"a spec has at most {MAX_VALUES} values, aliases counted as often as used", self._line)


def _plain(text: str) -> Any:
    """What an unquoted word of YAML 1.2 means: `no` is a word, and so are a date, 007 and what no float can hold."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text, 0 if text[:1] == "0" else 10)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else text


def _values_in(value: Any) -> int:
    """How many values there are in one; bounded, as it was counted when it was made."""
    if isinstance(value, dict):
        return 1 + sum(map(_values_in, value.values()))
    return 1 + sum(map(_values_in, value)) if isinstance(value, list) else 1


def _explained(error: yaml.YAMLError, text: str) -> SpecTextError:
    if isinstance(error, yaml.reader.ReaderError):
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 0
        return SpecTextError(f"the character {found[0]!r} can't stand in YAML" if found else "not YAML", line)
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return SpecTextError(f"not YAML: {reason}", 0 if mark is None else mark.line + 1)
