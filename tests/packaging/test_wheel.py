"""What is built holds what the folders hold: the wheel, the sdist, and the wheel made from the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.trees import ROOMS, ROOT, copied_tree, run

BIN = Path(sys.executable).parent
BASH = "/bin/bash"


def source_files() -> set[str]:
    """Everything in the rooms, as the package should have it."""
    package = ROOT / "src" / "transom"
    files = {f"transom/{path.name}" for path in package.iterdir() if path.is_file()}
    for room in ROOMS:
        files |= {f"transom/{path.relative_to(ROOT)}" for path in (ROOT / room).rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


def build_wheel(tree: Path, out: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = run(*pip, out, ".", cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("transom-*.whl")
    return wheel


def packed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_tree(tmp_path_factory.mktemp("wheel") / "tree")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("wheel-out"))


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist-out")
    done = run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = out.glob("transom-*.tar.gz")
    return archive


def test_wheel_holds_what_the_rooms_hold(wheel: Path) -> None:
    assert packed(wheel) == source_files()


def test_wheel_names_the_command_the_plugins_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        by_name = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        entry_points = archive.read(by_name["entry_points.txt"]).decode()
        assert "Apache License" in archive.read(by_name["licenses/LICENSE"]).decode()
        metadata = archive.read(by_name["METADATA"]).decode()
    assert "transom = transom.cli.main:main" in entry_points
    assert "builtin = transom.plugins.builtin" in entry_points
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_wheel_made_from_the_sdist_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert packed(build_wheel(unpacked, tmp_path / "out")) == packed(wheel)


def test_links_are_links_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "ls-files", "--stage", "src/transom"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modes = {Path(line.split("\t")[1]).name: line.split()[0] for line in done.stdout.splitlines()}
    for room in ROOMS:
        assert modes.get(room, "120000") == "120000", room


def without_links(tree: Path) -> Path:
    """Turn the links into text files, as git does where core.symlinks is false."""
    for room in ROOMS:
        link = tree / "src" / "transom" / room
        text = str(link.readlink())
        link.unlink()
        link.write_text(text)
    return tree


def test_setup_refuses_a_checkout_without_links(tmp_path: Path) -> None:
    tree = without_links(copied_tree(tmp_path / "tree"))
    done = run(BASH, "scripts/setup", cwd=tree)
    assert done.returncode == 1
    assert "this checkout lost its symbolic links" in done.stderr
    assert not (tree / ".venv").exists()


def test_build_refuses_a_checkout_without_links(tmp_path: Path) -> None:
    tree = without_links(copied_tree(tmp_path / "tree"))
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = run(*pip, tmp_path / "out", ".", cwd=tree)
    assert done.returncode != 0
    assert "lost its symbolic links" in done.stdout + done.stderr
