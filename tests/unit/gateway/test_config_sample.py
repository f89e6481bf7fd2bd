"""The sample configuration file documents every key there is, and none that isn't, each with its default."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from transom.gateway.config import Config

SAMPLE = Path(__file__).parents[3] / "docs" / "reference" / "transom.toml"
_KEY = re.compile(r"#?(\w+) = ")
_WITHOUT_DEFAULT = re.compile(r"^#(?=\w+ = |\[\[)", re.MULTILINE)


def sections() -> dict[str, type[BaseModel]]:
    """The file's tables, by name, with what declares them."""
    found = {}
    for name, field in Config.model_fields.items():
        declared = field.annotation
        found[name] = (
            declared if isinstance(declared, type) and issubclass(declared, BaseModel) else get_args(declared)[0]
        )
    return found


def everything() -> dict[str, Any]:
    """The sample with every key in it switched on."""
    parsed = tomllib.loads(_WITHOUT_DEFAULT.sub("", SAMPLE.read_text()))
    return {name: table[0] if isinstance(table, list) else table for name, table in parsed.items()}


def test_the_sample_is_the_default_configuration() -> None:
    assert Config.model_validate(tomllib.loads(SAMPLE.read_text())) == Config()


def test_every_key_is_in_the_sample_and_no_other() -> None:
    declared = {name: set(model.model_fields) for name, model in sections().items()}
    assert {name: set(table) for name, table in everything().items()} == declared


def test_keys_with_a_default_show_it_and_only_those_without_are_switched_off() -> None:
    shown = tomllib.loads(SAMPLE.read_text())
    for name, model in sections().items():
        if name not in shown:
            continue
        with_default = {key for key, field in model.model_fields.items() if field.default is not None}
        assert set(shown[name]) == with_default


def test_optional_keys_of_keys_and_folders_show_their_default() -> None:
    for name in ("key", "folder"):
        for key, field in sections()[name].model_fields.items():
            if not field.is_required():
                assert everything()[name][key] == field.default


def test_the_sample_with_everything_switched_on_is_valid() -> None:
    parsed = tomllib.loads(_WITHOUT_DEFAULT.sub("", SAMPLE.read_text()))
    config = Config.model_validate(parsed)
    assert config.key[0].owner == "alice"
    assert config.server.tls_key is not None


def test_every_key_is_explained_on_the_line_before() -> None:
    lines = SAMPLE.read_text().splitlines()
    for before, line in pairwise(lines):
        if _KEY.match(line) and not line.startswith("#tls_key"):
            assert re.match(r"# [A-Z]\w* .{8}|# The folder\.", before), line


def test_lines_are_no_longer_than_code() -> None:
    assert max(map(len, SAMPLE.read_text().splitlines())) <= 120
