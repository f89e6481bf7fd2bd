"""Writes the reference of transformers and their arguments in Markdown, from what they declare.

`python -m transom.plugins.reference` prints the section that docs/reference/plugins.md holds for the built-in ones.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Iterator

from transom.plugins.args import allowed, schema
from transom.plugins.builtin import every_transformer
from transom.plugins.checks import Shape, shapes_of
from transom.plugins.contract import Transformer

_SHAPE_WORDS = {Shape.BYTES: "whole in memory", Shape.STREAM: "streamed", Shape.FILE: "through a file"}


def render(transformers: Iterable[Transformer]) -> str:
    """Return one section for each transformer."""
    return "\n".join("\n".join(_section(transformer)) for transformer in transformers)


def _section(transformer: Transformer) -> Iterator[str]:
    yield f"### `{transformer.name}`"
    yield ""
    yield inspect.getdoc(type(transformer)) or ""
    yield f"Input: {_SHAPE_WORDS[shapes_of(type(transformer))[0]]}."
    if not transformer.deterministic:
        yield "Another output on every run."
    yield ""
    properties = schema(transformer).get("properties", {})
    if not properties:
        return
    yield "| argument | default | allowed | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, node in properties.items():
        first = " (first)" if node.get("first") else ""
        default = f"`{json.dumps(node['default'])}`" if "default" in node else "required"
        cells = [f"`{name}`{first}", default, allowed(transformer.Args, name), node.get("description", "")]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(render(sorted(every_transformer(), key=lambda each: each.name)))
