"""Sorts from a store into a store: which records go where, what is left alone, what is refused or fails and how."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backports import zstd

from tests.unit.target.job_site import Rig, open_rig
from tests.unit.target.sort_rig import HereEngine, Sorter, packed, unpacked
from transom.plugins.manager import Transformers
from transom.target.errors import JobRefused, NoSuchBucket, StoreFull
from transom.target.etl.registry import Registry
from transom.target.jobs.alarm import JobAborted
from transom.target.jobs.sort import planning, scan
from transom.target.jobs.sort.scan import ScanTask
from transom.target.jobs.sort.sorting import UNPACKED
from transom.target.jobs.sort.spill import Spill
from transom.target.jobs.sort.write import ShardTask
from transom.target.jobs.truth import place_of


@pytest.fixture
def rig(tmp_path: Path, transformers: Transformers, registry: Registry) -> Iterator[Rig]:
    made = open_rig(tmp_path, transformers, registry)
    yield made
    made.site.close()


@pytest.fixture
def sorter(rig: Rig, tmp_path: Path) -> Sorter:
    return Sorter(rig, HereEngine(rig.site), tmp_path)


def put_shards(rig: Rig, shards: int = 3, records: int = 20) -> list[str]:
    """Shards with every record in another than the one before it; returns the records' names in order."""
    names = [f"{n:04d}" for n in range(shards * records)]
    for shard in range(shards):
        files = []
        for n in range(records):
            name = names[n * shards + (shard + n) % shards]
            files += [(f"{name}.jpg", name.encode() * 300), (f"{name}.cls", b"%d\n" % (int(name) * 7 % 60))]
        rig.put(f"in-{shard}.tar", packed(files))
    return names


def tasks(sorter: Sorter, kind: type) -> int:
    assert isinstance(sorter.engine, HereEngine)
    return len([task for task in sorter.engine.done if isinstance(task, kind)])


def shards(rig: Rig) -> list[str]:
    return rig.keys()


# --- order ----------------------------------------------------------------------------------------


def test_records_are_sorted_by_name_and_their_members_stay_together_in_their_order(rig: Rig, sorter: Sorter) -> None:
    names = put_shards(rig)
    counts = sorter.sort(shard_records=25)
    assert (counts.total, counts.written, counts.failed) == (3, 3, 0)
    assert list(sorter.members()) == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert [len(members) for members in sorter.members().values()] == [50, 50, 20]
    assert sorter.records() == [f"{name}.{extension}" for name in names for extension in ("jpg", "cls")]
    assert sorter.message == "60 records of 3 objects are in 3 shards"
    for key in shards(rig):
        for name, data in unpacked(rig.read(key)):
            record = name[:4]
            expected = record.encode() * 300 if name.endswith("jpg") else b"%d\n" % (int(record) * 7 % 60)
            assert data == expected
    assert list(dict.fromkeys(sorter.phases)) == ["listing", "scanning", "sorting", "writing"]
    assert sorted(path.name for path in (sorter.root / "jobs" / "job").iterdir()) == ["work.sqlite", "work.sqlite.lock"]


def test_descending(rig: Rig, sorter: Sorter) -> None:
    names = put_shards(rig)
    sorter.sort(descending=True)
    assert sorter.records()[::2] == [f"{name}.jpg" for name in reversed(names)]


@pytest.mark.parametrize("values", ["int", "float"])
def test_records_are_sorted_by_a_members_number_and_ties_by_name(rig: Rig, sorter: Sorter, values: str) -> None:
    names = put_shards(rig)
    sorter.sort(by="content", content=".CLS", values=values)
    assert [name[:4] for name in sorter.records()[::2]] == sorted(names, key=lambda name: (int(name) * 7 % 60, name))


def test_records_are_sorted_by_a_members_text(rig: Rig, sorter: Sorter) -> None:
    texts = {"a": "zwei", "b": " eins ", "c": "é", "d": "10", "e": "9", "f": "zwei"}
    rig.put("in.tar", packed([(f"{name}.txt", text.encode()) for name, text in texts.items()]))
    sorter.sort(by="content", content="txt")
    assert sorter.records() == [f"{name}.txt" for name in "debafc"]
    sorter.sort("down", by="content", content="txt", descending=True)
    assert sorter.records() == [f"{name}.txt" for name in "cafbed"]


