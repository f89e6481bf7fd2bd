"""A stage that runs other transformers: checked before the run, named by all of them, and run where it is due."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from transom.cluster.catalog import Catalog
from transom.plugins import Context, Transformer, hookimpl
from transom.plugins.manager import Transformers, load
from transom.target.errors import EtlArgsInvalid
from transom.target.etl.limits import Limits
from transom.target.etl.plan import Stage, identify
from transom.target.etl.registry import Registry
from transom.target.etl.runs import Wanted
from transom.target.service import ResultSettings, Target
from transom.target.store.base import Attributes
from transom.target.store.memory import MemoryStore

MIB = 1024 * 1024
SHARD_SIZE = 200_000  # above what is transformed in the server's own process


def stage(registry: Registry, args: object) -> Stage:
    return registry.plan(["tar"], json.dumps(args)).stages[0]


def test_what_a_stage_runs_is_checked_before_the_run(registry: Registry) -> None:
    with pytest.raises(EtlArgsInvalid, match="ETL 'tar': there is no transformer 'imagee'; did you mean 'image'"):
        stage(registry, {"apply": "imagee"})
    with pytest.raises(EtlArgsInvalid, match=r"ETL 'tar': of 'append', argument 'txet': .*did you mean 'text'"):
        stage(registry, {"apply": "append", "apply_args": {"txet": "?"}})
    with pytest.raises(EtlArgsInvalid, match="ETL 'tar': transformers within transformers"):
        args: object = {"apply": "upper"}
        for _ in range(5):
            args = {"apply": "tar", "apply_args": args}
        stage(registry, args)


def test_what_a_stage_runs_belongs_to_its_identity(registry: Registry) -> None:
    plain = stage(registry, None)
    applied = stage(registry, {"apply": "append", "apply_args": {"text": "?"}})
    again = stage(registry, {"apply": "append", "apply_args": "?"})
    assert plain.version == "1"
    assert applied.version == "1+append@1"
    assert json.loads(applied.args.splitlines()[1]) == {"text": "?"}
    assert applied.args.splitlines()[1] == again.args.splitlines()[1]
    assert stage(registry, {"apply": "append"}).args != applied.args


def test_a_new_version_of_what_a_stage_runs_makes_another_result(catalog: Catalog) -> None:
    versions = []
    for number in ("1", "2"):
        registry = Registry(_with(number, deterministic=True), catalog)
        versions.append(stage(registry, {"apply": "dice"}).version)
    assert versions == ["1+dice@1", "1+dice@2"]


def test_a_stage_is_as_deterministic_as_what_it_runs(catalog: Catalog) -> None:
    registry = Registry(_with("1", deterministic=False), catalog)
    assert stage(registry, {"list": "members"}).deterministic
    assert not stage(registry, {"apply": "dice"}).deterministic
    assert not stage(registry, {"apply": "tar", "apply_args": {"apply": "dice"}}).deterministic


def _with(number: str, *, deterministic: bool) -> Transformers:
    class Dice(Transformer):
        name = "dice"
        version = number

        def transform(self, data: bytes, context: Context) -> bytes:
            return data

    Dice.deterministic = deterministic

    @hookimpl
    def transom_transformers() -> Iterable[Transformer]:
        return [Dice()]

    return load([SimpleNamespace(__name__="mine", transom_transformers=transom_transformers)], entry_points=False)


@pytest.fixture
async def target(tmp_path: Path, transformers: Transformers, catalog: Catalog) -> AsyncIterator[Target]:
    limits, results = Limits(), ResultSettings(max_bytes=16 * MIB)
    made = Target(MemoryStore(), transformers, catalog, tmp_path, limits=limits, results=results)
    await made.store.create_bucket("b", owner="o")
    yield made
    await made.close()


async def output(target: Target, etl: str, data: bytes, args: object = None) -> bytes:
    async def body() -> AsyncIterator[bytes]:
        yield data

    await target.store.put("b", "k", body(), Attributes())
    plan = target.registry.plan([etl], json.dumps(args))
    source = await target.store.head("b", "k")
    opened = await target.materialise(Wanted(plan, source, identify(plan, source)))
    try:
        return opened.read(0, opened.size)
    finally:
        opened.close()


async def member(target: Target, content: bytes, args: object) -> bytes:
    """What becomes of the only member of a shard."""
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    made = await output(target, "tar", shard.getvalue(), args)
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        found = archive.extractfile("a.txt")
        assert found is not None
        return found.read()


@pytest.mark.parametrize("size", [100, SHARD_SIZE])
async def test_members_are_transformed_in_this_process_and_in_a_worker(target: Target, size: int) -> None:
    content = b"x" * size
    assert await member(target, content, {"apply": "append", "apply_args": "?"}) == content + b"?"


async def test_an_isolated_transformer_never_runs_in_this_process(target: Target) -> None:
    assert int(await output(target, "whereabouts", b"")) != os.getpid()


async def test_nor_does_one_that_runs_it(target: Target) -> None:
    assert int(await member(target, b"", {"apply": "whereabouts"})) != os.getpid()
