from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from transom.target.etl.error_log import ErrorLog
from transom.target.jobs.catalog import JobCatalog
from transom.target.jobs.order import Order
from transom.target.jobs.records import Counts, Job, Outcome, Selected
from transom.target.jobs.tally import Tally
from transom.target.jobs.worklist import Worklist

ORDER = Order(source="s3://photos", destination="s3://small", etl="decode>>thumb")


@dataclass
class Kept:
    catalog: JobCatalog
    worklist: Worklist
    errors: ErrorLog
    job: Job

    def tally(self) -> Tally:
        return Tally(self.job, self.worklist, self.catalog, self.errors)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with closing(JobCatalog.open(tmp_path)) as catalog, closing(ErrorLog(tmp_path / "errors.sqlite")) as errors:
        job = catalog.claim(catalog.add(ORDER, "ann").id)
        assert job is not None
        with Worklist.open(catalog.folder_of(job.id)) as worklist:
            worklist.add(Selected(f"k{n}", 10, "e", f"d{n}") for n in range(4))
            yield Kept(catalog, worklist, errors, job)


def test_what_was_done_is_kept_counted_and_told(kept: Kept) -> None:
    tally, items = kept.tally(), {item.n: item for item in kept.worklist.pending()}
    tally.enter("transforming")
    told = kept.catalog.get(kept.job.id)
    assert (told.phase, told.counts) == ("transforming", Counts(total=4))
    tally.note([Outcome(1, "written", 10, 5), Outcome(2, "skipped", 10)], items)
    tally.note([Outcome(3, "unchanged")], items)
    expected = Counts(4, written=1, unchanged=1, skipped=1, bytes_in=20, bytes_out=5)
    assert tally.counts == expected == kept.worklist.counts()
    tally.tell()
    assert kept.catalog.get(kept.job.id).counts == expected


def test_a_run_begins_with_what_those_before_it_did(kept: Kept) -> None:
    kept.worklist.note([Outcome(1, "written", 10, 5)])
    tally = kept.tally()
    tally.enter("transforming")
    assert tally.counts == Counts(4, written=1, bytes_in=10, bytes_out=5)


def test_what_a_stage_failed_on_is_in_its_etls_errors_too(kept: Kept) -> None:
    tally, items = kept.tally(), {item.n: item for item in kept.worklist.pending()}
    tally.note([Outcome(1, "failed", 10, 0, "thumb", "EtlFailed", "no"), Outcome(2, "failed", code="NoSuchKey")], items)
    (entry,) = kept.errors.of_etl("thumb")
    assert (entry.bucket, entry.key, entry.code, entry.message) == ("photos", "k0", "EtlFailed", "no")
    assert (entry.pipeline, entry.job) == ("decode>>thumb", kept.job.id)
    assert [error.code for error in kept.worklist.errors()] == ["EtlFailed", "NoSuchKey"]


def test_it_is_not_told_again_and_again_and_what_is_new_not_forgotten(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("transom.target.jobs.tally.time.monotonic", lambda: now_s)
    tally, items = kept.tally(), {item.n: item for item in kept.worklist.pending()}
    tally.enter("transforming")
    tally.note([Outcome(1, "written")], items)
    tally.tell_in_time()
    assert kept.catalog.get(kept.job.id).counts.written == 0
    now_s += 1.0
    tally.tell_in_time()
    assert kept.catalog.get(kept.job.id).counts.written == 1