def test_a_shuffle_is_the_same_for_a_seed_byte_for_byte_and_another_for_another(rig: Rig, sorter: Sorter) -> None:
    names = put_shards(rig)
    made = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        sorter.sort(name, by="shuffle", seed=seed, force=True)
        made.append([rig.read(key) for key in shards(rig)])
        assert sorted(sorter.records()[::2]) == [f"{name}.jpg" for name in names]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_a_shards_bytes_do_not_depend_on_how_the_records_were_packed(rig: Rig, sorter: Sorter) -> None:
    files = [(f"{n:02d}.bin", bytes([n]) * n * 100) for n in range(20)]
    rig.put("one/a.tar", packed(files[:7], format=tarfile.GNU_FORMAT))
    rig.put("one/b.tar.gz", gzip.compress(packed(files[7:])))
    for name, data in files:
        rig.put(f"two/{name}", data)
    sorter.sort("one", source="s3://src/one/", shard_count=3)
    first = [rig.read(key) for key in shards(rig)]
    sorter.sort("two", source="s3://src/two/", shard_count=3)
    assert [rig.read(key) for key in shards(rig)] == first


# --- sources --------------------------------------------------------------------------------------


def test_objects_are_members_and_those_of_one_name_one_record(rig: Rig, sorter: Sorter) -> None:
    for name in ("b/2.jpg", "b/2.cls", "a/9.jpg", "a/9.cls", "c.d.jpg", "c.json", "folder/"):
        rig.put(f"data/{name}", b"" if name.endswith("/") else name.encode())
    rig.put("elsewhere.jpg", b"")
    sorter.sort(source="s3://src/data/", destination="s3://dst/made", prepend="x-", shard_records=2)
    assert sorter.members() == {
        "made/x-shard-000000.tar": ["a/9.cls", "a/9.jpg", "b/2.cls", "b/2.jpg"],
        "made/x-shard-000001.tar": ["c.d.jpg", "c.json"],
    }
    assert dict(unpacked(rig.read("made/x-shard-000001.tar"))) == {"c.d.jpg": b"c.d.jpg", "c.json": b"c.json"}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("s.tar.gz", gzip.compress),
        ("s.tgz", gzip.compress),
        ("s.tar.bz2", bz2.compress),
        ("s.tar.zst", zstd.compress),
        ("s.tar", gzip.compress),
        ("s.tgz", bytes),
        ("shard", bytes),
    ],
)
def test_archives_are_told_by_their_names_and_what_packs_them_by_their_bytes(
    rig: Rig, sorter: Sorter, name: str, pack: Callable[[bytes], bytes]
) -> None:
    rig.put(name, pack(packed([("b.txt", b"2"), ("a.txt", b"1" * 5000)])))
    sorter.sort()
    assert [unpacked(rig.read(key)) for key in shards(rig)] == [[("a.txt", b"1" * 5000), ("b.txt", b"2")]]
    assert not (rig.site.scratch / UNPACKED).exists()


def test_what_has_no_extension_and_is_no_archive_is_a_record_of_its_own(rig: Rig, sorter: Sorter) -> None:
    rig.put("README", b"text")
    rig.put("zeros", bytes(2048))
    rig.put("empty", b"")
    rig.put("in.tar", packed([(".hidden", b""), ("LICENSE", b"mit"), ("a/b/c", b"")]))
    sorter.sort()
    assert sorter.records() == [".hidden", "LICENSE", "README", "a/b/c", "empty", "zeros"]


def test_odd_names_and_all_kinds_of_headers_come_through(rig: Rig, sorter: Sorter) -> None:
    names = ["n" * 100 + ".x", "é ü.txt", "日/" + "本" * 80 + ".jpg", "./a.b", "line\nbreak.c", "\udcff.bin"]
    for format, folder in ((tarfile.PAX_FORMAT, "p/"), (tarfile.GNU_FORMAT, "g/")):
        rig.put(
            f"{folder[0]}.tar",
            packed([(folder + name, name.encode("utf8", "surrogateescape")) for name in names], format=format),
        )
    sorter.sort(shard_count=1)
    files = unpacked(rig.read("shard-000000.tar"))
    assert sorted(name for name, _ in files) == sorted(folder + name for name in names for folder in ("p/", "g/"))
    assert all(name[2:].encode("utf8", "surrogateescape") == data for name, data in files)
    assert [name.encode("utf8", "surrogateescape") for name, _ in files] == sorted(
        name.encode("utf8", "surrogateescape") for name, _ in files
    )


