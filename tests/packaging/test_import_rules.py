"""Who may import whom: the rules hold on the real tree, and each of them fails on a planted violation."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from tests.packaging.trees import ROOT, copied_tree, run

LINT = Path(sys.executable).with_name("lint-imports")

# contract -> the module that breaks it, and the import that does
PLANTED = {
    "s3compat": ("s3compat/dates.py", "starlette"),
    "cluster": ("cluster/map.py", "pydantic"),
    "plugins": ("plugins/contract.py", "aiohttp"),
    "builtin": ("plugins/builtin/digest.py", "boto3"),
    "store": ("target/store/base.py", "starlette"),
    "target-inside": ("target/etl/limits.py", "transom.s3compat.errors"),
    "target": ("target/app.py", "transom.gateway.config"),
    "gateway": ("gateway/context.py", "transom.client.boto"),
    "target-face": ("gateway/app.py", "transom.target.store.local"),
    "clients": ("cli/get.py", "transom.gateway.serve"),
    "client": ("client/boto.py", "transom.plugins.contract"),
    "worker": ("worker/contract.py", "transom.plugins.contract"),
}
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def lint(tree: Path) -> tuple[int, str]:
    done = run(LINT, "--no-cache", "--no-logo", cwd=tree, PYTHONPATH=str(tree / "src"), COLUMNS="1000")
    return done.returncode, done.stdout + done.stderr


def test_real_tree_keeps_every_rule() -> None:
    status, output = lint(ROOT)
    assert status == 0, output


@pytest.fixture(scope="module")
def violations(tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = copied_tree(tmp_path_factory.mktemp("rules") / "tree")
    for module, imported in PLANTED.values():
        with (tree / module).open("a") as file:
            file.write(f"\nimport {imported}\n")
    status, output = lint(tree)
    assert status == 1, output
    return output


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["id"])
def test_rule_fails_on_a_planted_violation(contract: dict[str, str], violations: str) -> None:
    module, imported = PLANTED[contract["id"]]
    name = "transom." + module.removesuffix(".py").replace("/", ".")
    assert f"{contract['name']} BROKEN" in violations
    section = violations.partition("Broken contracts")[2].partition(contract["name"] + "\n")[2]
    chain = [line for line in section.splitlines() if name in line and imported in line]
    assert chain, violations


def test_list_of_allowed_libraries_holds_only_what_is_imported(tmp_path: Path) -> None:
    tree = copied_tree(tmp_path / "tree")
    config = tree / "pyproject.toml"
    config.write_text(config.read_text().replace('allowed = ["xmltodict", ', 'allowed = ["requests", "xmltodict", '))
    status, output = lint(tree)
    assert status == 1
    assert "requests is allowed, and nothing imports it" in output
