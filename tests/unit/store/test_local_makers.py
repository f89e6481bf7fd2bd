"""Who makes files under tmp/: whose files go, whose stay, and what races there are between the two."""

from __future__ import annotations

import fcntl
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from transom.target.store.local.makers import Maker, sweep_dead


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path


def names(root: Path) -> list[str]:
    return [path.name for path in (root / "makers").iterdir()]


def leave(root: Path, name: str) -> Path:
    """A maker as a process leaves it, with one file of it."""
    (root / "makers").mkdir(exist_ok=True)
    (root / "makers" / name).touch()
    left = root / "tmp" / f"{name}-blob"
    left.write_bytes(b"left")
    return left


def test_what_the_dead_left_goes_with_their_names(root: Path) -> None:
    maker = Maker(root)
    mine = root / "tmp" / f"{maker.name}-blob"
    mine.write_bytes(b"mine")
    left = [leave(root, "0" * 16), leave(root, "1" * 16)]
    sweep_dead(root)
    assert not any(path.exists() for path in left)
    assert mine.exists()
    assert names(root) == [maker.name]
    mine.unlink()
    maker.release()
    maker.release()
    assert not names(root)


def test_opening_sweeps(root: Path) -> None:
    left = leave(root, "0" * 16)
    maker = Maker(root)
    assert not left.exists()
    maker.release()


def test_files_of_nobody_known_stay(root: Path) -> None:
    """An earlier version's, which has no makers, may be in use: who is alone in the folder sweeps them."""
    nobodys = [root / "tmp" / name for name in ("0" * 32, f"link-{'0' * 32}-00000000", f"{'0' * 16}-blob")]
    for path in nobodys:
        path.write_bytes(b"?")
    Maker(root).release()
    assert all(path.exists() for path in nobodys)


def test_a_name_with_files_lasts_as_long_as_its_process(root: Path) -> None:
    maker = Maker(root)
    left = root / "tmp" / f"{maker.name}-link"
    left.touch()
    maker.release()
    sweep_dead(root)
    assert left.exists()
    with (root / "makers" / maker.name).open("r+") as mark, pytest.raises(BlockingIOError):
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_name_that_another_sweeps_is_left_to_it(root: Path) -> None:
    left = leave(root, "0" * 16)
    with (root / "makers" / ("0" * 16)).open("r+") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        sweep_dead(root)
        assert left.exists()
    sweep_dead(root)
    assert not left.exists()


def test_what_cannot_be_removed_keeps_its_name_and_nobody_else_from_going(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sweep that is cut off, or fails, is done again by the next."""
    stuck = root / "tmp" / f"{'0' * 16}-folder"
    first, second = leave(root, "0" * 16), leave(root, "1" * 16)
    stuck.mkdir()
    with caplog.at_level(logging.WARNING, "transom.store"):
        sweep_dead(root)
    assert "has to wait" in caplog.text
    assert names(root) == ["0" * 16]
    assert not second.exists()
    stuck.rmdir()
    sweep_dead(root)
    assert not first.exists()
    assert not names(root)


def test_a_folder_that_is_gone_fails_nothing(root: Path) -> None:
    maker = Maker(root)
    for path in ((root / "makers" / maker.name).unlink, (root / "makers").rmdir, (root / "tmp").rmdir):
        path()
    sweep_dead(root)
    maker.release()


def test_many_come_and_go_while_others_sweep(root: Path) -> None:
    """A name that is made but not locked yet looks dead: whoever loses it so takes another, and never a file."""
    done = threading.Event()

    def come_and_go() -> int:
        lost = 0
        for _ in range(200):
            maker = Maker(root)
            mine = root / "tmp" / f"{maker.name}-blob"
            mine.touch()
            sweep_dead(root)
            lost += not (mine.exists() and (root / "makers" / maker.name).exists())
            mine.unlink(missing_ok=True)
            maker.release()
        return lost

    def sweep() -> None:
        while not done.is_set():
            sweep_dead(root)

    with ThreadPoolExecutor(6) as pool:
        sweepers = [pool.submit(sweep) for _ in range(2)]
        try:
            lost = sum(future.result() for future in [pool.submit(come_and_go) for _ in range(4)])
        finally:
            done.set()
        for sweeper in sweepers:
            sweeper.result()
    assert lost == 0
    assert not names(root)
