"""Open files outlive neither their reads nor their reader, and tell what is in memory from what is not."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from transom.target.errors import SourceChanged
from transom.target.store import files
from transom.target.store.files import OpenFile, whole


def open_file(path: Path, data: bytes) -> tuple[OpenFile, int]:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    return OpenFile(fd), fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_reads_what_is_there(tmp_path: Path) -> None:
    file, _ = open_file(tmp_path / "f", b"0123456789")
    assert file.read(4, 2) == b"2345"
    assert file.read(100, 8) == b"89"
    assert file.read(5, 10) == b""
    assert file.read_cached(4, 2) in (b"2345", None)
    assert file.read_cached(4, 10) is None
    file.close()


def test_a_file_system_that_cannot_tell_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*args: object) -> int:
        asked.append(args)
        raise OSError(95, "not supported")

    file, _ = open_file(tmp_path / "f", b"0123456789")
    monkeypatch.setattr(files.os, "preadv", refuse)
    assert file.read_cached(4, 0) is None
    assert file.read_cached(4, 0) is None
    assert len(asked) == 1
    file.close()


def test_closing_waits_for_the_read_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the descriptor's number could be another file's by the time it is read."""
    reading, closed = threading.Event(), threading.Event()
    pread = os.pread

    def slow(fd: int, length: int, offset: int) -> bytes:
        reading.set()
        assert closed.wait(10)
        return pread(fd, length, offset)

    file, fd = open_file(tmp_path / "f", b"0123456789")
    monkeypatch.setattr(files.os, "pread", slow)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(file.read, 10, 0)
        assert reading.wait(10)
        file.close()
        assert is_open(fd)
        closed.set()
        assert read.result() == b"0123456789"
    assert not is_open(fd)
    with pytest.raises(ValueError, match="closed"):
        file.read(1, 0)


def test_a_forgotten_file_is_closed(tmp_path: Path) -> None:
    file, fd = open_file(tmp_path / "f", b"x")
    del file
    assert not is_open(fd)


def test_short_data_is_a_changed_source() -> None:
    assert whole(b"abc", 3, "It") == b"abc"
    with pytest.raises(SourceChanged):
        whole(b"ab", 3, "It")