def test_match_keys_and_limit_choose_among_the_sources(rig: Rig, sorter: Sorter) -> None:
    for n in range(6):
        rig.put(f"{n}.tar", packed([(f"{n}.txt", b"")]))
        rig.put(f"{n}.log", b"")
    sorter.sort("match", match="*.tar", limit=4)
    assert sorter.records() == [f"{n}.txt" for n in range(4)]
    counts = sorter.sort("keys", keys=["5.tar", "1.tar", "9.tar"], force=True)
    assert sorter.records() == ["1.txt", "5.txt"]
    assert (counts.written, counts.failed) == (1, 1)
    assert [(error.key, error.code) for error in sorter.errors("keys")] == [("9.tar", "NoSuchKey")]


def test_a_source_that_is_one_key(rig: Rig, sorter: Sorter) -> None:
    rig.put("deep/in.tar", packed([("b.x", b""), ("a.x", b"")]))
    sorter.sort(source="s3://src/deep/in.tar", destination="s3://dst/out/", shards="all.tar", shard_count=1)
    assert sorter.members() == {"out/all.tar": ["a.x", "b.x"]}


def test_nothing_to_sort_makes_no_shard(rig: Rig, sorter: Sorter) -> None:
    assert sorter.sort().total == 0
    rig.put("in.tar", packed([]))
    assert sorter.sort("empty").total == 0
    assert rig.keys() == []


def test_long_members_and_long_archives_are_done_in_pieces(
    rig: Rig, sorter: Sorter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan.ScanWork.__init__, "__defaults__", (7,))
    big = bytes(range(256)) * 40_000
    files = [(f"{n:03d}.bin", b"%d" % n) for n in range(50)]
    rig.put("in.tar.gz", gzip.compress(packed([*files, ("big.bin", big), ("big.txt", b"x")]), 1))
    sorter.sort(shard_count=1)
    assert dict(unpacked(rig.read("shard-000000.tar"))) == dict([*files, ("big.bin", big), ("big.txt", b"x")])
    assert tasks(sorter, ScanTask) == 8


def test_an_archive_that_is_replaced_between_two_pieces_of_its_scan_is_listed_and_not_mixed(
    rig: Rig, sorter: Sorter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan.ScanWork.__init__, "__defaults__", (7,))
    rig.put("in.tar", packed([(f"{n:03d}.bin", b"old") for n in range(20)]))
    rig.put("other.txt", b"x")

    def replace_it(task: object) -> None:
        if isinstance(task, ScanTask) and task.resume is not None:
            rig.put("in.tar", packed([(f"{n:03d}.bin", b"the new one") for n in range(20)]))

    assert isinstance(sorter.engine, HereEngine)
    sorter.engine.before = replace_it
    sorter.sort(shard_count=1)
    assert [(error.key, error.code) for error in sorter.errors()] == [("in.tar", "SourceChanged")]
    assert sorter.records() == ["other.txt"]


# --- names and refusals ---------------------------------------------------------------------------


