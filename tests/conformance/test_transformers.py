"""Every built-in transformer passes the suite that a third party's has to pass."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from collections.abc import Sequence

import pytest
from PIL import Image as Pillow
from pydantic import BaseModel

from transom.plugins import Transformer, manager
from transom.plugins.args import parse_args
from transom.plugins.conformance import TransformerConformance
from transom.plugins.contract import Installed

FOUND = manager.load(entry_points=False)
CASES: list[tuple[str, object]] = [
    *((name, None) for name in FOUND),
    ("hash", 123),
    ("append", "later"),
    ("compress", "bz2"),
    ("compress", {"algorithm": "zstd", "level": 9}),
    ("decompress", "bz2"),
    ("image", {"width": 8, "height": 8, "fit": "contain", "format": "jpeg"}),
    ("faces", "json"),
    ("faces", "crop"),
    ("tar", "0001.txt"),
    ("tar", {"list": "members"}),
    ("tar", {"list": "records", "limit": 1}),
    ("tar", {"apply": "upper", "match": "txt", "drop": "cls"}),
    ("tar2tf", {"types": {"cls": "bytes", "txt": "json"}, "rename": {"label": "cls"}}),
    ("redact", {"regex": [r"line \d+"], "mode": "mask"}),
    ("rename", {"pattern": "key", "replacement": "lock", "extension": "txt"}),
    ("text", {"grep": "1", "tail": 5, "every": 2}),
    ("text", {"encoding": "latin-1", "to": "utf-16", "fraction": 0.5}),
]


def png() -> bytes:
    output = io.BytesIO()
    Pillow.linear_gradient("L").resize((40, 30)).save(output, "PNG")
    return output.getvalue()


def shard() -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in (("0001.txt", b"1"), ("0001.cls", b"7"), ("0002.txt", b'{"a": [1.5]}'), ("0002.cls", b"8")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


INPUTS = [
    b"",
    b"x",
    b"".join(b"line %d of a text\n" % number for number in range(200)),
    bytes(range(256)) * 5,
    gzip.compress(b"packed" * 100, mtime=0),
    bz2.compress(b"packed" * 100),
    png(),
    shard(),
    gzip.compress(shard(), mtime=0),
]


@pytest.mark.parametrize(("name", "given"), CASES, ids=str)
class TestBuiltin(TransformerConformance):
    @pytest.fixture
    def transformer(self, name: str, given: object) -> Transformer:
        return FOUND[name]

    @pytest.fixture
    def args(self, transformer: Transformer, given: object) -> BaseModel:
        return parse_args(transformer, given)

    @pytest.fixture
    def inputs(self) -> Sequence[bytes]:
        return INPUTS

    @pytest.fixture
    def installed(self) -> Installed:
        return FOUND
