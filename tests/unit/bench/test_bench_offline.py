"""What jobs are compared with does what a job does: the same objects, the same bytes, the same order."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from transom.bench.objects import blobs
from transom.bench.suite.offline_baselines import function, pool_over_files, sort_files
from transom.bench.suite.offline_cases import CASES, RATIOS, contestants

pytest.importorskip("av")


def test_the_pool_writes_what_the_function_gives_for_every_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"object-{number}").write_bytes(b"x" * number)
    assert pool_over_files(source, tmp_path / "made", "upper", "", 2) == 40
    for number in range(40):
        assert (tmp_path / "made" / f"object-{number}").read_bytes() == b"X" * number


def test_the_function_of_a_case_is_the_built_in_with_its_arguments() -> None:
    case = CASES["flac"]
    (flac,) = blobs("flac", 50_000, 1, 0)
    made = function(case.etl, case.args)("object.flac", bytes(flac.view()))
    assert made[:4] == b"RIFF"
    assert len(made) > len(flac.view())


def test_sorting_by_hand_keeps_every_record_together_and_in_order(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = set()
    for number, shard in enumerate(blobs("shard", 200_000, 3, 0)):
        path = source / f"object-{2 - number}.tar"
        path.write_bytes(shard.view())
        with tarfile.open(path) as archive:
            names |= set(archive.getnames())
    assert sort_files(source, tmp_path / "made", 150_000, 2) > 1
    found = []
    for path in sorted((tmp_path / "made").iterdir()):
        with tarfile.open(path) as archive:
            found += archive.getnames()
    assert len(found) == len(names)
    assert set(found) == names
    records = [name.partition(".")[0] for name in found]
    assert records == sorted(records)


def test_every_ratio_is_of_a_case_and_its_contestants() -> None:
    measured = {(case.name, name) for case in CASES.values() for name in case.contestants}
    assert all({ratio.over, ratio.under} <= measured for ratio in RATIOS)
    assert contestants(list(CASES.values()))[0] == "job"
