"""A job as the catalog keeps it: its order, its state and what it has done so far. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transom.target.jobs.order import Order

JobState = Literal["queued", "running", "done", "failed", "aborted"]
OutcomeState = Literal["written", "unchanged", "skipped", "failed"]
ENDED: tuple[JobState, ...] = ("done", "failed", "aborted")


@dataclass(frozen=True, slots=True)
class Counts:
    """Objects and bytes. `total` is 0 until the source was listed.

    `unchanged` were up to date already; `skipped` were left out by a transformer or a predicate; `deleted` are gone
    from the source. In a dry run `written` are those that would have been.
    """

    total: int = 0
    written: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    deleted: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def done(self) -> int:
        """How many of `total` are decided."""
        return self.written + self.unchanged + self.skipped + self.failed


@dataclass(frozen=True, slots=True)
class Job:
    """One offline run. `owner` is who asked, and owns what it writes; times are epoch seconds, 0.0 for not yet.

    `message` says why it failed; `phase` what it is doing ("listing", "transforming", "deleting", "scanning", ...).
    `runs` counts how often it was started: 1, and one more for each restart of the server and each retry of its errors;
    `retries` counts those retries. `keys` is how many keys the order names.
    """

    id: str
    order: Order
    owner: str
    state: JobState = "queued"
    phase: str = ""
    message: str = ""
    counts: Counts = field(default_factory=Counts)
    runs: int = 0
    retries: int = 0
    created_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class Selected:
    """An object that a job's selection chose, not yet numbered; `destination` is "" where nothing is to be written.

    With a `code` it has failed already: a key that was asked for and isn't there.
    """

    key: str
    size: int
    etag: str
    destination: str
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One object to do: `n` is its number in the job's worklist, `destination` the key that it is to become."""

    n: int
    key: str
    size: int
    etag: str
    destination: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item. A failed one says at which `stage` (an ETL, or ""), and `code` as ETL errors do."""

    n: int
    state: OutcomeState
    bytes_in: int = 0
    bytes_out: int = 0
    stage: str = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class JobError:
    """An object that a job failed on; `n` is its number in the worklist, after which a page of errors goes on."""

    key: str
    stage: str
    code: str
    message: str
    n: int = 0