def test_shards_are_named_by_the_template(rig: Rig, sorter: Sorter) -> None:
    put_shards(rig)
    sorter.sort(shards="train-{00..99..2}.tar", shard_count=3)
    assert rig.keys() == ["train-00.tar", "train-02.tar", "train-04.tar"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shards": "s-{0..2}.tar", "shard_count": 4}, "4 shards need as many names, and 's-{0..2}.tar' makes 3"),
        ({"shards": "{1..11..10}{1..11..10}.tar", "shard_count": 4}, "makes some names twice"),
        ({"shards": "x" * 1000 + "-{1..9}.tar", "prepend": "y" * 30, "shard_count": 9}, "more than 1024 bytes"),
        ({"shards": "s-{a..b}.tar"}, "braces hold START..END"),
        ({"destination": "s3://src", "shards": "in-{0..9}.tar", "force": True}, "s3://src/in-0.tar is both read and"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_written(
    rig: Rig, sorter: Sorter, asked: dict[str, object], message: str
) -> None:
    put_shards(rig)
    with pytest.raises(JobRefused, match=message.replace("{", r"\{")):
        sorter.sort(**asked)
    assert rig.keys() == []
    assert tasks(sorter, ShardTask) == 0


@pytest.mark.parametrize(
    ("puts", "message"),
    [
        (
            [("1.tar", ["a.x"]), ("2.tar", ["b.x", "a.y"])],
            "the record 'a' is both in s3://src/1.tar and in s3://src/2.tar",
        ),
        ([("1.tar", ["a.x"]), ("a.y", None)], "the record 'a' is both in s3://src/1.tar and in s3://src/a.y"),
        ([("1.tar", ["a.x", "b.x", "a.x"])], "the member 'a.x' is twice in s3://src/1.tar"),
    ],
)
def test_a_record_that_is_there_twice_is_refused_naming_both(
    rig: Rig, sorter: Sorter, puts: list[tuple[str, list[str] | None]], message: str
) -> None:
    for key, names in puts:
        rig.put(key, b"" if names is None else packed([(name, b"") for name in names]))
    with pytest.raises(JobRefused, match=message):
        sorter.sort()
    assert rig.keys() == []


# --- failures -------------------------------------------------------------------------------------


def test_records_without_a_value_fail_by_name_and_the_others_go_on(rig: Rig, sorter: Sorter) -> None:
    values = {"a": b"3", "b": b"x1", "d": b"1", "e": b"\xff", "f": b"9" * 5000, "g": b"99999999999999999999"}
    files = [(f"{name}.cls", data) for name, data in values.items()]
    rig.put("in.tar", packed([*files, ("c.jpg", b""), ("a.jpg", b"")]))
    rig.put("h.cls", b"2")
    rig.put("i.cls", b"")
    counts = sorter.sort(by="content", content="cls", values="int")
    assert sorter.records() == ["d.cls", "h.cls", "a.cls", "a.jpg"]
    assert (counts.total, counts.written, counts.failed) == (7, 1, 6)
    errors = sorter.errors()
    assert {(error.key, error.code) for error in errors} == {("in.tar", "RecordFailed"), ("i.cls", "RecordFailed")}
    for record, why in (
        ("b", "'x1', which is no whole number"),
        ("c", "it has no member .cls"),
        ("e", "not text"),
        ("f", "longer than 4096 bytes"),
        ("g", "no whole number of 64 bits"),
        ("i", "''"),
    ):
        assert [
            error.message for error in errors if error.message.startswith(f"record '{record}'") and why in error.message
        ]


def damaged(how: str) -> bytes:
    data = packed([(f"{n}.x", b"x" * 1000) for n in range(5)], mtime=0)
    if how == "cut in data":
        return data[:2500]
    if how == "cut before a member":
        return data[:3072]  # two members, whole
    if how == "a bad header":
        return data[:1536] + b"?" * 512 + data[2048:]
    if how == "goes on after the end":
        return data + data
    if how == "bad gzip":
        return gzip.compress(data)[:60] + b"?" * 50
    return b"no archive" * 100


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut in data", "cut short in member '1.x' (at byte 2500 of 2500)"),
        ("cut before a member", "the archive has no end mark: it was cut short (at byte 3072 of 3072)"),
        ("a bad header", "damaged header at byte 1536 of the archive"),
        ("goes on after the end", "goes on after its end mark at byte"),
        ("bad gzip", "bytes into the unpacked archive"),
        ("no archive", "not a tar archive, by its first bytes"),
    ],
)
def test_a_damaged_archive_fails_whole_saying_where_and_the_others_go_on(
    rig: Rig, sorter: Sorter, how: str, message: str
) -> None:
    rig.put("bad.tar", damaged(how))
    rig.put("good.tar", packed([("g.x", b"")]))
    counts = sorter.sort()
    assert (counts.written, counts.failed) == (1, 1)
    assert sorter.records() == ["g.x"]
    (error,) = sorter.errors()
    assert (error.key, error.code) == ("bad.tar", "DamagedArchive")
    assert message in error.message


def test_fail_fast_writes_nothing_once_a_source_failed(rig: Rig, sorter: Sorter) -> None:
    rig.put("bad.tar", damaged("cut in data"))
    rig.put("good.tar", packed([("g.x", b"")]))
    with pytest.raises(JobRefused, match=r"nothing was written, since bad.tar failed: .*cut short"):
        sorter.sort(continue_on_error=False)
    assert rig.keys() == []
    assert [error.key for error in sorter.errors()] == ["bad.tar"]


