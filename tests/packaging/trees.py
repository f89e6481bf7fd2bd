"""Copies of the repository for tests that build or break it, as a clone would have it: links kept, nothing made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = tuple(sorted(path.name for path in (ROOT / "src" / "transom").iterdir() if path.is_symlink()))
_MADE = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", "*.egg-info", "build", "dist", "out", ".*_cache", ".hypothesis", "transom-data"
)


def copied_tree(destination: Path) -> Path:
    """Copy the working tree, what it holds uncommitted included."""
    shutil.copytree(ROOT, destination, symlinks=True, ignore=_MADE)
    return destination


def bare_tree(destination: Path, modules: Mapping[str, str]) -> Path:
    """A tree with the configuration files and links of this one; every room has an __init__.py and `modules`."""
    (destination / "src" / "transom").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, destination)
    for name in ("__init__.py", "py.typed"):
        shutil.copy(ROOT / "src" / "transom" / name, destination / "src" / "transom")
    for room in ROOMS:
        (destination / "src" / "transom" / room).symlink_to((ROOT / "src" / "transom" / room).readlink())
        (destination / room).mkdir()
        (destination / room / "__init__.py").write_text('"""A room."""\n')
        for name, text in modules.items():
            (destination / room / name).write_text(text)
    return destination


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a tree with `environment` and the paths of the system only."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(cwd), "LANG": "C.UTF-8", **environment}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
