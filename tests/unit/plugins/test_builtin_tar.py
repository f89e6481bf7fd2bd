"""tar picks, lists and transforms members in one pass, and gives back byte for byte what it doesn't change."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.unit.plugins.shards import infos, tarred, untarred
from transom.plugins import Context, Reject, Skip, Transformer, manager
from transom.plugins.args import parse_args
from transom.plugins.builtin.shard import matches, record_name
from transom.plugins.builtin.tar import Tar
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

MIB = 1024 * 1024
FOUND = manager.load(entry_points=False)

SHARD = {
    "a/0001.jpg": b"JPG1" * 100,
    "a/0001.cls": b"7",
    "a/0001.left.png": b"PNG1",
    "a/0002.jpg": b"JPG2",
    "a/0002.cls": b"8",
    "a/0003.jpg": b"",
    "a/0003.cls": b"9",
}
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
ODD_NAMES = {
    "x" * 90 + "/" + "y" * 90: b"long",
    "z" * 300 + ".txt": b"longer",
    "naïve/ünïcode-日本.txt": "日本".encode(),
    b"latin\xe9.txt".decode("utf-8", "surrogateescape"): b"no utf-8",
    "with space\nand newline.txt": b"",
    "./dotted.txt": b"d",
    "../../etc/passwd": b"not to be written anywhere",
    "/absolute.txt": b"nor this",
}


def gnu_tar(folder: Path, *options: str) -> bytes:
    if not shutil.which("tar"):
        pytest.skip("no tar program")
    return subprocess.run(["tar", *options, "-cf", "-", "."], cwd=folder, check=True, capture_output=True).stdout


def listed(run: Run, data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(Tar(), data, {"list": "members"}).splitlines()]


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_with_nothing_asked_comes_back_byte_for_byte(run: Run, format: int) -> None:
    data = tarred(SHARD, format=format, mtime=1_700_000_000, mode=0o640, uid=2**21 - 1, uname="somebody")
    assert run(Tar(), data) == data


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_odd_names_stay_as_they_are(run: Run, format: int) -> None:
    data = tarred(ODD_NAMES, format=format, mtime=12.5)
    assert run(Tar(), data) == data
    names = [entry["name"] for entry in listed(run, data)]
    assert names == [name.replace("\udce9", "\ufffd") for name in ODD_NAMES]
    for name, content in zip(names, ODD_NAMES.values(), strict=True):
        assert run(Tar(), data, {"extract": name}) == content


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["--format=v7"], ["--format=oldgnu"]])
def test_what_gnu_tar_writes_comes_back_byte_for_byte(run: Run, tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "in"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "file.txt").write_bytes(b"text" * 1000)
    (folder / "d" / "hard").hardlink_to(folder / "d" / "file.txt")
    (folder / "link").symlink_to("/etc/passwd")
    data = gnu_tar(folder, *options)
    assert run(Tar(), data) == data
    kinds = {entry["name"]: entry["type"] for entry in listed(run, data)}
    assert kinds["./link"] == "link"
    assert kinds["."] == kinds["./d"] == "directory"
    assert sorted([kinds["./d/file.txt"], kinds["./d/hard"]]) == ["file", "link"]


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["--format=posix", "--sparse-version=0.1"]])
def test_sparse_files_pass_unchanged_and_are_not_read(run: Run, tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with (folder / "holes.bin").open("wb") as file:
        for number in range(40):
            file.seek(number * 300_000)
            file.write(b"data")
    (folder / "last.txt").write_bytes(b"after")
    data = gnu_tar(folder, "--sparse", "--sort=name", *options)
    assert run(Tar(), data) == data
    assert run(Tar(), data, {"apply": "upper"}, installed=FOUND).count(b"AFTER") == 1
    entries = {entry["name"]: entry for entry in listed(run, data)}
    assert entries["./holes.bin"]["type"] == "sparse file"
    assert entries["./holes.bin"]["size"] == 39 * 300_000 + 4
    with pytest.raises(Reject, match=r"member './holes.bin' is a sparse file"):
        run(Tar(), data, "./holes.bin")
    assert run(Tar(), data, "./last.txt") == b"after"


def test_a_member_is_extracted_by_its_whole_name(run: Run) -> None:
    data = tarred(SHARD)
    for name, content in SHARD.items():
        assert run(Tar(), data, name) == content


def test_the_archive_is_read_no_further_than_the_member(run: Run) -> None:
    data = tarred(SHARD)

    def chunks() -> Iterator[bytes]:
        yield data[:2048]
        raise AssertionError("read on")

    context = Context("b", "k", "tar", args=parse_args(Tar(), "a/0001.jpg"))
    assert b"".join(Tar().transform_stream(chunks(), context)) == SHARD["a/0001.jpg"]


def test_a_member_that_is_not_there_is_skipped_by_name(run: Run) -> None:
    with pytest.raises(Skip, match=r"the archive has no member 'a/0009\.jpg'"):
        run(Tar(), tarred(SHARD), "a/0009.jpg")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.DIRTYPE, "directory"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_what_is_no_file_is_neither_followed_nor_extracted(run: Run, kind: bytes, word: str) -> None:
    data = tarred({"odd": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(Reject, match=f"member 'odd' is a {word}"):
        run(Tar(), data, "odd")
    assert run(Tar(), data, {"apply": "hello_world"}, installed=FOUND) == data


def test_members_are_listed_with_where_their_data_are(run: Run) -> None:
    data = tarred(SHARD | ODD_NAMES)
    for entry, content in zip(listed(run, data), (SHARD | ODD_NAMES).values(), strict=True):
        assert entry["size"] == len(content)
        assert data[entry["offset"] :][: entry["size"]] == content


def test_records_are_the_members_up_to_the_first_dot(run: Run) -> None:
    lines = run(Tar(), tarred({"README": b"no record", **SHARD}), {"list": "records"}).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"key": "a/0001", "extensions": ["jpg", "cls", "left.png"], "size": 405},
        {"key": "a/0002", "extensions": ["jpg", "cls"], "size": 5},
        {"key": "a/0003", "extensions": ["jpg", "cls"], "size": 1},
    ]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("0001.jpg", ("0001", "jpg")),
        ("a.b/0001.Left.PNG", ("a.b/0001", "left.png")),
        ("/0001.jpg", ("/0001", "jpg")),
        ("0001", None),
        (".hidden", None),
        ("a/.hidden.jpg", None),
        ("dir.d/file", None),
    ],
)
def test_names_are_split_as_webdataset_does(name: str, record: tuple[str, str] | None) -> None:
    assert record_name(name) == record


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("a/0001.left.png", "png", True),
        ("a/0001.left.png", ".png", True),
        ("a/0001.left.png", "left.png", True),
        ("a/0001.PNG", "png", True),
        ("a/0001png", "png", False),
        ("a/0001.png", "a/*", True),
        ("a/0001.png", "00*", True),
        ("a/0001.png", "0001.pn?", True),
        ("b/0001.png", "a/*", False),
    ],
)
def test_patterns_are_extensions_or_globs(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, [pattern]) is fits


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ({"select": ["jpg"]}, ["a/0001.jpg", "a/0002.jpg", "a/0003.jpg"]),
        ({"select": "jpg,left.png", "drop": "0003.*"}, ["a/0001.jpg", "a/0001.left.png", "a/0002.jpg"]),
        ({"drop": ["jpg", "png"]}, ["a/0001.cls", "a/0002.cls", "a/0003.cls"]),
        ({"keys": ["a/0002", "a/0003"], "drop": "jpg"}, ["a/0002.cls", "a/0003.cls"]),
        ({"limit": 1}, ["a/0001.jpg", "a/0001.cls", "a/0001.left.png"]),
        ({"limit": 2, "select": "cls"}, ["a/0001.cls", "a/0002.cls"]),
        ({"limit": 0}, []),
        ({"sample": 0.0}, []),
        ({"select": "mp4"}, []),
    ],
)
def test_members_are_chosen(run: Run, args: dict[str, Any], kept: list[str]) -> None:
    made = run(Tar(), tarred(SHARD, mtime=5), args)
    assert untarred(made) == {name: SHARD[name] for name in kept}
    assert made == tarred({name: SHARD[name] for name in kept}, mtime=5)


def test_a_sample_takes_its_share_of_whole_records_by_the_seed(run: Run) -> None:
    files = {f"{number:04}.{extension}": b"" for number in range(400) for extension in ("jpg", "cls")}
    samples = []
    for seed in (1, 1, 2):
        names = list(untarred(run(Tar(), tarred(files), {"sample": 0.25, "seed": seed})))
        keys = [name[:4] for name in names[::2]]
        assert names == [f"{key}.{extension}" for key in keys for extension in ("jpg", "cls")]
        assert 60 < len(keys) < 140
        samples.append(keys)
    assert samples[0] == samples[1] != samples[2]


def test_the_rest_is_not_read_once_the_limit_is_reached(run: Run) -> None:
    data = tarred(SHARD)
    assert run(Tar(), data[:6000], {"limit": 1, "list": "records"})
    with pytest.raises(Reject, match="cut short"):
        run(Tar(), data[:6000])


@pytest.mark.parametrize("format", FORMATS)
def test_members_are_transformed_and_all_else_is_kept(run: Run, format: int) -> None:
    data = tarred(SHARD, format=format, mtime=1_700_000_000, mode=0o640, uid=17, gname="group")
    made = run(Tar(), data, {"apply": "append", "apply_args": {"text": "??"}, "match": "jpg"}, installed=FOUND)
    assert untarred(made) == {
        name: content + b"??" if name.endswith("jpg") else content for name, content in SHARD.items()
    }
    for before, after in zip(infos(data), infos(made), strict=True):
        for field in ("name", "mode", "mtime", "uid", "gid", "uname", "gname", "type"):
            assert getattr(after, field) == getattr(before, field)


def test_a_transformed_member_keeps_an_odd_name_and_a_fine_time(run: Run) -> None:
    data = tarred(ODD_NAMES, mtime=12.25, uid=2**40)
    made = run(Tar(), data, {"apply": "upper"}, installed=FOUND)
    assert untarred(made) == {name: content.upper() for name, content in ODD_NAMES.items()}
    assert {(info.mtime, info.uid) for info in infos(made)} == {(12.25, 2**40)}
    assert infos(made)[0].pax_headers.keys() == infos(data)[0].pax_headers.keys()


def test_members_get_the_extension_of_what_they_become(run: Run) -> None:
    files = {"a.b/0001.left.png": b"x", "a.b/noext": b"y", ".hidden": b"z"}
    made = run(Tar(), tarred(files), {"apply": "md5"}, installed=FOUND)
    assert list(untarred(made)) == ["a.b/0001.left.txt", "a.b/noext.txt", ".hidden.txt"]


def test_the_transformer_is_told_of_the_member(run: Run) -> None:
    told: list[tuple[str, str, int | None, str]] = []

    class Asks(Transformer):
        name = "asks"

        def transform(self, data: bytes, context: Context) -> bytes:
            told.append((context.key, context.content_type, context.size, context.bucket))
            return data

    installed = manager.load([_plugin(Asks())], entry_points=False)
    data = tarred({"a/1.jpg": b"xyz", "b": b""})
    assert run(Tar(), data, {"apply": "asks"}, installed=installed) == data
    assert told == [("a/1.jpg", "image/jpeg", 3, "bucket"), ("b", "binary/octet-stream", 0, "bucket")]


class PickyArgs(BaseModel):
    say: str = Field(default="skip", json_schema_extra={"first": True})


class Picky(Transformer):
    """Takes no text with an x in it."""

    name = "picky"
    Args = PickyArgs

    def transform(self, data: bytes, context: Context) -> bytes:
        if b"x" in data:
            raise Skip("an x") if context.args.say == "skip" else Reject("an x")
        return data


class ByFile(Transformer):
    """Is given a file, and gives one back."""

    name = "by_file"
    extension = "out"

    def transform_file(self, path: Path, context: Context) -> Path:
        made = path.with_name("made")
        made.write_bytes(path.suffix.encode() + path.read_bytes())
        return made


def _plugin(*transformers: Transformer) -> object:
    from types import SimpleNamespace

    from transom.plugins import hookimpl

    @hookimpl
    def transom_transformers() -> Iterable[Transformer]:
        return transformers

    return SimpleNamespace(__name__="mine", transom_transformers=transom_transformers)


MORE = manager.load([_plugin(Picky(), ByFile())], entry_points=False)


def test_a_member_that_is_skipped_is_left_out(run: Run) -> None:
    data = tarred({"1.txt": b"ok", "2.txt": b"xx", "3.txt": b"ok"})
    assert untarred(run(Tar(), data, {"apply": "picky"}, installed=MORE)) == {"1.txt": b"ok", "3.txt": b"ok"}


def test_a_member_that_is_rejected_rejects_the_archive_by_its_name(run: Run) -> None:
    data = tarred({"1.txt": b"ok", "2.txt": b"xx"})
    with pytest.raises(Reject, match=r"member '2.txt': an x"):
        run(Tar(), data, {"apply": "picky", "apply_args": "reject"}, installed=MORE)


def test_a_transformer_of_files_works_on_members(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    data = tarred({"1.txt": b"ok", "2": b""})
    made = run(Tar(), data, {"apply": "by_file"}, installed=MORE)
    assert untarred(made) == {"1.out": b".txtok", "2.out": b""}
    assert sorted(tmp_path.iterdir()) == before


def test_tars_within_tars(run: Run) -> None:
    inner = tarred({"1.txt": b"a"})
    args = {"apply": "tar", "apply_args": {"apply": "upper", "match": "txt"}}
    assert untarred(run(Tar(), tarred({"in.tar": inner}), args, installed=FOUND)) == {"in.tar": tarred({"1.txt": b"A"})}


def test_members_are_bounded_before_and_after(run: Run) -> None:
    data = tarred({"1.gz": gzip.compress(bytes(2000), mtime=0)})
    args = {"apply": "decompress", "max_member": 2000}
    assert untarred(run(Tar(), data, args, installed=FOUND)) == {"1.gz": bytes(2000)}
    with pytest.raises(Reject, match=r"member '1.gz': it becomes more than 1999 bytes \(max_member\)"):
        run(Tar(), data, args | {"max_member": 1999}, installed=FOUND)
    with pytest.raises(Reject, match=r"member '1.gz': it has \d+ bytes, more than 10 \(max_member\)"):
        run(Tar(), data, args | {"max_member": 10}, installed=FOUND)


@pytest.mark.parametrize("pack", ["gzip", "bz2", "zstd"])
def test_a_packed_archive_is_read_and_packed_again(run: Run, pack: str) -> None:
    plain = tarred(SHARD)
    packed = run(FOUND["compress"], plain, pack)
    assert run(Tar(), packed, "a/0002.cls") == b"8"
    again = run(Tar(), packed, {"select": "cls"})
    assert again[:3] == packed[:3]
    assert run(FOUND["decompress"], again) == run(Tar(), plain, {"select": "cls"})


def test_the_same_archive_gives_the_same_bytes_packed(run: Run) -> None:
    packed = gzip.compress(tarred(SHARD), mtime=12345)
    assert run(Tar(), packed) == run(Tar(), packed)


def test_an_archive_is_read_in_constant_memory(run: Run, tmp_path: Path) -> None:
    def archive() -> Iterator[bytes]:
        for number in range(64):
            info = tarfile.TarInfo(f"{number}.bin")
            info.size = MIB if number else 32 * MIB
            yield info.tobuf()
            for _ in range(info.size // MIB):
                yield bytes(MIB)
        yield bytes(10240)

    args = parse_args(Tar(), {"apply": "append", "match": "0.bin"})
    context = Context("b", "k", "tar", args=args, scratch=tmp_path, transformers=FOUND)
    tracemalloc.start()
    try:
        size = sum(map(len, Tar().transform_stream(archive(), context)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size % 10240 == 0
    assert 95 * MIB < size < 96 * MIB
    assert peak < 24 * MIB


def test_a_global_header_stays_in_front_of_whatever_is_chosen(run: Run) -> None:
    output = io.BytesIO()
    said = {"comment": "for all"}
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT, pax_headers=said) as archive:
        for name, content in SHARD.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = output.getvalue()
    assert run(Tar(), data) == data
    made = run(Tar(), data, {"select": "cls"})
    assert list(untarred(made)) == [name for name in SHARD if name.endswith("cls")]
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        assert archive.pax_headers == said
    assert len(run(Tar(), data, {"list": "members"}).splitlines()) == len(SHARD)


@pytest.mark.parametrize(
    ("args", "expected", "extension"),
    [
        (None, "application/x-tar", None),
        ("a/1.jpg", "image/jpeg", "jpg"),
        ("a/noext", "binary/octet-stream", None),
        ({"list": "members"}, "application/x-ndjson", "jsonl"),
        ({"apply": "md5"}, "application/x-tar", None),
    ],
)
def test_the_output_is_known_without_running(args: object, expected: str, extension: str | None) -> None:
    context = Context("b", "k.tar", "tar", "application/x-tar", args=parse_args(Tar(), args))
    assert Tar().content_type(context) == expected
    assert Tar().output_extension(context) == extension


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"extract": "a", "select": "jpg"}, "extract goes with no other choice of members, but select is given"),
        ({"extract": "a", "limit": 1}, "but limit is given"),
        ({"list": "members", "apply": "md5"}, "list and apply exclude each other"),
        ({"match": "jpg"}, "match needs apply"),
        ({"apply_args": {}}, "apply_args needs apply"),
        ({"list": "all"}, "argument 'list'.*one of members, records"),
        ({"sample": 1.5}, "argument 'sample'.*from 0.0 to 1.0"),
        ({"select": [""]}, "argument 'select"),
        ({"limit": -1}, "argument 'limit'"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Tar(), args)


def test_patterns_may_be_given_as_an_option() -> None:
    assert parse_args(Tar(), None, {"select": "jpg, cls"}).select == ("jpg", "cls")  # type: ignore[attr-defined]
    assert parse_args(Tar(), None, {"select": '["jpg","a,b"]'}).select == ("jpg", "a,b")  # type: ignore[attr-defined]
