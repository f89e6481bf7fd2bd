"""The generator has objects for every built-in transformer, and each transformer takes them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import wave
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from transom.bench import command
from transom.bench.data import photo_blobs
from transom.bench.mix import Workload
from transom.bench.objects import EXTENSIONS, FOR_ETL, KINDS, Kind, blobs, objects_for, parse_kind
from transom.bench.run import BenchError
from transom.bench.sign import Endpoint
from transom.plugins import Context, manager
from transom.plugins.args import has_defaults, parse_args
from transom.plugins.builtin import every_transformer
from transom.plugins.shapes import stream

MADE = [kind for kind in KINDS if kind not in ("random", "photo")]
SIZE = 20_000
FOUND = manager.load(entry_points=False)
ENDPOINT = Endpoint.parse("http://127.0.0.1:1")


def made(kind: Kind, count: int = 3, size: int = SIZE, seed: int = 1) -> list[bytes]:
    found = photo_blobs(160, 120, count, seed) if kind == "photo" else blobs(kind, size, count, seed)
    return [bytes(blob.view()) for blob in found]


@pytest.mark.parametrize("kind", MADE)
def test_objects_differ_and_follow_from_the_seed(kind: Kind) -> None:
    first = made(kind, 5)
    blobs.cache_clear()
    assert made(kind, 5) == first
    assert len(set(first)) == 5
    assert set(made(kind, 5, seed=2)).isdisjoint(first)


@pytest.mark.parametrize("kind", ["text", "csv", "wav", "parquet", "shard"])
@pytest.mark.parametrize("size", [SIZE, 200_000])
def test_objects_have_about_the_size_asked_for(kind: Kind, size: int) -> None:
    for data in made(kind, size=size):
        assert 0.7 * size < len(data) < 1.5 * size


@pytest.mark.parametrize("kind", MADE)
def test_the_smallest_objects_are_whole_too(kind: Kind) -> None:
    assert all(made(kind, size=1))


def test_texts_are_lines_of_words() -> None:
    text = made("text")[2].decode()
    assert text.startswith("text 2\n")
    assert len(text) == SIZE
    assert "@" in text


def test_packed_texts_are_the_texts() -> None:
    assert [gzip.decompress(data) for data in made("gzip")] == made("text")


def test_tables_hold_rows() -> None:
    import pyarrow.parquet as pq

    rows = list(csv.DictReader(io.StringIO(made("csv")[1].decode())))
    assert list(rows[0]) == ["id", "name", "amount", "paid"]
    assert rows[0]["id"] == "1000001"
    table = pq.read_table(io.BytesIO(made("parquet")[1]))
    assert table.column_names == ["id", "name", "amount", "paid"]
    assert table["name"][:20].to_pylist() == [row["name"] for row in rows[:20]]


def test_sounds_are_wav_with_loud_and_quiet_parts() -> None:
    with wave.open(io.BytesIO(made("wav")[0])) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16_000)
        assert sound.getnframes() > 4000


def test_shards_are_records_of_a_photo_a_class_and_words() -> None:
    with tarfile.open(fileobj=io.BytesIO(made("shard")[2])) as archive:
        names = archive.getnames()
        assert names[:3] == ["000002/000000.jpg", "000002/000000.cls", "000002/000000.json"]
        about = archive.extractfile(names[2])
        assert about is not None
        assert json.load(about)["width"] == 96


@pytest.mark.parametrize(
    ("pipeline", "kind", "has_args"),
    [
        ([], "random", False),
        (["md5"], "random", False),
        (["mine"], "random", False),
        (["image"], "photo", True),
        (["image", "md5"], "photo", False),
        (["tar2tf"], "shard", False),
        (["tar"], "shard", True),
        (["decompress", "upper"], "gzip", False),
    ],
)
def test_a_pipeline_gets_what_its_first_stage_takes(pipeline: list[str], kind: str, has_args: bool) -> None:
    found = objects_for(pipeline)
    assert (found.kind, bool(found.args)) == (kind, has_args)


def test_every_name_is_a_built_in_transformer() -> None:
    assert not set(FOR_ETL) - {each.name for each in every_transformer()}


@pytest.mark.parametrize("name", FOUND)
def test_every_built_in_transformer_takes_what_is_made_for_it(name: str, tmp_path: Path) -> None:
    transformer, found = FOUND[name], objects_for([name])
    assert has_defaults(transformer)  # so that it is an ETL under its own name
    args = parse_args(transformer, json.loads(found.args) if found.args else None)
    for index, data in enumerate(made(found.kind, 2)):
        key = f"r/{index:06d}{EXTENSIONS[found.kind]}"
        context = Context("b", key, name, size=len(data), args=args, transformers=FOUND, scratch=tmp_path)
        assert b"".join(stream(transformer, [data], context, scratch=tmp_path))


def test_keys_end_in_what_their_objects_are() -> None:
    def path(**fields: Any) -> str:
        return Workload(endpoint=ENDPOINT, bucket="b", **fields).path("r", 7)

    assert path() == "/b/r/000007"
    assert path(kind="shard") == "/b/r/000007.tar"
    assert path(kind="photo", pixels=(8, 8)) == "/b/r/000007.jpg"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    blobs.cache_clear()
    with pytest.raises(ValueError, match=r"objects of the kind 'parquet' need pyarrow: pip install 'transom\[all\]'"):
        blobs("parquet", 100, 1, 0)


def test_kinds_are_read() -> None:
    assert [parse_kind(kind) for kind in KINDS] == list(KINDS)
    with pytest.raises(ValueError, match="not a kind of objects: 'movies'"):
        parse_kind("movies")


@pytest.mark.parametrize(
    ("options", "kind", "pixels", "args"),
    [
        ([], "random", None, ""),
        (["--etl", "md5"], "random", None, ""),
        (["--etl", "image"], "photo", (1600, 1200), FOR_ETL["image"].args),
        (["--etl", "faces", "--pixels", "64x48", "--etl-args", '"json"'], "photo", (64, 48), '"json"'),
        (["--etl", "tar2tf"], "shard", None, ""),
        (["--etl", "thumb", "--kind", "photo"], "photo", (1600, 1200), ""),
        (["--pixels", "64x48"], "photo", (64, 48), ""),
        (["--kind", "csv"], "csv", None, ""),
    ],
)
def test_the_command_makes_what_the_etl_takes(
    monkeypatch: pytest.MonkeyPatch, options: list[str], kind: str, pixels: tuple[int, int] | None, args: str
) -> None:
    seen: list[Workload] = []

    class Stopped:
        def __init__(self, workload: Workload, *_: object, **__: object) -> None:
            seen.append(workload)
            raise BenchError("far enough")

    monkeypatch.setattr(command, "Bench", Stopped)
    result = CliRunner().invoke(command.app, ["--anonymous", *options])
    assert "far enough" in result.output
    assert (seen[0].kind, seen[0].pixels, seen[0].etl_args) == (kind, pixels, args)


def test_an_unknown_kind_is_refused() -> None:
    result = CliRunner().invoke(command.app, ["--anonymous", "--kind", "movies"])
    assert result.exit_code == 2
    assert "not a kind of objects" in result.output