def test_what_is_no_file_fails_its_record_and_folders_are_nothing(rig: Rig, sorter: Sorter) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as made:
        for name, type in (
            ("d", tarfile.DIRTYPE),
            ("a.x", tarfile.REGTYPE),
            ("a.y", tarfile.SYMTYPE),
            ("b.x", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type, "b.x"
            made.addfile(info)
    rig.put("in.tar", output.getvalue())
    counts = sorter.sort()
    assert (counts.written, counts.failed) == (1, 1)
    assert sorter.records() == ["b.x"]
    assert "record 'a': 'a.y' is a link: only files can be sorted" in sorter.errors()[0].message


# --- again ----------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_says_what_it_would(rig: Rig, sorter: Sorter) -> None:
    put_shards(rig)
    counts = sorter.sort(dry_run=True, shard_records=25)
    assert (counts.total, counts.written) == (3, 3)
    assert sorter.message == "60 records of 3 objects would be in 3 shards"
    assert rig.keys() == []
    real = sorter.sort("real", shard_records=25)
    assert (real.written, real.bytes_in, real.bytes_out) == (3, counts.bytes_in, counts.bytes_out)
    again = sorter.sort("again", dry_run=True, shard_records=25)
    assert (again.written, again.unchanged) == (0, 3)


def test_shards_that_are_as_they_would_be_are_left_alone(rig: Rig, sorter: Sorter) -> None:
    put_shards(rig)
    assert sorter.sort("first", shard_records=25).written == 3
    before = [rig.head(key) for key in shards(rig)]
    again = sorter.sort("again", shard_records=25)
    assert (again.written, again.unchanged, again.bytes_out) == (0, 3, 0)
    assert [rig.head(key) for key in shards(rig)] == before
    rig.put("in-9.tar", packed([("0059.more.x", b""), ("9999.x", b"")][1:]))
    more = sorter.sort("more", shard_records=25)
    assert (more.written, more.unchanged) == (1, 2)
    assert sorter.sort("forced", shard_records=25, force=True).written == 3


def test_a_shard_says_of_what_it_was_made(rig: Rig, sorter: Sorter) -> None:
    put_shards(rig)
    sorter.sort(by="shuffle", seed=7)
    info = rig.head("shard-000000.tar")
    assert info.content_type == "application/x-tar"
    assert info.attributes.owner == "owner"
    said = dict(info.attributes.metadata)
    assert len(said.pop("transom-result")) == 32
    assert said.pop("transom-shard") == place_of("dst", "shard-000000.tar")
    assert said == {
        "transom-source": "src/",
        "transom-pipeline": "sort",
        "transom-args": '{"by":"shuffle","seed":7,"shard_records":10}',
    }


def test_a_sort_that_was_stopped_goes_on_with_what_is_pending(rig: Rig, sorter: Sorter) -> None:
    put_shards(rig)

    def stop(phase: str) -> None:
        if phase == "writing":
            raise KeyboardInterrupt

    sorter.look = stop
    with pytest.raises(KeyboardInterrupt):
        sorter.sort()
    sorter.look = None
    done = tasks(sorter, ShardTask)
    scanned = tasks(sorter, ScanTask)
    counts = sorter.sort()
    assert counts.written + counts.unchanged == counts.total == 6
    assert tasks(sorter, ScanTask) == scanned == 3
    assert tasks(sorter, ShardTask) <= 6 + done
    assert len(sorter.records()) == 120


def test_a_sort_that_was_stopped_while_scanning_begins_anew(rig: Rig, sorter: Sorter) -> None:
    put_shards(rig)

    def stop(phase: str) -> None:
        if phase == "sorting":
            raise KeyboardInterrupt

    sorter.look = stop
    with pytest.raises(KeyboardInterrupt):
        sorter.sort()
    sorter.look = None
    assert sorter.sort().written == 6
    assert len(sorter.records()) == 120


@pytest.mark.parametrize("phase", ["listing", "sorting", "writing"])
def test_a_sort_that_ended_in_an_error_leaves_nothing_large(rig: Rig, sorter: Sorter, phase: str) -> None:
    put_shards(rig)

    def end(reached: str) -> None:
        if reached == phase:
            raise RuntimeError(phase)

    sorter.look = end
    with pytest.raises(RuntimeError):
        sorter.sort()
    assert not list((sorter.root / "jobs" / "job").glob("records*"))
    sorter.look = None
    counts = sorter.sort()
    assert counts.written + counts.unchanged == 6


@pytest.mark.parametrize("query", ["twice", "totals"])
def test_an_abort_in_the_middle_of_a_query_is_one(
    rig: Rig, sorter: Sorter, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    put_shards(rig)
    monkeypatch.setattr("transom.target.jobs.sort.spill._STEPS", 1)
    asked: list[str] = []
    ask = getattr(Spill, query)
    monkeypatch.setattr(Spill, query, lambda spill: (asked.append(query), ask(spill))[1])

    def look(_phase: str) -> None:
        if asked:
            raise JobAborted

    sorter.look = look
    with pytest.raises(JobAborted):
        sorter.sort()


def test_a_full_disk_ends_a_sort_and_is_no_fault_of_an_archive(
    rig: Rig, sorter: Sorter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put("a.tar.gz", gzip.compress(packed([("a.x", b"1")])))
    rig.put("b.tar", packed([("b.x", b"1")]))

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transom.target.jobs.sort.unpacked._written", full)
    with pytest.raises(StoreFull, match="no room"):
        sorter.sort()
    assert (sorter.errors(), list(shards(rig))) == ([], [])
    monkeypatch.undo()
    monkeypatch.setattr("transom.target.jobs.sort.unpacked.tempfile.mkstemp", full)
    with pytest.raises(StoreFull, match="no room"):
        sorter.sort("another")


def test_a_bucket_that_is_deleted_while_it_is_scanned_ends_a_sort_and_is_named(rig: Rig, sorter: Sorter) -> None:
    keys = put_shards(rig)

    def delete(task: object) -> None:
        if isinstance(task, ScanTask) and keys:
            for key in list(rig.keys(bucket="src")):
                rig.site.wait(rig.site.store.delete("src", key))
            rig.site.wait(rig.site.store.delete_bucket("src"))
            keys.clear()

    assert isinstance(sorter.engine, HereEngine)
    sorter.engine.before = delete
    with pytest.raises(NoSuchBucket, match="src"):
        sorter.sort()
    assert sorter.errors() == []


def test_a_source_that_changed_since_it_was_scanned_fails_the_shards_that_need_it(rig: Rig, sorter: Sorter) -> None:
    rig.put("a.tar", packed([("a.x", b"1")]))
    rig.put("b.tar", packed([("b.x", b"1")]))

    def change(phase: str) -> None:
        if phase == "sorting":
            rig.put("a.tar", packed([("a.x", b"2")]))

    sorter.look = change
    counts = sorter.sort(shard_records=1)
    assert (counts.written, counts.failed) == (1, 1)
    (error,) = sorter.errors()
    assert (error.key, error.code) == ("shard-000000.tar", "SourceChanged")
    assert "s3://src/a.tar was changed since it was scanned" in error.message


@pytest.mark.parametrize("kind", [ScanTask, ShardTask])
def test_what_a_lost_worker_was_doing_is_tried_again_a_bounded_number_of_times(
    rig: Rig, sorter: Sorter, kind: type
) -> None:
    rig.put("in.tar", packed([("a.x", b"")]))
    assert isinstance(sorter.engine, HereEngine)
    sorter.engine.losing = [kind] * 2
    assert sorter.sort("twice", force=True).written == 1
    sorter.engine.losing = [kind] * 3
    counts = sorter.sort("thrice", force=True)
    assert (counts.written, counts.failed) == (0, 1)
    (error,) = sorter.errors("thrice")
    assert (error.key, error.code) == ("in.tar" if kind is ScanTask else "shard-000000.tar", "WorkerLost")
    assert "signal 9" in error.message


def test_reading_is_by_headers_alone(rig: Rig, sorter: Sorter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run over large members reads a small part of them."""
    rig.put("in.tar", packed([(f"{n}.bin", bytes(200_000)) for n in range(20)]))
    read = 0
    seekable = scan.Seekable

    def counting(read_at, size, offset, window_size):  # type: ignore[no-untyped-def]
        def counted(at: int, length: int) -> bytes:
            nonlocal read
            data: bytes = read_at(at, length)
            read += len(data)
            return data

        return seekable(counted, size, offset, window_size)

    monkeypatch.setattr(scan, "Seekable", counting)
    assert sorter.sort(dry_run=True).total == 2
    assert read < 21 * 16 * 1024 < 20 * 200_000 / 10


def test_planning_is_the_same_however_pages_fall(rig: Rig, sorter: Sorter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_BATCH", 2)
    monkeypatch.setattr(planning, "_PLAIN_PER_TASK", 3)
    for n in range(11):
        rig.put(f"{n:02d}.n", b"%d" % (100 - n))
        rig.put(f"{n:02d}-{n}", b"")
    sorter.sort(by="content", content="n", values="int", match="*.n")
    assert sorter.records() == [f"{n:02d}.n" for n in reversed(range(11))]
