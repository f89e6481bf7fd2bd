"""The reference page holds every hook and every built-in transformer as they are, and its example runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pluggy
import pytest

from transom import plugins
from transom.plugins import builtin, hookspecs, manager
from transom.plugins.contract import Transformer
from transom.plugins.reference import render

Run = Callable[..., bytes]  # of conftest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "plugins.md").read_text()
BUILT_IN = {each.name: each for each in builtin.every_transformer()}


def hooks() -> list[str]:
    asked = pluggy.PluginManager(hookspecs.PROJECT)
    asked.add_hookspecs(hookspecs)
    return sorted(vars(asked.hook))


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_documented(hook: str) -> None:
    assert f"### `{hook}" in PAGE


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_tested(hook: str) -> None:
    tests = (Path(__file__).parent / "test_plugin_manager.py").read_text()
    assert re.search(rf"@hookimpl\n\s+def {hook}\(", tests)


@pytest.mark.parametrize("name", plugins.__all__)
def test_every_name_an_author_imports_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_declaration_of_a_transformer_is_documented() -> None:
    declared = [name for name in vars(Transformer) if not name.startswith("_")] + ["name"]
    missing = [name for name in declared if f"`{name}" not in PAGE]
    assert not missing


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_arguments_of_the_built_in_transformers_are_as_documented(name: str) -> None:
    """To bring the page up to date: python -m transom.plugins.reference."""
    assert render([BUILT_IN[name]]).strip() in PAGE


def test_the_example_on_the_page_runs(run: Run) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:1]
    module = ModuleType("example_of_the_page")
    exec(source, vars(module))
    found = manager.load([module], entry_points=False)
    assert run(found["hide-digits"], [b"my card is 12", b"34"]) == b"my card is ####"
    assert run(found["hide-digits"], b"a1", "?") == b"a?"
