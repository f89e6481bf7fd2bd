"""The plugin packages of this repository install with pip, and are found by their entry points alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transom_test_transformers import transom_transformers

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "transom-vowels"
SHOW = """
import json
from transom.plugins.manager import load
found = load()
print(json.dumps({name: [found.origin(name).distribution, found.origin(name).version] for name in found}))
"""
RUN = """
from pathlib import Path
from transom.plugins import Context
from transom.plugins.args import parse_args
from transom.plugins.manager import load
from transom.plugins.shapes import stream
vowels = load()["vowels"]
context = Context(bucket="b", key="k", etl="vowels", args=parse_args(vowels, None, {"by": "_"}))
print(b"".join(stream(vowels, [b"Hello, world"], context, scratch=Path.cwd())).decode())
"""


def installed(package: Path, folder: Path) -> Path:
    """Install a copy of the package, so that its build leaves nothing in the repository."""
    copy, site = folder / "source", folder / "site"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(site), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def python(site: Path, *arguments: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(EXAMPLE, tmp_path_factory.mktemp("example"))


def test_the_example_is_found_by_its_entry_point(example: Path, tmp_path: Path) -> None:
    assert json.loads(python(example, "-c", SHOW, folder=tmp_path))["vowels"] == ["transom-vowels", "1.0.0"]


def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    assert python(example, "-c", RUN, folder=tmp_path) == "H_ll_, w_rld\n"


def test_the_example_passes_its_own_tests(example: Path, tmp_path: Path) -> None:
    tests = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    printed = python(example, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), folder=tmp_path)
    assert " passed" in printed


def test_the_transformers_of_the_tests_install_too(tmp_path: Path) -> None:
    site = installed(ROOT / "tests" / "plugins_pkg", tmp_path)
    found = json.loads(python(site, "-c", SHOW, folder=tmp_path))
    names = {name for name, (distribution, _) in found.items() if distribution == "transom-test-transformers"}
    assert names == {transformer.name for transformer in transom_transformers()}
    assert "fail" in names
