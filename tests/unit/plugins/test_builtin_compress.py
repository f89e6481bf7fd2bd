"""compress and decompress agree with the tools' own libraries, and bombs, damage and leftovers are rejected."""

from __future__ import annotations

import bz2
import gzip
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from transom.plugins import Context, Reject, Transformer
from transom.plugins.args import parse_args
from transom.plugins.builtin.compress import MIB, Compress, Decompress
from transom.plugins.errors import ArgsError
from transom.plugins.shapes import stream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Run = Callable[..., bytes]  # of conftest

DATA = b"".join(b"line %d\n" % number for number in range(20000)) + os.urandom(300)
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bz2": bz2.compress, "zstd": zstd.compress}
UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "bz2": bz2.decompress, "zstd": zstd.decompress}
ALGORITHMS = sorted(PACK)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_what_is_compressed_the_library_reads(run: Run, algorithm: str, data: bytes) -> None:
    assert UNPACK[algorithm](run(Compress(), data, algorithm)) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_what_the_library_wrote_is_decompressed(run: Run, algorithm: str, data: bytes) -> None:
    packed = PACK[algorithm](data)
    assert run(Decompress(), packed) == data
    assert run(Decompress(), packed, algorithm) == data
    assert run(Decompress(), [packed[at : at + 1] for at in range(min(len(packed), 5000))] + [packed[5000:]]) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_several_members_come_out_joined(run: Run, algorithm: str) -> None:
    members = [PACK[algorithm](part) for part in (b"one", b"", DATA, b"four")]
    packed = b"".join(members)
    expected = b"one" + DATA + b"four"
    assert run(Decompress(), packed) == expected
    assert run(Decompress(), members) == expected
    assert run(Decompress(), [packed[at : at + 7] for at in range(0, len(packed), 7)]) == expected


def test_zstd_frames_may_be_skippable_and_gzip_members_padded(run: Run) -> None:
    skippable = b"\x51\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert run(Decompress(), skippable + zstd.compress(b"x") + skippable) == b"x"
    assert run(Decompress(), gzip.compress(b"x") + b"\0" * 600) == b"x"
    assert run(Decompress(), [gzip.compress(b"x"), b"\0", b"\0\0", gzip.compress(b"y") + b"\0"]) == b"xy"


def test_gzip_is_the_same_every_time_and_says_no_time(run: Run) -> None:
    packed = run(Compress(), DATA)
    assert packed == run(Compress(), [DATA[:10], DATA[10:]])
    assert packed[4:8] == b"\0\0\0\0"


@pytest.mark.parametrize(("algorithm", "low", "high"), [("gzip", 1, 9), ("bz2", 1, 9), ("zstd", 1, 19)])
def test_the_level_counts(run: Run, algorithm: str, low: int, high: int) -> None:
    words = [b"%x " % (number * number) for number in range(600)]
    data = b"".join(words[number * 7919 % 599] for number in range(60_000))
    fast, small = (run(Compress(), data, {"algorithm": algorithm, "level": level}) for level in (low, high))
    assert len(small) < len(fast)


@pytest.mark.parametrize("args", [{"algorithm": "bz2", "level": 0}, {"level": 10}, {"algorithm": "zstd", "level": 0}])
def test_a_level_the_algorithm_does_not_have_is_refused(args: object) -> None:
    with pytest.raises(ArgsError, match=r"level .* is not one of .*'s, . to"):
        parse_args(Compress(), args)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_input_cut_short_is_rejected(run: Run, algorithm: str) -> None:
    packed = PACK[algorithm](DATA)
    for length in (1, 3, 4, 10, len(packed) // 2, len(packed) - 1):
        with pytest.raises(Reject, match="cut short"):
            run(Decompress(), packed[:length])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_damaged_input_is_rejected(run: Run, algorithm: str) -> None:
    packed = bytearray(zstd.compress(DATA, options={zstd.CompressionParameter.checksum_flag: 1}))
    if algorithm != "zstd":
        packed = bytearray(PACK[algorithm](DATA))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(Reject, match=r"corrupt|cut short"):
        run(Decompress(), bytes(packed))


@pytest.mark.parametrize("data", [b"", b"x", b"plain text", b"\x1f", b"PK\x03\x04"])
def test_what_is_not_compressed_is_rejected(run: Run, data: bytes) -> None:
    with pytest.raises(Reject, match=r"cut short|is not gzip, bz2 or zstd"):
        run(Decompress(), data)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("rest", [b"garbage after", b"g", b"\0\0\0\0x"])
def test_something_else_after_the_data_is_rejected(run: Run, algorithm: str, rest: bytes) -> None:
    with pytest.raises(Reject, match=r"after the .* data comes something else"):
        run(Decompress(), PACK[algorithm](b"x") + rest)


def test_another_format_than_asked_for_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match="the bz2 data is corrupt"):
        run(Decompress(), gzip.compress(b"x"), "bz2")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_bomb_is_rejected_in_bounded_memory(algorithm: str, tmp_path: Path) -> None:
    bomb = PACK[algorithm](b"\0" * (64 * MIB))
    assert len(bomb) < 70_000
    context = Context(bucket="b", key="k", etl="decompress", args=parse_args(Decompress(), None))
    given = 0
    tracemalloc.start()
    try:
        with pytest.raises(Reject, match="more than 200 times its size"):
            for piece in stream(Decompress(), [bomb], context, scratch=tmp_path):
                given += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert given <= 16 * MIB
    assert peak < 8 * MIB


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_bounds_can_be_moved(run: Run, algorithm: str) -> None:
    packed = PACK[algorithm](b"\0" * (20 * MIB))
    assert len(run(Decompress(), packed, {"max_ratio": 1_000_000})) == 20 * MIB
    with pytest.raises(Reject, match="more than 5000 bytes"):
        run(Decompress(), PACK[algorithm](b"x" * 5001), {"max_output": 5000})
    assert run(Decompress(), PACK[algorithm](b"x" * 5000), {"max_output": 5000}) == b"x" * 5000


def test_a_zstd_window_past_the_bound_is_rejected(run: Run) -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 28,
        zstd.CompressionParameter.enable_long_distance_matching: 0,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    packed = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(Reject, match="zstd data is corrupt"):
        run(Decompress(), packed)


@pytest.mark.parametrize(
    ("args", "content_type", "extension"),
    [("gzip", "application/gzip", "gz"), ("bz2", "application/x-bzip2", "bz2"), ("zstd", "application/zstd", "zst")],
)
def test_content_type_and_extension_follow_the_algorithm(args: str, content_type: str, extension: str) -> None:
    transformer: Transformer = Compress()
    context = Context(bucket="b", key="k", etl="compress", args=parse_args(transformer, args))
    assert transformer.content_type(context) == content_type
    assert transformer.output_extension(context) == extension
