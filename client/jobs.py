"""Jobs over the management REST: start, watch, abort, retry and remove them, and read what failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from transom.client.records import Job, JobError, JsonObject
from transom.client.rest import AdminError, Rest, as_is, query, segment

ERRORS_PAGE = 5000
JOBS_PAGE = 1000
_POLL_S = (0.1, 0.5)  # at least, at most: asking costs the server what jobs need
_POLL_EACH = 0.1  # of the time that was waited so far
_PATIENCE_S = 30.0
_AWAY = (0, 502, 503, 504)  # no answer, or a proxy's in its place


class JobOptions(TypedDict, total=False):
    """What any job may be told beside its source and destination, as far as it suits its kind; times in seconds.

    `ext` maps extensions, `prefix` bounds the keys and `prepend` stands before the names of what is written. `match`
    is a glob, `keys` and `template` choose keys relative to the source. `where` is a predicate over each object and,
    with `where_etl` and `where_args`, over what that pipeline makes of it. `engine` is "local" or "ray".
    """

    ext: Mapping[str, str]
    prefix: str
    prepend: str
    match: str | None
    keys: Sequence[str] | None
    template: str | None
    limit: int | None
    where: str | None
    where_etl: str
    where_args: Any
    concurrency: int | None
    dry_run: bool
    sync: bool
    force: bool
    continue_on_error: bool
    timeout_s: float | None
    object_timeout_s: float | None
    engine: str


class JobCalls(Rest):
    """The part of `AdminClient` that jobs are run with. A method that starts a job returns at once: see `wait_job`.

    Sources and destinations are `s3://BUCKET[/PATH]`: a source with no path, or one ending in "/", is a prefix; any
    other is one key.
    """

    def transform(
        self,
        source: str,
        destination: str,
        etl: str | Sequence[str],
        *,
        args: Any = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Start writing what the pipeline `etl` ("a>>b", or the names) makes of the source to the destination.

        `args` is a list with one element a stage, or for one ETL its own arguments.
        """
        order = {"source": source, "destination": destination, "etl": _pipeline(etl), "args": args}
        return self.start_job({"kind": "transform", **order, **options})

    def inspect(
        self, source: str, etl: str | Sequence[str] = "", *, args: Any = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Start reading objects, and with `etl` transforming them, writing nothing: what can't be done fails."""
        order = {"source": source, "etl": _pipeline(etl), "args": args}
        return self.start_job({"kind": "inspect", **order, **options})

    def sort(
        self,
        source: str,
        destination: str,
        *,
        by: Literal["key", "content", "shuffle"] = "key",
        content: str = "",
        values: Literal["text", "int", "float"] = "text",
        descending: bool = False,
        seed: int = 0,
        shard_size: int | None = None,
        shard_count: int | None = None,
        shard_records: int | None = None,
        shards: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Start sorting the source's records into new tar shards: of `shard_size` bytes, so many records, or so many.

        `content` is the extension of the member to sort by ("cls" for NAME.cls), `values` what is in it; `shards` is a
        template of names such as "shard-{000000..999999}.tar".
        """
        sorting: dict[str, Any] = {
            "by": by,
            "content": content,
            "values": values,
            "descending": descending,
            "seed": seed,
            "shard_size": shard_size,
            "shard_count": shard_count,
            "shard_records": shard_records,
        }
        if shards is not None:
            sorting["shards"] = shards
        order = {"source": source, "destination": destination, "sorting": sorting}
        return self.start_job({"kind": "sort", **order, **options})

    def start_job(self, order: JsonObject) -> Job:
        """Start what an order says, as `POST /jobs` takes it; what is None is left to the server."""
        body = {name: value for name, value in order.items() if value is not None}
        return self._call("POST", "/jobs", Job.from_json, body)

    def jobs(self, *, limit: int | None = None) -> tuple[Job, ...]:
        """All jobs, the newest first, or the newest `limit` of them; asks for a page at a time."""
        found: list[Job] = []
        before: int | None = None
        while limit is None or len(found) < limit:
            room = JOBS_PAGE if limit is None else min(limit - len(found), JOBS_PAGE)
            page, before = self._call("GET", "/jobs" + query({"before": before, "limit": room}), _jobs_page)
            found += page
            if before is None:
                break
        return tuple(found[:limit])

    def job(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """One job as it is now; or as it is once it has ended, or `wait_s` have passed: up to a second."""
        path = f"/jobs/{segment(job_id)}" + query({"wait_ms": int(wait_s * 1000) or None})
        return self._call("GET", path, Job.from_json)

    def watch_job(self, job_id: str, *, patience_s: float = _PATIENCE_S) -> Iterator[Job]:
        """Yield a job as it is, again and again until it has ended; a server away is waited for up to `patience_s`."""
        began_s, gone_s, pause_s = time.monotonic(), 0.0, 0.0
        while True:
            try:
                job = self.job(job_id, wait_s=pause_s)  # the pause is the server's, which knows when to break it off
            except AdminError as error:
                gone_s = gone_s or time.monotonic()
                if error.status not in _AWAY or time.monotonic() - gone_s > patience_s:
                    raise
                time.sleep(_POLL_S[0])
            else:
                gone_s = 0.0
                yield job
                if job.ended:
                    return
            least_s, most_s = _POLL_S
            pause_s = min(max(least_s, (time.monotonic() - began_s) * _POLL_EACH), most_s)

    def wait_job(self, job_id: str, *, timeout_s: float | None = None, patience_s: float = _PATIENCE_S) -> Job:
        """Wait until a job has ended, well or not: see its `state`. Raises TimeoutError; the job goes on then."""
        began_s = time.monotonic()
        for job in self.watch_job(job_id, patience_s=patience_s):
            if job.ended:
                break
            if timeout_s is not None and time.monotonic() - began_s > timeout_s:
                raise TimeoutError(f"job {job_id} is still {job.state} after {timeout_s:g} s")
        return job

    def abort_job(self, job_id: str) -> Job:
        """Tell a job to stop; one that has ended stays as it is. What it wrote stays."""
        return self._call("POST", f"/jobs/{segment(job_id)}/abort", Job.from_json)

    def retry_job(self, job_id: str) -> Job:
        """Start an ended job again for just the objects that failed."""
        return self._call("POST", f"/jobs/{segment(job_id)}/retry", Job.from_json)

    def remove_job(self, job_id: str) -> None:
        """Forget a job that has ended, and its errors; what it wrote stays."""
        self._call("DELETE", f"/jobs/{segment(job_id)}", as_is)

    def job_errors(self, job_id: str) -> Iterator[JobError]:
        """Yield every object that a job failed on, in the order of the source; asks for a page at a time."""
        after: int | None = 0
        while after is not None:
            path = f"/jobs/{segment(job_id)}/errors" + query({"after": after, "limit": ERRORS_PAGE})
            page, after = self._call("GET", path, _errors_page)
            yield from page


def _jobs_page(data: Mapping[str, Any]) -> tuple[list[Job], int | None]:
    return [Job.from_json(each) for each in data["jobs"]], data.get("next")  # older servers give all at once


def _errors_page(data: Mapping[str, Any]) -> tuple[list[JobError], int | None]:
    return [JobError.from_json(each) for each in data["errors"]], data["next"]


def _pipeline(etl: str | Sequence[str]) -> str:
    return etl if isinstance(etl, str) else ">>".join(etl)
