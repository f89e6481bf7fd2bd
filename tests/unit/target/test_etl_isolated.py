"""A query runs in a worker whatever its input's size, can't take the server's memory, and keeps to its deadline."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from transom.cluster.catalog import Catalog
from transom.plugins.manager import Transformers
from transom.target.errors import EtlInputRejected, EtlTimeout
from transom.target.etl.limits import Limits
from transom.target.etl.plan import identify
from transom.target.etl.runs import Wanted
from transom.target.service import ResultSettings, Target
from transom.target.store.base import Attributes
from transom.target.store.memory import MemoryStore

MIB = 1024 * 1024
TABLE = b"a,b\n1,x\n2,y\n"
# Neither is caught by the bound that the database itself keeps.
GREEDY = "SELECT length(" + "||".join(["s"] * 64) + ") FROM (SELECT repeat(b, 100000000) AS s FROM S3Object)"
ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b"


async def run(tmp_path: Path, transformers: Transformers, catalog: Catalog, etl: str, args: object) -> bytes:
    limits, results = Limits(timeout_s=20 if args != ENDLESS else 1.5), ResultSettings(max_bytes=16 * MIB)
    target = Target(MemoryStore(), transformers, catalog, tmp_path, limits=limits, results=results)
    await target.store.create_bucket("b", owner="o")

    async def body() -> AsyncIterator[bytes]:
        yield TABLE

    try:
        await target.store.put("b", "k.csv", body(), Attributes())
        plan = target.registry.plan([etl], json.dumps(args))
        source = await target.store.head("b", "k.csv")
        opened = await target.materialise(Wanted(plan, source, identify(plan, source)))
        made = opened.read(0, opened.size)
        opened.close()
    finally:
        await target.close()
    return made


async def test_a_query_runs_in_a_worker(
    tmp_path: Path, transformers: Transformers, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transom.plugins.builtin.sql_query.transformed", None)  # in this process alone
    made = await run(tmp_path, transformers, catalog, "sql", "SELECT sum(a) AS s FROM S3Object")
    assert made == b'{"s":3}\n'


async def test_a_query_that_asks_for_too_much_memory_is_rejected(
    tmp_path: Path, transformers: Transformers, catalog: Catalog
) -> None:
    with pytest.raises(EtlInputRejected, match="the query needs more"):
        await run(tmp_path, transformers, catalog, "sql", GREEDY)


async def test_an_endless_query_passes_its_deadline(
    tmp_path: Path, transformers: Transformers, catalog: Catalog
) -> None:
    with pytest.raises(EtlTimeout, match=r"ETL 'sql' passed its deadline of 1\.5 s"):
        await run(tmp_path, transformers, catalog, "sql", ENDLESS)
