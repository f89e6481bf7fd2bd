"""What must hold for any archive that `tar` and `tar2tf` are given, whole or damaged, however it is cut."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plugins.tfrecords import examples
from transom.plugins import Context, Reject, manager
from transom.plugins.args import parse_args

FOUND = manager.load(entry_points=False)
CUTS = st.lists(st.integers(0, 900), max_size=8)
NAMES = st.text(st.sampled_from("ab/.é日 \n"), min_size=1, max_size=130).filter(lambda name: name[-1] != "/")
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=4)


def archive(files: Sequence[tuple[str, bytes]], format: int, mtime: float = 0) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as made:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            made.addfile(info, io.BytesIO(data))
    return output.getvalue()


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def run(name: str, chunks: Iterator[bytes], args: object = None) -> bytes:
    context = Context("b", "k", name, args=parse_args(FOUND[name], args), transformers=FOUND)
    return b"".join(FOUND[name].transform_stream(chunks, context))


@given(FILES, FORMATS, CUTS, st.sampled_from([0, 1_700_000_000, 12.5]))
def test_an_archive_comes_back_as_it_was_and_is_listed_as_tarfile_lists_it(
    files: list[tuple[str, bytes]], format: int, sizes: list[int], mtime: float
) -> None:
    data = archive(files, format, mtime)
    assert run("tar", cut(data, sizes)) == data
    listed = [json.loads(line) for line in run("tar", cut(data, sizes), {"list": "members"}).splitlines()]
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        expected = [(info.name, info.size, info.offset_data) for info in found]
    assert [(entry["name"], entry["size"], entry["offset"]) for entry in listed] == expected


@given(FILES, FORMATS, CUTS, st.sampled_from([0, 1_700_000_000, 12.5]))
def test_what_is_rewritten_is_read_by_tarfile(
    files: list[tuple[str, bytes]], format: int, sizes: list[int], mtime: float
) -> None:
    data = archive(files, format, mtime)
    made = run("tar", cut(data, sizes), {"apply": "append", "apply_args": "?"})
    with tarfile.open(fileobj=io.BytesIO(data)) as before, tarfile.open(fileobj=io.BytesIO(made)) as after:
        for old, new in zip(before, after, strict=True):
            assert (new.name, new.mtime) == (old.name, old.mtime)
            content, changed = before.extractfile(old), after.extractfile(new)
            assert content is not None
            assert changed is not None
            assert changed.read() == content.read() + b"?"


@given(FILES, FORMATS, st.data())
def test_a_damaged_archive_is_taken_or_rejected(
    files: list[tuple[str, bytes]], format: int, drawn: st.DataObject
) -> None:
    data = bytearray(archive([("a.txt", b"first"), *files], format, 12.5))
    for _ in range(drawn.draw(st.integers(1, 3))):
        data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.integers(0, 255))
    sizes = drawn.draw(CUTS)
    for name, args in (("tar", None), ("tar", {"list": "members"}), ("tar", {"apply": "upper"}), ("tar2tf", None)):
        outcomes: set[bytes | None] = set()
        for chunks in (iter([bytes(data)]), cut(bytes(data), sizes)):
            try:
                outcomes.add(run(name, chunks, args))
            except Reject:
                outcomes.add(None)
        assert len(outcomes) == 1


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.lists(st.floats(width=32, allow_nan=False), max_size=5),
    st.binary(max_size=300),
)
def test_numbers_and_bytes_come_through_tfrecord(integers: list[int], floats: list[float], data: bytes) -> None:
    files = [
        ("1.i", " ".join(map(str, integers)).encode()),
        ("1.f", ",".join(map(repr, floats)).encode()),
        ("1.b", data),
    ]
    made = run("tar2tf", iter([archive(files, tarfile.PAX_FORMAT)]), {"types": {"i": "int", "f": "float"}, "key": None})
    assert examples(made) == [{"i": integers, "f": floats, "b": [data]}]
