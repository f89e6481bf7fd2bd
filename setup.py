"""Refuses to build where the rooms' links are no links; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

_package = Path(__file__).parent / "src" / "transom"
_broken = sorted(path.name for path in _package.iterdir() if path.is_file() and path.suffix not in (".py", ".typed"))
if _broken:
    raise SystemExit(
        f"src/transom/{_broken[0]} is a file, not a link to a folder: this checkout lost its symbolic links "
        "and would build a package with nothing in it; clone with 'git -c core.symlinks=true clone'"
    )
setup()
