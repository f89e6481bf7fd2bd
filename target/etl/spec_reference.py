"""Writes the reference of a spec's keys in Markdown, from the model that reads them.

`python -m transom.target.etl.spec_reference` prints the section that docs/reference/spec.md holds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from transom.target.etl.spec import Resources, RuntimeSpec, Spec

_TITLES: dict[type[BaseModel], str] = {Spec: "A spec", RuntimeSpec: "`runtime`", Resources: "`resources`"}
_SPELT = {"entry": "class"}


def render() -> str:
    """Return a table for each part of a spec."""
    return "\n".join(line for model in _TITLES for line in _section(model))


def _section(model: type[BaseModel]) -> Iterator[str]:
    yield f"## {_TITLES[model]}"
    yield ""
    yield "| key | default | meaning |"
    yield "| --- | --- | --- |"
    for name, field in model.model_fields.items():
        key = _SPELT.get(name, field.alias or name)
        yield f"| `{key}` | {_default(field)} | {(field.description or '').replace('|', chr(92) + '|')} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value in (None, "", (), {}) or isinstance(value, BaseModel):
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(render())
