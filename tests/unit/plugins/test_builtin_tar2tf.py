"""tar2tf writes what an independent reader of TFRecord finds to be the shard's records."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.unit.plugins.shards import tarred
from tests.unit.plugins.tfrecords import crc32c, examples
from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin.tar2tf import Tar2Tf
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

MIB = 1024 * 1024
SHARD = {
    "train/0001.jpg": b"JPG1" * 100,
    "train/0001.cls": b"7",
    "train/0002.jpg": b"\x00\xff",
    "train/0002.cls": b"-8\n",
    "train/0002.left.png": b"",
}


def png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    output = io.BytesIO()
    Pillow.linear_gradient("L").resize(size).convert(mode).save(output, "PNG")
    return output.getvalue()


def test_the_reader_of_these_tests_knows_its_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value


def test_each_record_becomes_an_example(run: Run) -> None:
    assert examples(run(Tar2Tf(), tarred(SHARD))) == [
        {"__key__": [b"train/0001"], "jpg": [b"JPG1" * 100], "cls": [7]},
        {"__key__": [b"train/0002"], "jpg": [b"\x00\xff"], "cls": [-8], "left.png": [b""]},
    ]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("cls", [{"__key__", "cls"}, {"__key__", "cls"}]),
        ({"select": "left.png", "key": "id"}, [{"id", "left.png"}]),
        ({"select": ["JPG"], "key": None}, [{"jpg"}, {"jpg"}]),
        (
            {"rename": {"image": ["jpg", "left.png"], "label": "cls"}, "select": "jpg,cls"},
            [{"__key__", "image", "label"}] * 2,
        ),
    ],
)
def test_members_are_selected_and_renamed(run: Run, args: object, expected: list[set[str]]) -> None:
    assert [set(example) for example in examples(run(Tar2Tf(), tarred(SHARD), args))] == expected


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("bytes", b"\x00\x80", {"x": [b"\x00\x80"]}),
        ("int", b" 1, -2\n3 ", {"x": [1, -2, 3]}),
        ("int", b"9223372036854775807 -9223372036854775808", {"x": [2**63 - 1, -(2**63)]}),
        ("int", b"", {"x": []}),
        ("float", b"1.5,-0.25 3e2 7", {"x": [1.5, -0.25, 300.0, 7.0]}),
        ("json", b"12", {"x": [12]}),
        ("json", b"true", {"x": [1]}),
        ("json", b'"t\\u00e9xt"', {"x": ["téxt".encode()]}),
        ("json", b"[1, 2.5]", {"x": [1.0, 2.5]}),
        ("json", b'["a", "b"]', {"x": [b"a", b"b"]}),
        ("json", b'["a", 1]', {"x": [b'["a",1]']}),
        ("json", b"[]", {"x": []}),
        ("json", b'{"a": 1, "b": {"c": [0.5]}, "none": null}', {"x/a": [1], "x/b/c": [0.5]}),
        ("json", b"null", {}),
    ],
)
def test_members_are_read_as_their_type_says(run: Run, kind: str, data: bytes, expected: dict[str, Any]) -> None:
    made = examples(run(Tar2Tf(), tarred({"1.x": data}), {"types": {"x": kind}, "key": None}))
    assert made == [expected]


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 4)])
def test_images_are_decoded_to_pixels_and_their_shape(run: Run, mode: str, channels: int) -> None:
    data = png((6, 4), mode)
    args = {"types": {"png": "pixels"}, "rename": {"image": "png"}, "key": None}
    (example,) = examples(run(Tar2Tf(), tarred({"1.png": data}), args))
    assert example["image/shape"] == [4, 6, channels]
    assert example["image"] == [Pillow.open(io.BytesIO(data)).tobytes()]
    assert len(example["image"][0]) == 4 * 6 * channels


@pytest.mark.parametrize(
    ("types", "data", "message"),
    [
        ({"x": "int"}, b"1.5", "record '1': x holds no numbers of the type int: b'1.5'"),
        ({"x": "int"}, b"9223372036854775808", "record '1': 9223372036854775808 does not fit into 64 bits"),
        ({"x": "float"}, b"1e300", "record '1': .*too large"),
        ({"x": "float"}, b"\xff", "record '1': x holds no numbers"),
        ({"x": "json"}, b"{", "record '1': x holds no JSON"),
        ({"x": "json"}, b"[" * 100_000, "record '1': x holds no JSON"),
        ({"x": "json"}, b'"\\ud800"', "record '1': .*surrogates"),
        ({"x": "pixels"}, b"no image", "record '1': not a readable image"),
    ],
)
def test_a_member_that_is_not_of_its_type_rejects_the_shard_by_its_record(
    run: Run, types: dict[str, str], data: bytes, message: str
) -> None:
    with pytest.raises(Reject, match=message):
        run(Tar2Tf(), tarred({"1.x": data}), {"types": types})


def test_pixels_are_bounded(run: Run) -> None:
    with pytest.raises(Reject, match=r"record '1': the image has 6x4 pixels, more than 23 \(max_pixels\)"):
        run(Tar2Tf(), tarred({"1.png": png((6, 4))}), {"types": {"png": "pixels"}, "max_pixels": 23})


def test_what_belongs_to_no_record_is_left_out(run: Run) -> None:
    data = tarred({"README": b"x", ".hidden": b"y", **SHARD})
    assert run(Tar2Tf(), data) == run(Tar2Tf(), tarred(SHARD))
    assert run(Tar2Tf(), tarred({"1.jpg": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")) == b""
    assert run(Tar2Tf(), bytes(10240)) == b""


def test_two_features_of_one_name_are_rejected(run: Run) -> None:
    with pytest.raises(Reject, match="record '1' has two members with the extension 'jpg'"):
        run(Tar2Tf(), tarred({"1.jpg": b"a", "1.JPG": b"b"}))
    with pytest.raises(Reject, match="record '1': it has two features 'image'"):
        run(Tar2Tf(), tarred({"1.jpg": b"a", "1.png": b"b"}), {"rename": {"image": ["jpg", "png"]}})


def test_a_record_is_bounded(run: Run) -> None:
    with pytest.raises(Reject, match=r"record 'train/0001' has more than 400 bytes \(max_record\)"):
        run(Tar2Tf(), tarred(SHARD), {"max_record": 400})


def test_a_packed_shard_is_read(run: Run) -> None:
    assert run(Tar2Tf(), gzip.compress(tarred(SHARD))) == run(Tar2Tf(), tarred(SHARD))


def test_features_are_written_in_one_order(run: Run) -> None:
    turned = dict(reversed(list({name: data for name, data in SHARD.items() if "0001" in name}.items())))
    straight = dict(reversed(list(turned.items())))
    assert run(Tar2Tf(), tarred(turned)) == run(Tar2Tf(), tarred(straight))


def test_it_says_what_comes_out() -> None:
    context = Context("b", "k.tar", "tar2tf", args=parse_args(Tar2Tf(), None))
    assert Tar2Tf().content_type(context) == "application/x-tfrecord"
    assert Tar2Tf().output_extension(context) == "tfrecord"


def test_a_shard_is_read_record_by_record() -> None:
    def shard() -> Iterator[bytes]:
        for number in range(64):
            info = tarfile.TarInfo(f"{number:03}.bin")
            info.size = MIB
            yield info.tobuf() + bytes(MIB)
        yield bytes(1024)

    context = Context("b", "k", "tar2tf", args=parse_args(Tar2Tf(), None))
    tracemalloc.start()
    try:
        size = sum(map(len, Tar2Tf().transform_stream(shard(), context)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 64 * MIB < size < 65 * MIB
    assert peak < 12 * MIB


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"types": {"cls": "number"}}, "argument 'types.cls'"),
        ({"rename": {"a": "jpg", "b": ["png", "JPG"]}}, "the extension 'jpg' is renamed twice"),
        ({"max_record": 0}, "argument 'max_record'"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Tar2Tf(), args)


def test_arguments_may_be_options() -> None:
    args = parse_args(Tar2Tf(), None, {"types": json.dumps({"LEFT.txt": "float"}), "select": "a,b"})
    assert args.types == {"left.txt": "float"}  # type: ignore[attr-defined]
    assert args.select == ("a", "b")  # type: ignore[attr-defined]
