"""tar rejects what is no archive, and archives that are cut short, damaged or meant to do harm."""

from __future__ import annotations

import bz2
import gzip
import tarfile
from collections.abc import Callable

import pytest

from tests.unit.plugins.shards import infos, tarred
from transom.plugins import Reject
from transom.plugins.builtin.tar import Tar

Run = Callable[..., bytes]  # of conftest

MIB = 1024 * 1024
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def test_bombs_are_bounded(run: Run) -> None:
    bomb = gzip.compress(tarred({"zeros": bytes(40 * MIB)}), mtime=0)
    with pytest.raises(Reject, match="max_ratio"):
        run(Tar(), bomb, {"list": "members"})
    with pytest.raises(Reject, match="more than 1048576 bytes"):
        run(Tar(), bz2.compress(tarred({"zeros": bytes(2 * MIB)})), {"list": "members", "max_unpacked": MIB})


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_that_is_cut_short_is_rejected(run: Run, format: int) -> None:
    data = tarred({"n" * 99: b"x" * 600, "a.txt": b"y"}, format=format, uid=2**21 + (format == tarfile.PAX_FORMAT) - 1)
    headers = {info.offset for info in infos(data)}
    end = data.index(b"y") // 512 * 512 + 512
    for length in [*range(1, end, 211), *(offset + 512 for offset in headers)]:
        with pytest.raises(Reject, match=r"cut short|too short"):
            run(Tar(), data[:length])
    assert run(Tar(), data[:end]) == data  # only the end mark is missing, as of archives that are appended to


@pytest.mark.parametrize(
    "data", [b"", b"x", b"plain text " * 100, bytes(100), gzip.compress(b"text" * 200, mtime=0), b"\xff" * 5000]
)
def test_what_is_no_archive_is_rejected(run: Run, data: bytes) -> None:
    with pytest.raises(Reject, match="not a tar archive"):
        run(Tar(), data)


def test_an_archive_of_nothing_is_one(run: Run) -> None:
    assert run(Tar(), bytes(10240)) == bytes(10240)
    assert run(Tar(), bytes(1024), {"list": "records"}) == b""


def _broken(change: Callable[[bytearray], None]) -> bytes:
    info = tarfile.TarInfo("1.txt")
    info.size = 5
    data = bytearray(info.tobuf() + b"12345" + bytes(507) + info.tobuf() + b"12345" + bytes(507) + bytes(1024))
    change(data)
    for start in (0, 1024):
        header = data[start : start + 512]
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(data)


def _set(start: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[start : start + len(value)] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(124, b"\xff" * 12), "a negative size"),
        (_set(124, b"nonsense  \0"), "not a tar archive"),
        (_set(1024 + 124, b"nonsense  \0"), "damaged header at byte 1024"),
        (_set(156, b"x"), "damaged pax header"),
        (_set(156, b"g"), "damaged pax header"),
    ],
)
def test_damaged_headers_are_rejected(run: Run, change: Callable[[bytearray], None], message: str) -> None:
    with pytest.raises(Reject, match=message):
        run(Tar(), _broken(change))


def _extended(payload: bytes, kind: bytes = tarfile.XHDTYPE, size: int | None = None) -> bytes:
    """A header that extends the next one, then a member "1.txt" of five bytes."""
    head, info = tarfile.TarInfo("ext"), tarfile.TarInfo("1.txt")
    head.type, head.size = kind, len(payload) if size is None else size
    info.size = 5
    return head.tobuf() + payload + bytes(-len(payload) % 512) + info.tobuf() + b"12345" + bytes(507 + 1024)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_extended(b"11 size=-5\n"), "a pax header with '-5' for a size"),
        (_extended(b"12 size=1e3\n"), "a pax header with '1e3' for a size"),
        (_extended(b"99 path=abc\n"), "damaged pax header"),
        (_extended(b"12 \xffath=abc\n"), "damaged pax header"),
        (_extended(b"0 path=abc\n"), "damaged pax header"),
        (_extended(b"path=abc\n"), "damaged pax header"),
        (_extended(b"", size=2 * MIB), "a header of 2097152 bytes"),
        (_extended(b"", kind=tarfile.GNUTYPE_LONGNAME, size=2 * MIB), "a header of 2097152 bytes"),
        (_extended(b"", kind=tarfile.XHDTYPE)[:512] * 10_000, "more headers than any tar writes"),
    ],
)
def test_extension_headers_are_bounded_and_checked(run: Run, data: bytes, message: str) -> None:
    with pytest.raises(Reject, match=message):
        run(Tar(), data)
