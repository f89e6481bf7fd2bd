"""`transom job`: see, watch, stop and remove offline jobs, and what they failed on."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.job_options import JobJson
from transom.cli.job_progress import human_size
from transom.cli.job_run import follow
from transom.cli.output import Json, show_json, show_record, show_table

if TYPE_CHECKING:
    from transom.client.records import Job

_TABLE_ROWS = 1000

app = typer.Typer(no_args_is_help=True, help="See, watch, stop and remove offline jobs, and what they failed on.")

JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
JobIds = Annotated[list[str], typer.Argument(help="The jobs' ids.", metavar="JOB...")]


@app.command("ls")
def list_jobs(
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the newest.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with admin(endpoint) as client:
        jobs = client.jobs(limit=limit)
    if as_json:
        show_json(jobs)
        return
    rows = [
        (job.id, job.kind, job.state, f"{job.done}/{job.total}", job.failed, *_way(job), _time(job.created_s))
        for job in jobs
    ]
    columns = ["JOB", "KIND", "STATE", "DONE", "FAILED", "SOURCE", "DESTINATION", "ETL", "CREATED"]
    show_table(columns, rows, empty="no jobs")


@app.command()
def show(job_id: JobId, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Show all there is to say of one job."""
    with admin(endpoint) as client:
        job = client.job(job_id)
    if as_json:
        show_json(job)
        return
    told = {name.replace("_", " "): value for name, value in asdict(job).items() if not name.endswith("_s")}
    told |= {name: human_size(told[name]) for name in ("bytes in", "bytes out")}
    times = {name: _time(getattr(job, f"{name}_s")) for name in ("created", "started", "ended")}
    show_record({**told, "keys": job.keys or None, **times})


@app.command()
def wait(job_id: JobId, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: JobJson = False) -> None:
    """Watch a job to its end; the exit code is 1 if anything failed."""
    with admin(endpoint) as client:
        follow(client, client.job(job_id), wait=True, as_json=as_json)


@app.command()
def abort(job_ids: JobIds, endpoint: Endpoint = DEFAULT_ENDPOINT) -> None:
    """Stop jobs; their ETLs, other jobs and what was written stay."""
    with admin(endpoint) as client:
        for job_id in job_ids:
            client.abort_job(job_id)


@app.command("rm")
def remove(job_ids: JobIds, endpoint: Endpoint = DEFAULT_ENDPOINT) -> None:
    """Forget jobs that have ended, and their errors; what they wrote stays."""
    with admin(endpoint) as client:
        for job_id in job_ids:
            client.remove_job(job_id)


@app.command()
def errors(
    job_id: JobId,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> None:
    """List every object that a job failed on."""
    with admin(endpoint) as client:
        found = client.job_errors(job_id)
        if as_json:
            for each in found:
                typer.echo(json.dumps(asdict(each), ensure_ascii=False))
            return
        rows = ((each.key, each.stage, each.code, " ".join(each.message.split())) for each in found)
        page = list(itertools.islice(rows, _TABLE_ROWS))
        while True:  # a table of each thousand: a million are neither awaited nor held
            show_table(["KEY", "STAGE", "CODE", "MESSAGE"], page, empty="no errors")
            page = list(itertools.islice(rows, _TABLE_ROWS))
            if not page:
                return


def _way(job: Job) -> tuple[object, ...]:
    return tuple(job.order.get(name) for name in ("source", "destination", "etl"))


def _time(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S") if epoch_s else ""
