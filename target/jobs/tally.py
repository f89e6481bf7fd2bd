"""What a running job has done: kept object by object in its worklist, counted, and told to whoever watches.

It knows nothing of how objects are done.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from transom.target.etl.error_log import ErrorEntry, ErrorLog
from transom.target.jobs.catalog import JobCatalog
from transom.target.jobs.records import Item, Job, Outcome
from transom.target.jobs.worklist import Worklist

_TOLD_EVERY_S = 0.2


class Tally:
    """The outcomes of one run. `phase` is told with the next report."""

    def __init__(self, job: Job, worklist: Worklist, catalog: JobCatalog, errors: ErrorLog) -> None:
        self._job, self._worklist, self._catalog, self._errors = job, worklist, catalog, errors
        self.counts = job.counts
        self.phase = job.phase
        self._told = 0.0
        self._untold = False

    def enter(self, phase: str) -> None:
        """Begin a phase, with the counts as the worklist has them."""
        self.phase = phase
        self.counts = self._worklist.counts()
        self.tell()

    def note(self, outcomes: Sequence[Outcome], items: Mapping[int, Item]) -> None:
        """Keep outcomes; `items` has the object of each."""
        self._worklist.note(outcomes)
        counts = self.counts
        for outcome in outcomes:
            counts = replace(
                counts,
                bytes_in=counts.bytes_in + outcome.bytes_in,
                bytes_out=counts.bytes_out + outcome.bytes_out,
                **{outcome.state: getattr(counts, outcome.state) + 1},
            )
        self.counts = counts
        self._log_errors([outcome for outcome in outcomes if outcome.state == "failed" and outcome.stage], items)
        self._untold = True
        self.tell_in_time()

    def tell_in_time(self) -> None:
        """Say what was done since it was last said, if that was a while ago."""
        if self._untold and time.monotonic() - self._told >= _TOLD_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Say what was done so far."""
        self._told, self._untold = time.monotonic(), False
        self._catalog.progress(self._job.id, self.counts, self.phase)

    def _log_errors(self, failed: Sequence[Outcome], items: Mapping[int, Item]) -> None:
        """Let whoever looks at an ETL's errors see those of jobs too."""
        if not failed:
            return
        order = self._job.order
        entries = [
            ErrorEntry(
                each.stage,
                0.0,
                order.source.bucket,
                items[each.n].key,
                each.code,
                each.message,
                order.etl if len(order.pipeline) > 1 else "",
                self._job.id,
            )
            for each in failed
        ]
        with suppress(sqlite3.Error):  # the worklist has them: no job ends for the want of a second record
            self._errors.add_many(entries)
