"""The pages about specs hold the keys there are, and examples that are right."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from transom.target.etl.spec import RUNTIMES, Resources, RuntimeSpec, Spec
from transom.target.etl.spec_load import SpecError, load
from transom.target.etl.spec_reference import render

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference" / "spec.md").read_text()
HOW_TO = (DOCS / "how-to" / "etls.md").read_text()
SAMPLES = sorted((*ROOT.glob("deploy/specs/*.yaml"), *ROOT.glob("deploy/images/*/spec.yaml")))
EXAMPLES = re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL)


def test_the_reference_is_as_the_model_has_it() -> None:
    """To bring the page up to date: python -m transom.target.etl.spec_reference."""
    assert render().strip() in REFERENCE


@pytest.mark.parametrize("model", [Spec, RuntimeSpec, Resources])
def test_every_key_is_explained(model: type[Spec]) -> None:
    assert not [name for name, field in model.model_fields.items() if not field.description]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_spec(example: str) -> None:
    load(example)


@pytest.mark.parametrize("page", ["containers", "aistore"])
def test_every_example_on_further_pages_is_a_spec(page: str) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (DOCS / "how-to" / f"{page}.md").read_text(), re.DOTALL)
    assert examples
    for example in examples:
        load(example)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_sample_is_a_spec(path: Path) -> None:
    load(path.read_text(), files={each.name: each.read_text() for each in path.parent.glob("*.py")})


def test_the_python_on_the_page_is_python() -> None:
    for source in re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL):
        ast.parse(source)


def test_there_is_an_example_of_each_runtime() -> None:
    assert {load(example)[0].kind for example in EXAMPLES} == RUNTIMES.keys() - {"process"}
    load(EXAMPLES[0].replace("plugin: image", "process: image"))  # as the page says


def test_the_error_on_the_page_is_the_error() -> None:
    with pytest.raises(SpecError) as refused:
        load("name: x\nruntime:\n  # where it is\n  imagee: a\n\n\nobj_timeout: soon\n")
    assert str(refused.value) in REFERENCE
