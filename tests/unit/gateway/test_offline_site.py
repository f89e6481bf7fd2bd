"""How the process of jobs opens the site of a worker: from what can be sent anywhere."""

from __future__ import annotations

import os
import pickle
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from transom.cluster.map import ClusterMap, MapFile, Target
from transom.gateway.config import Config, KeyConfig
from transom.gateway.offline import open_site
from transom.gateway.parts import CLUSTER_MAP
from transom.target.errors import NoSuchKey, ReadOnlyStore
from transom.target.etl.keeper.places import Places
from transom.target.store.base import Whole

SECRET = "not-for-workers-0123"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_bytes(b"text")
    key = KeyConfig(access="ACCESSKEY", secret=SECRET, owner="ann")
    return Config.model_validate(
        {"key": [key.model_dump()], "folder": [{"name": "photos", "path": tmp_path / "photos"}]}
    )


def opener(tmp_path: Path, config: Config) -> bytes:
    """What opens a site, as it is sent."""
    told = config.model_dump(mode="json", exclude={"key"})
    return pickle.dumps(partial(open_site, tmp_path, told, "ann", tmp_path / "scratch"))


def test_it_has_the_store_the_folders_and_the_transformers(tmp_path: Path, config: Config) -> None:
    with closing(pickle.loads(opener(tmp_path, config))()) as site:
        site.wait(site.store.create_bucket("b", owner="ann"))
        site.wait(site.store.put_many("b", [Whole("k", b"bytes")]))
        assert site.wait(site.store.head("b", "k")).size == 5
        assert site.wait(site.store.head("photos", "a.txt")).size == 4
        assert site.wait(site.store.bucket("photos")).owner == "ann"
        with pytest.raises(ReadOnlyStore):
            site.wait(site.store.delete("photos", "a.txt"))
        with pytest.raises(NoSuchKey):
            site.wait(site.store.head("b", "other"))
        assert "upper" in site.pipelines.transformers
        assert site.pipelines.elsewhere is not None
        assert site.scratch == tmp_path / "scratch"


def test_transformers_run_in_the_worker_itself_whatever_the_size(tmp_path: Path, config: Config) -> None:
    with closing(pickle.loads(opener(tmp_path, config))()) as site:
        assert site.pipelines.limits.gil_inline_size > 2**60
        assert site.pipelines.limits.max_output == config.etl.max_output


def test_no_secret_of_a_key_is_sent(tmp_path: Path, config: Config) -> None:
    assert SECRET.encode() not in opener(tmp_path, config)


def test_with_targets_it_speaks_with_the_workers_of_one_of_them(tmp_path: Path, config: Config) -> None:
    nodes = tuple(Target(f"target-{n}", "127.0.0.1", 9000 + n) for n in range(3))
    MapFile(tmp_path / CLUSTER_MAP).save(ClusterMap(1, nodes))
    apart = config.model_copy(update={"cluster": config.cluster.model_copy(update={"targets": 3})})
    with closing(pickle.loads(opener(tmp_path, apart))()):
        used = [n for n in range(3) if Places(tmp_path, f"target-{n}").uses.exists()]
    assert used == [os.getpid() % 3]
    assert not Places(tmp_path).uses.exists()
