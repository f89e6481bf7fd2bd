"""The configuration of each tool reaches the code: an error planted in every room is found in every room."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.trees import ROOMS, ROOT, bare_tree, run

BIN = Path(sys.executable).parent
PLANTED = '"""A module."""\n\nimport os\n\n\ndef planted() -> int:\n    """Lie."""\n    return  "text"\n'
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_tree(tmp_path_factory.mktemp("configs") / "tree", {"planted.py": PLANTED})


def found_in(output: str, message: str) -> set[str]:
    """The rooms in which a message is reported, by real path or through the link."""
    lines = [line for line in output.splitlines() if message in line]
    return {room for room in ROOMS for line in lines if re.search(rf"(^|[/ ]){room}/planted\.py", line)}


def test_mypy_checks_every_room(planted: Path) -> None:
    done = run(BIN / "mypy", "--cache-dir=/dev/null", cwd=planted)
    assert done.returncode == 1, done.stdout + done.stderr
    assert found_in(done.stdout, "Incompatible return value type") == set(ROOMS), done.stdout


def test_ruff_lints_every_room(planted: Path) -> None:
    done = run(BIN / "ruff", "check", "--no-cache", "--output-format=concise", ".", cwd=planted)
    assert found_in(done.stdout, "F401") == set(ROOMS), done.stdout


def test_ruff_formats_every_room(planted: Path) -> None:
    done = run(BIN / "ruff", "format", "--no-cache", "--check", ".", cwd=planted)
    assert found_in(done.stdout, "planted.py") == set(ROOMS), done.stdout


def test_every_room_has_a_link_and_every_link_a_room() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert set(ROOMS) == folders
    for room in ROOMS:
        assert (ROOT / "src" / "transom" / room).samefile(ROOT / room)


def test_named_folders_and_files_exist() -> None:
    tool = CONFIG["tool"]
    names = [
        *tool["pytest"]["ini_options"]["testpaths"],
        *tool["ruff"]["src"],
        *tool["setuptools"]["packages"]["find"]["where"],
        *tool["mypy"]["mypy_path"].split(":"),
        *CONFIG["project"]["license-files"],
        CONFIG["project"]["readme"],
    ]
    for name in names:
        assert (ROOT / name).exists(), name
    for pattern in tool["ruff"]["lint"]["per-file-ignores"]:
        assert list(ROOT.glob(f"{pattern}/*.py")), f"{pattern} matches nothing"


def test_entry_points_lead_somewhere() -> None:
    targets = [*CONFIG["project"]["scripts"].values(), *CONFIG["project"]["entry-points"]["transom"].values()]
    for target in targets:
        module, _, attribute = target.partition(":")
        loaded = importlib.import_module(module)
        assert not attribute or callable(getattr(loaded, attribute))


def test_pre_commit_runs_what_is_installed() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"].split()[0] for repo in config["repos"] for hook in repo["hooks"]]
    assert entries
    for entry in entries:
        assert (BIN / Path(entry).name).exists(), entry


def test_all_extra_holds_every_optional_library_but_the_large_ones() -> None:
    extras = CONFIG["project"]["optional-dependencies"]
    optional = set(extras) - {"all", "test", "check", "torch", "ray"}
    assert extras["all"] == [f"transom[{','.join(sorted(optional))}]"]


@pytest.mark.parametrize("script", ["setup", "test", "check", "demo", "bench"])
def test_scripts_can_be_run(script: str) -> None:
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    assert run("bash", "-n", path, cwd=ROOT).returncode == 0
