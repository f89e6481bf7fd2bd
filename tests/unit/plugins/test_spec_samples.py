"""The sample specs in deploy/specs are valid as they are, and there is one for each transformer that is worth one."""

from __future__ import annotations

from pathlib import Path

import pytest

from transom.plugins import manager, nested
from transom.plugins.args import parse_args
from transom.plugins.builtin import every_transformer
from transom.target.etl.spec_load import load

SAMPLES = sorted((Path(__file__).parents[3] / "deploy" / "specs").glob("*.yaml"))
BUILT_IN = {each.name: each for each in every_transformer()}
PLAIN = {"append", "compress", "decompress", "echo", "hash", "hello_world", "image", "md5", "reverse", "text", "upper"}


def test_there_is_a_sample_for_each_transformer_with_much_to_say() -> None:
    assert set(BUILT_IN) - PLAIN <= {path.stem for path in SAMPLES}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_a_valid_spec_of_its_name(path: Path) -> None:
    (spec,) = load(path.read_text())
    assert spec.name == path.stem
    name = spec.runtime.plugin or spec.runtime.process
    if name is None:
        return
    assert name in BUILT_IN
    args = parse_args(BUILT_IN[name], spec.args)
    installed = manager.load(entry_points=False)
    assert all(inner.transformer.name in BUILT_IN for inner in nested.used(installed, BUILT_IN[name], args, etl=name))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_says_how_to_use_it(path: Path) -> None:
    assert f"transom etl init -f {path.name}" in path.read_text()
