"""The built-in transformers of sounds, videos and tables pass the suite over objects of their own kinds."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from tests.unit.plugins.media import encoded, samples, video, wav
from transom.plugins import Transformer, manager
from transom.plugins.args import parse_args
from transom.plugins.conformance import TransformerConformance

FOUND = manager.load(entry_points=False)
SOUND: list[tuple[str, object]] = [
    ("ffmpeg", None),
    ("ffmpeg", {"format": "opus", "start": 0.01}),
    ("ffmpeg", {"frames": 2, "width": 16}),
    ("ffmpeg", {"frames": 2, "format": "npy"}),
    ("split_audio", {"from_time": 0.02, "to_time": 0.05, "format": "flac"}),
]
TABLES: list[tuple[str, object]] = [
    ("parquet", {"filter": [["a", ">", 1]], "format": "csv"}),
    ("parquet", {"columns": ["s"], "limit": 2, "format": "arrow"}),
    ("sql", "select s, a from S3Object where a > 1"),
    ("sql", {"query": "select count(*) c from S3Object", "format": "parquet"}),
]
TABLE = pa.table({"a": [1, 2, 3], "s": ["x", "y", None]})


class Media(TransformerConformance):
    @pytest.fixture
    def transformer(self, name: str, given: object) -> Transformer:
        return FOUND[name]

    @pytest.fixture
    def args(self, transformer: Transformer, given: object) -> BaseModel:
        return parse_args(transformer, given)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return video(tmp_path_factory.mktemp("film") / "film.mp4", count=4, size=(32, 16))


@pytest.mark.parametrize(("name", "given"), SOUND, ids=str)
class TestSound(Media):
    @pytest.fixture
    def inputs(self, film: bytes) -> Sequence[bytes]:
        sound = wav(samples(0.1))
        return [sound, encoded(sound, "flac", "flac"), film]


@pytest.mark.parametrize(("name", "given"), TABLES, ids=str)
class TestTables(Media):
    @pytest.fixture
    def inputs(self) -> Sequence[bytes]:
        output = io.BytesIO()
        pq.write_table(TABLE, output)
        text = b"a,s\n1,x\n2,y\n3,\n"
        return [output.getvalue(), text, gzip.compress(text, mtime=0), b'{"a":2,"s":"y"}\n']
