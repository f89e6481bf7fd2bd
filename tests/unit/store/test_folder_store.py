"""The folder store: nothing outside the folder, nothing half-changed, nothing but regular files."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from transom.target.errors import NoSuchKey, NoSuchUpload, ReadOnlyStore, SourceChanged
from transom.target.store import tree
from transom.target.store.base import Attributes, ObjectReader, Whole
from transom.target.store.conformance import body_of
from transom.target.store.folder import FolderStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"secret")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[FolderStore]:
    store = FolderStore("f", root, "o")
    yield store
    await store.close()


async def keys(store: FolderStore, **options: str) -> list[str]:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await store.list_objects("f", after=after, limit=3, **options)
        found += sorted([info.key for info in page.objects] + list(page.prefixes), key=str.encode)
        after = page.next_after
    return found


async def read_all(reader: ObjectReader) -> bytes:
    try:
        return b"".join([chunk async for chunk in reader.chunks()])
    finally:
        reader.close()


@pytest.mark.parametrize(
    "key",
    [
        "../secret.txt",
        "..",
        ".",
        "",
        "/",
        "a/../../secret.txt",
        "link",
        "linked/file",
        "inner-link",
        "loop",
        "a/./file",
        "a//file",
        "a/file/",
        "a",
        "fifo",
        "a/file\0",
        "\ud800",
        "x" * 300,
        "file/below",
    ],
)
async def test_no_key_leads_out_or_to_what_is_no_file(store: FolderStore, root: Path, key: str) -> None:
    (root / "a").mkdir()
    (root / "a" / "file").write_bytes(b"in")
    (root / "file").write_bytes(b"in")
    (root / "link").symlink_to(root.parent / "secret.txt")
    (root / "linked").symlink_to(root.parent / "outside")
    (root / "inner-link").symlink_to(root / "file")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    with pytest.raises(NoSuchKey):
        await store.open("f", key)
    with pytest.raises(NoSuchKey):
        await store.head("f", key)
    assert await keys(store) == ["a/file", "file"]
    absolute = str(root.parent / "secret.txt")
    with pytest.raises(NoSuchKey):
        await store.open("f", absolute)


async def test_the_folder_itself_may_be_reached_by_a_link(root: Path) -> None:
    (root / "file").write_bytes(b"in")
    (root.parent / "current").symlink_to(root)
    store = FolderStore("f", root.parent / "current", "o")
    assert await read_all(await store.open("f", "file")) == b"in"
    await store.close()


async def test_what_changes_while_it_is_read_breaks_off(store: FolderStore, root: Path) -> None:
    (root / "file").write_bytes(b"x" * 3_000_000)
    reader = await store.open("f", "file")
    chunks = reader.chunks()
    assert len(await anext(chunks)) > 0
    with (root / "file").open("r+b") as file:
        file.write(b"y")
        os.utime(file.fileno(), ns=(0, 0))
    with pytest.raises(SourceChanged):
        await anext(chunks)
    with pytest.raises(SourceChanged):
        reader.read_at(0, 1)
    reader.close()


async def test_what_is_cut_short_breaks_off(store: FolderStore, root: Path) -> None:
    (root / "file").write_bytes(b"x" * 1000)
    reader = await store.open("f", "file")
    os.truncate(root / "file", 10)
    with pytest.raises(SourceChanged):
        await read_all(reader)


async def test_a_file_replaced_by_another_is_read_as_it_was(store: FolderStore, root: Path) -> None:
    (root / "file").write_bytes(b"old")
    reader = await store.open("f", "file")
    (root / "new").write_bytes(b"newer")
    (root / "new").rename(root / "file")
    assert await read_all(reader) == b"old"
    assert (await store.head("f", "file")).etag != reader.info.etag


async def test_the_etag_changes_with_the_file(store: FolderStore, root: Path) -> None:
    (root / "file").write_bytes(b"one")
    first = await store.head("f", "file")
    assert first.etag.endswith("-1")
    assert (await store.head("f", "file")).etag == first.etag
    os.utime(root / "file", ns=(1, 1))
    second = await store.head("f", "file")
    assert second.etag != first.etag
    assert second.modified_ns == 1


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.jpg", "image/jpeg"),
        ("A.JPG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.txt", "text/plain"),
        ("a.txt.gz", "application/gzip"),
        ("a.tar.bz2", "application/x-bzip2"),
        ("data:x.png", "image/png"),
        ("noext", "binary/octet-stream"),
    ],
)
async def test_content_types(store: FolderStore, root: Path, name: str, content_type: str) -> None:
    (root / name).write_bytes(b"")
    assert (await store.head("f", name)).content_type == content_type


async def test_names_that_are_not_utf8_are_left_out(store: FolderStore, root: Path) -> None:
    (root / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    (root / os.fsdecode(b"d\xff")).mkdir()
    (root / "ok").write_bytes(b"")
    assert await keys(store) == ["ok"]


async def test_directories_sort_as_their_keys_do(store: FolderStore, root: Path) -> None:
    names = ["a-b/x", "a.b/x", "a/x", "a/y/z", "a0", "a!", "a/y.z", "ä/x", "b"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    assert await keys(store) == sorted(names, key=str.encode)
    assert await keys(store, delimiter="/") == ["a!", "a-b/", "a.b/", "a/", "a0", "b", "ä/"]
    assert await keys(store, prefix="a/", delimiter="/") == ["a/x", "a/y.z", "a/y/"]
    assert await keys(store, delimiter="y") == ["a!", "a-b/x", "a.b/x", "a/x", "a/y", "a0", "b", "ä/x"]


async def test_empty_directories_hold_no_keys(store: FolderStore, root: Path) -> None:
    (root / "empty" / "deeper").mkdir(parents=True)
    (root / "full" / "deeper").mkdir(parents=True)
    (root / "full" / "deeper" / "file").write_bytes(b"")
    assert await keys(store, delimiter="/") == ["full/"]
    assert await keys(store) == ["full/deeper/file"]


async def test_keys_longer_than_s3_has_are_left_out(store: FolderStore, root: Path) -> None:
    at = root
    for _ in range(5):
        at = at / ("d" * 250)
    at.mkdir(parents=True)
    (at / "file").write_bytes(b"")
    (root / "ok").write_bytes(b"")
    assert await keys(store) == ["ok"]


async def test_a_large_directory_is_read_once_until_it_changes(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []
    scan = tree._scan

    def counted(fd: int) -> object:
        scans.append(fd)
        return scan(fd)

    monkeypatch.setattr(tree, "_scan", counted)
    monkeypatch.setattr(tree, "REMEMBER_ABOVE", 5)
    for number in range(10):
        (root / f"{number}").write_bytes(b"")
    long_ago = time.time_ns() - 10**11
    os.utime(root, ns=(long_ago, long_ago))
    assert len(await keys(store)) == 10
    assert len(scans) == 1
    (root / "more").write_bytes(b"")
    assert len(await keys(store)) == 11


async def test_every_write_is_refused(store: FolderStore, root: Path) -> None:
    (root / "file").write_bytes(b"data")
    refused: list[Awaitable[object]] = [
        store.create_bucket("g", owner="o"),
        store.delete_bucket("f"),
        store.set_bucket_acl("f", "private"),
        store.put("f", "file", body_of(b"x"), Attributes()),
        store.update("f", "file", tags={}),
        store.delete("f", "file"),
        store.create_upload("f", "file", Attributes()),
        store.put_part("f", "file", "id", 1, body_of(b"x")),
        store.complete_upload("f", "file", "id", [(1, "x")]),
        store.abort_upload("f", "file", "id"),
        store.put_many("f", [Whole("file", b"new")]),
    ]
    for work in refused:
        with pytest.raises(ReadOnlyStore):
            await work
    with pytest.raises(NoSuchUpload):
        await store.upload("f", "file", "id")
    with pytest.raises(NoSuchUpload):
        await store.parts("f", "file", "id")
    assert (await store.uploads("f")).uploads == []
    assert (await store.bucket("f")).read_only
    assert (root / "file").read_bytes() == b"data"


async def test_there_is_no_path_that_anyone_could_vouch_for(store: FolderStore, root: Path) -> None:
    (root / "file").write_bytes(b"data")
    reader = await store.open("f", "file")
    assert reader.path is None
    reader.close()


def test_a_folder_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        FolderStore("f", tmp_path / "file", "o")
    with pytest.raises(FileNotFoundError):
        FolderStore("f", tmp_path / "none", "o")
