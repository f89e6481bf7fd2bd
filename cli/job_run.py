"""What follows when a command has started a job: it is watched to its end, or left to the server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from transom.cli.errors import CliError
from transom.cli.job_progress import as_line, human_size, human_time, shown

if TYPE_CHECKING:
    from transom.client.admin import AdminClient
    from transom.client.records import Job

INTERRUPTED = 130


def follow(client: AdminClient, job: Job, *, wait: bool, as_json: bool) -> None:
    """Watch a job to its end and say how it went, or only name it. Raises CliError if anything failed."""
    from transom.client.admin import AdminError

    if not wait:
        typer.echo(json.dumps(as_line(job)) if as_json else job.id)
        return
    seen, again = job, f"transom job wait {job.id}"
    try:
        with shown(as_json=as_json) as show:
            for seen in client.watch_job(job.id):
                show(seen)
    except (KeyboardInterrupt, AdminError) as error:
        if as_json:
            typer.echo(json.dumps(as_line(seen)))
        if isinstance(error, AdminError):
            raise CliError(f"{error}; what became of job {job.id} is told by: {again}") from error
        stop = f"transom job abort {job.id}"
        message = f"job {job.id} goes on without you; watch it with: {again}, stop it with: {stop}"
        raise CliError(message, exit_code=INTERRUPTED) from None
    typer.echo(json.dumps(as_line(seen)) if as_json else summary(seen))
    if not seen.well:
        raise CliError(_reason(seen))


def summary(job: Job) -> str:
    """How a job went, in a line."""
    dry, inspected = bool(job.order.get("dry_run")), job.kind == "inspect"
    written = "shards written" if job.kind == "sort" else "written"
    told = [f"{job.unchanged:,} good"] if inspected else [f"{job.written:,} {_would(written) if dry else written}"]
    told += [
        f"{count:,} {word}"
        for count, word in (
            (0 if inspected else job.unchanged, "up to date already"),
            (job.skipped, "left out"),
            (job.deleted, "would be deleted" if dry else "deleted"),
            (job.failed, "failed"),
        )
        if count
    ]
    sizes = f"{human_size(job.bytes_in)} in, {human_size(job.bytes_out)} out"
    took_s = max(0.0, job.ended_s - job.started_s) if job.started_s else 0.0
    rest = f"; {job.message}" if job.message and job.state == "done" else ""
    return f"job {job.id} {job.state}: {', '.join(told)}; {sizes}; {human_time(took_s)}{rest}"


def _would(done: str) -> str:
    return done.replace("written", "would be written")


def _reason(job: Job) -> str:
    parts = [] if job.state == "done" else [f"job {job.id} {job.state}{': ' if job.message else ''}{job.message}"]
    if job.failed:
        parts.append(f"{job.failed:,} failed: see transom job errors {job.id}")
    return "; ".join(parts)
