"""What must hold for any records: how they are cut, what a shard's headers are, how values and names are read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.plugins.builtin.tar_stream import Seekable, _usual, members_of, read
from transom.plugins.contract import Reject
from transom.target.jobs.order import Sorting
from transom.target.jobs.sort.archive import end_mark, header, padding, stored_size
from transom.target.jobs.sort.cut import cut
from transom.target.jobs.sort.sources import record_of
from transom.target.jobs.sort.values import parse, rank

SIZES = st.lists(st.integers(0, 1000), max_size=60)
NAMES = st.binary(min_size=1, max_size=130).filter(lambda name: b"\0" not in name and name.strip(b"/"))
FILES = st.lists(
    st.tuples(st.text(st.sampled_from("ab/.é日"), min_size=1, max_size=120), st.binary(max_size=3000)), max_size=8
)


def shards_of(sizes: Sequence[int], sorting: Sorting) -> list[list[int]]:
    numbers = list(cut(iter(sizes), sorting, len(sizes), sum(sizes)))
    assert len(numbers) == len(sizes)
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(len(set(numbers))))
    return [[size for _, size in each] for _, each in groupby(zip(numbers, sizes, strict=True), lambda pair: pair[0])]


@given(SIZES, st.integers(1, 2000))
def test_by_size_a_shard_is_as_full_as_it_can_be_and_no_fuller_than_it_may(sizes: list[int], most: int) -> None:
    shards = shards_of(sizes, Sorting(shard_size=most))
    for shard in shards:
        assert sum(shard) <= most or len([size for size in shard if size]) == 1
    for shard, following in pairwise(shards):
        assert sum(shard) + following[0] > most


@given(SIZES, st.integers(1, 70))
def test_by_records_all_but_the_last_have_as_many(sizes: list[int], each: int) -> None:
    shards = shards_of(sizes, Sorting(shard_records=each))
    assert [len(shard) for shard in shards[:-1]] == [each] * (
        len(sizes) // each - (len(sizes) % each == 0) if sizes else 0
    )


@given(SIZES, st.integers(1, 70))
def test_by_count_there_are_as_many_none_empty_and_of_like_size(sizes: list[int], count: int) -> None:
    shards = shards_of(sizes, Sorting(shard_count=count))
    assert len(shards) == min(count, len(sizes))
    if len(sizes) < 2 * count:
        return  # so few that whole records decide
    share = sum(sizes) / count
    assert all(sum(shard) <= share + 2 * max(sizes) for shard in shards)


@given(NAMES, st.one_of(st.integers(0, 10**6), st.sampled_from([8**11 - 1, 8**11, 2**40])))
def test_a_header_is_what_tarfile_writes_and_reads(name: bytes, size: int) -> None:
    text = name.decode("utf-8", "surrogateescape")
    info = tarfile.TarInfo(text)
    info.size = size
    made = header(name, size)
    assert made == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    assert stored_size(name, size) == len(made) + size + padding(size)
    assert stored_size(name, size) % 512 == 0
    found = next(read([made, bytes(512)]) if not size else iter(read([made])))
    assert (found.name, found.size) == (text, size)


@given(NAMES, st.integers(0, 8**11 - 1), st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT]), st.data())
def test_a_usual_header_is_read_as_tarfile_reads_it(name: bytes, size: int, format: int, drawn: st.DataObject) -> None:
    info = tarfile.TarInfo(name[:100].decode("utf-8", "surrogateescape"))
    info.size, info.mtime, info.uid, info.uname, info.linkname = size, size % 10**9, 1000, "me", "x"
    block = bytearray(info.tobuf(format, "utf-8", "surrogateescape")[-512:])
    for _ in range(drawn.draw(st.integers(0, 2))):
        block[drawn.draw(st.integers(0, 511))] = drawn.draw(st.integers(0, 255))
        block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    usual = _usual(bytes(block))
    assert usual is not None or bytes(block) != info.tobuf(format, "utf-8", "surrogateescape")[-512:]
    if usual is not None:
        wanted = tarfile.TarInfo.frombuf(bytes(block), "utf-8", "surrogateescape")
        for field in ("name", "mode", "uid", "gid", "size", "mtime", "chksum", "type", "linkname", "uname", "gname"):
            assert getattr(usual, field) == getattr(wanted, field)


@given(st.integers(0, 10**7).map(lambda blocks: blocks * 512))
def test_a_shard_ends_at_a_whole_tar_record(stored: int) -> None:
    mark = end_mark(stored)
    assert (stored + len(mark)) % tarfile.RECORDSIZE == 0
    assert 1024 <= len(mark) < 1024 + tarfile.RECORDSIZE
    assert not any(mark)


def archive(files: list[tuple[str, bytes]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as made:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return output.getvalue()


@given(FILES, st.integers(1, 7), st.data())
def test_a_seekable_archive_has_the_members_of_a_stream_from_wherever_it_is_begun(
    files: list[tuple[str, bytes]], short: int, drawn: st.DataObject
) -> None:
    data = archive(files)

    def read_at(offset: int, length: int) -> bytes:
        return data[offset : offset + max(1, length // short)]

    wanted = [(member.name, member.offset, b"".join(member.chunks())) for member in read([data])]
    source = Seekable(read_at, len(data))
    found = []
    for member in members_of(source, {}):
        found.append((member.name, member.offset, b"".join(member.chunks()) if drawn.draw(st.booleans()) else None))
        if drawn.draw(st.booleans()):
            member.leave()
            source = Seekable(read_at, len(data), source.offset)
            break
    found += [(member.name, member.offset, b"".join(member.chunks())) for member in members_of(source, {})]
    assert [entry[:2] for entry in found] == [entry[:2] for entry in wanted]
    assert all(content in (None, entry[2]) for (*_, content), entry in zip(found, wanted, strict=True))
    assert source.marked


@given(FILES, st.integers(0, 3000))
def test_an_archive_that_is_cut_short_is_rejected_or_has_no_end_mark(files: list[tuple[str, bytes]], left: int) -> None:
    data = archive(files)
    kept = data[: min(left, len(data.rstrip(b"\0")) // 512 * 512)]
    source = Seekable(lambda offset, length: kept[offset : offset + length], len(kept))
    try:
        for _ in members_of(source, {}):
            pass
    except Reject:
        return
    assert not source.marked or not any(kept)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from(["", " ", "\n"]))
def test_whole_numbers_are_read(value: int, around: str) -> None:
    assert parse(f"{around}{value}{around}".encode(), "int") == value


@given(st.floats(allow_nan=False))
def test_numbers_are_read(value: float) -> None:
    assert parse(repr(value).encode(), "float") == value


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"", "int"), (b"1.0", "int"), (b"1_0", "int"), (b"0x1", "int"), (b"\xd9\xa1", "int"),  # an Arabic 1
        (b"9" * 19, "int"), (b"", "float"), (b"nan", "float"), (b"1_0", "float"), (b"one", "float"),
        (b"\xff", "text"), (b"a" * 4097, "text"),
    ],
)  # fmt: skip
def test_what_is_no_such_value_is_refused(data: bytes, values: str) -> None:
    with pytest.raises(ValueError, match=r"no whole number|no number|not text|longer than"):
        parse(data, values)  # type: ignore[arg-type]


@given(st.integers(), st.binary(max_size=50), st.binary(max_size=50))
def test_a_rank_depends_on_seed_and_name(seed: int, name: bytes, other: bytes) -> None:
    assert len(rank(seed, name)) == 16
    assert (rank(seed, name) == rank(seed, other)) == (name == other)
    assert rank(seed, name) != rank(seed + 1, name)


@pytest.mark.parametrize(
    ("name", "record", "extension"),
    [
        ("a.jpg", "a", "jpg"),
        ("a/b.c/0001.left.JPG", "a/b.c/0001", "left.jpg"),
        ("./x.y", "./x", "y"),
        ("README", "README", ""),
        ("a/.hidden.txt", "a/.hidden.txt", ""),
        ("a.b/c", "a.b/c", ""),
    ],
)
def test_records_are_named_as_webdataset_names_them(name: str, record: str, extension: str) -> None:
    assert record_of(name.encode()) == (record.encode(), extension)
