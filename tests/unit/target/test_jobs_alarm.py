from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from transom.cluster.stamp import Stamp
from transom.target.jobs.alarm import Alarm, JobAborted, JobTimedOut
from transom.target.jobs.catalog import STAMP, JobCatalog
from transom.target.jobs.order import Order


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[JobCatalog]:
    with closing(JobCatalog.open(tmp_path)) as catalog:
        yield catalog


@pytest.fixture
def stamp(tmp_path: Path, catalog: JobCatalog) -> Iterator[Stamp]:
    with closing(Stamp(tmp_path / STAMP)) as stamp:
        yield stamp


@pytest.fixture
def job_id(catalog: JobCatalog) -> str:
    job_id = catalog.add(Order(source="s3://a", destination="s3://b", etl="upper"), "ann").id
    catalog.claim(job_id)
    return job_id


def test_it_rings_once_an_abort_is_ordered_and_for_no_other_job(catalog: JobCatalog, stamp: Stamp, job_id: str) -> None:
    alarm = Alarm(catalog, stamp, job_id, None)
    alarm.check()
    other = catalog.add(Order(source="s3://a", destination="s3://b", etl="upper"), "ann").id
    catalog.claim(other)
    catalog.order_abort(other)
    alarm.check()
    catalog.order_abort(job_id)
    with pytest.raises(JobAborted):
        alarm.check()


def test_it_rings_when_the_time_is_over(catalog: JobCatalog, stamp: Stamp, job_id: str) -> None:
    Alarm(catalog, stamp, job_id, 100.0).check()
    with pytest.raises(JobTimedOut, match="longer than 1e-09 s"):
        Alarm(catalog, stamp, job_id, 1e-9).check()


async def test_what_is_done_on_an_event_loop_is_given_up_then(catalog: JobCatalog, stamp: Stamp, job_id: str) -> None:
    alarm = Alarm(catalog, stamp, job_id, None)
    given_up = asyncio.Event()

    async def work() -> None:
        catalog.order_abort(job_id)
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    with pytest.raises(JobAborted):
        await alarm.over(work())
    assert given_up.is_set()


async def test_what_it_gives_or_raises_is_passed_on(catalog: JobCatalog, stamp: Stamp, job_id: str) -> None:
    alarm = Alarm(catalog, stamp, job_id, None)
    assert await alarm.over(asyncio.sleep(0, "done")) == "done"

    async def fail() -> None:
        raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        await alarm.over(fail())
