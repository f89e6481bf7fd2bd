from pathlib import Path

import pytest

from transom.cluster.map import ClusterMap, ClusterMapError, MapFile, Target

ONE = Target("t1", "127.0.0.1", 9001)
TWO = Target("t2", "127.0.0.1", 9002, weight=2.5)


def test_a_missing_file_is_the_empty_map(tmp_path: Path) -> None:
    assert MapFile(tmp_path / "cluster.json").current() == ClusterMap(0, ())


def test_a_saved_map_reads_back_the_same(tmp_path: Path) -> None:
    file = MapFile(tmp_path / "cluster.json")
    saved = ClusterMap(7, (ONE, TWO))
    file.save(saved)
    assert MapFile(file.path).current() == saved
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_current_sees_every_save_of_another_handle_and_reuses_what_is_unchanged(tmp_path: Path) -> None:
    writer, reader = MapFile(tmp_path / "cluster.json"), MapFile(tmp_path / "cluster.json")
    for version in range(1, 60):  # far quicker than the file system's clock, always the same size
        writer.save(ClusterMap(version % 2, (ONE,)))
        assert reader.current().version == version % 2
    assert reader.current() is reader.current()


def test_a_removed_file_empties_the_map(tmp_path: Path) -> None:
    file = MapFile(tmp_path / "cluster.json")
    file.save(ClusterMap(1, (ONE,)))
    assert file.current().version == 1
    file.path.unlink()
    assert file.current() == ClusterMap()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 1, "targets": [{"id": "a"}]}',
        '{"version": 1, "targets": [{"id": "a", "host": "h", "port": 1, "colour": "red"}]}',
        '{"version": 1, "targets": [{"id": "a", "host": "h", "port": 0}]}',
        '{"version": 1, "targets": [{"id": "a", "host": "h", "port": 1, "weight": 0}]}',
        '{"version": 1, "targets": [{"id": "a", "host": "h", "port": 1, "weight": NaN}]}',
        '{"version": 1, "targets": [{"id": "a", "host": "h", "port": 1, "state": "tired"}]}',
    ],
)
def test_a_damaged_map_is_refused_and_read_again_once_mended(tmp_path: Path, text: str) -> None:
    file = MapFile(tmp_path / "cluster.json")
    file.path.write_text(text)
    for _ in range(2):
        with pytest.raises(ClusterMapError):
            file.current()
    file.save(ClusterMap(3, (ONE,)))
    assert file.current().version == 3


def test_two_targets_cannot_share_an_id() -> None:
    with pytest.raises(ClusterMapError):
        ClusterMap(1, (ONE, Target("t1", "127.0.0.2", 9001)))


def test_changes_make_the_next_version() -> None:
    start = ClusterMap(1, (ONE,))
    both = start.with_target(TWO)
    down = both.with_state("t1", "down")
    assert (both.version, both.targets) == (2, (ONE, TWO))
    assert down.version == 3
    assert [target.state for target in down.targets] == ["down", "up"]
    assert down.with_state("t1", "down") is down
    assert down.without("t1").targets == (TWO,)
    with pytest.raises(ClusterMapError):
        start.with_state("t9", "up")
