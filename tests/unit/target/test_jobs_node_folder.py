"""The scratch folders of workers without the data folder: each has its own, and dead ones' go."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.jobs.node_folder import NodeFolder

LEAVING = """
import sys
from transom.target.jobs.node_folder import NodeFolder
folder = NodeFolder()
(folder.path / "sub").mkdir()
(folder.path / "sub" / "file").touch()
(folder.path / "link").symlink_to(sys.argv[1])
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's folders are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"transom-node-{os.getuid()}"


def test_each_has_its_own_and_removes_it(root: Path) -> None:
    first, second = NodeFolder(), NodeFolder()
    assert first.path != second.path
    assert [each.path.stat().st_mode & 0o777 for each in (first, second)] == [0o700] * 2
    assert root.stat().st_mode & 0o777 == 0o700
    (first.path / "file").touch()
    first.remove()
    first.remove()
    assert not first.path.exists()
    assert second.path.exists()
    second.remove()
    assert not [*(root / "tmp").iterdir(), *(root / "makers").iterdir()]


def test_what_a_killed_process_left_goes_and_nothing_that_it_points_to(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    with subprocess.Popen(
        [sys.executable, "-c", LEAVING, str(elsewhere)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        NodeFolder().remove()
        assert (left / "sub" / "file").exists()
        process.kill()
        process.wait()
    folder = NodeFolder()
    assert not left.exists()
    assert (elsewhere / "kept").exists()
    folder.remove()


@pytest.mark.parametrize(
    "make", [lambda root: root.symlink_to(root.parent), lambda root: root.mkdir(0o755), Path.touch]
)
def test_a_folder_that_others_could_use_is_refused(root: Path, make: Callable[[Path], None]) -> None:
    make(root)
    with pytest.raises(EngineUnavailable, match="isn't a folder of its user's alone: remove it"):
        NodeFolder()


def test_no_room_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "not there"))
    with pytest.raises(EngineUnavailable, match=r"no temporary files can be made on a Ray node: .*not there"):
        NodeFolder()
