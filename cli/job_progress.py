"""How a job is watched: a live display on a terminal, a line now and then elsewhere, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from transom.client.records import Job

LINE_EVERY_S = 5.0
_WINDOW_S = 10.0  # of which a rate is the mean
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

Show = Callable[["Job"], None]


class Meter:
    """What a job does a second, of what it did in the last few seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: deque[tuple[float, int, int]] = deque()

    def line(self, job: Job) -> str:
        """Objects, bytes, rates, errors and time left, in one line; to be asked with each state of the job."""
        objects_s, bytes_s = self._rates(job)
        told = [f"{job.done:,}/{job.total:,}" if job.total else f"{job.done:,}", human_size(job.bytes_in)]
        if objects_s:
            told += [f"{objects_s:,.1f}/s", f"{human_size(bytes_s)}/s"]
        told.append(f"{job.failed:,} errors" if job.failed != 1 else "1 error")
        if objects_s and job.total > job.done:
            told.append(f"{human_time((job.total - job.done) / objects_s)} left")
        return "  ".join(told)

    def _rates(self, job: Job) -> tuple[float, float]:
        now = self._now()
        if self._seen and job.done < self._seen[-1][1]:  # what failed is to be done again
            self._seen.clear()
        self._seen.append((now, job.done, job.bytes_in))
        while now - self._seen[0][0] > _WINDOW_S and len(self._seen) > 2:  # noqa: PLR2004 - the ends of a window
            self._seen.popleft()
        began, objects, size = self._seen[0]
        took_s = now - began
        return ((job.done - objects) / took_s, (job.bytes_in - size) / took_s) if took_s > 0 else (0.0, 0.0)


@contextmanager
def shown(*, as_json: bool) -> Iterator[Show]:
    """Give what to call with each state of a job, the last too."""
    if as_json:
        yield _json_lines()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live() as show:
            yield show
    else:
        yield _lines()


def as_line(job: Job) -> dict[str, Any]:
    """A job as the JSON line that ends a command."""
    counts = ("written", "unchanged", "skipped", "failed", "deleted", "bytes_in", "bytes_out")
    return {
        "job": job.id,
        "state": job.state,
        **{name: getattr(job, name) for name in counts},
        "message": job.message,
    }


def human_size(count: float) -> str:
    """Bytes for people: "12.3 MB"."""
    for unit in _UNITS[:-1]:
        if count < 1000:  # noqa: PLR2004 - of the decimal units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def human_time(seconds: float) -> str:
    """A duration for people: "1:02:03", "0:07"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _phase(job: Job) -> str:
    return (job.phase if job.state == "running" else "") or job.state


@contextmanager
def _live() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.fields[phase]}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
        TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True)),
    )
    meter = Meter()
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as progress:
        task = progress.add_task("", total=None, phase="", told="")

        def show(job: Job) -> None:
            total = job.total or None
            progress.update(task, total=total, completed=job.done, phase=_phase(job), told=meter.line(job))

        yield show


def _lines() -> Show:
    """A line at first, at the end, and not more often than every few seconds between."""
    meter, last_s = Meter(), -LINE_EVERY_S

    def show(job: Job) -> None:
        nonlocal last_s
        line, now_s = meter.line(job), time.monotonic()
        if job.ended or now_s - last_s >= LINE_EVERY_S:
            typer.echo(f"job {job.id}: {_phase(job)}  {line}", err=True)
            last_s = now_s

    return show


def _json_lines() -> Show:
    """Where a job takes longer, a line every few seconds; the one at the end is the caller's."""
    last_s = time.monotonic()

    def show(job: Job) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if not job.ended and now_s - last_s >= LINE_EVERY_S:
            typer.echo(json.dumps({**as_line(job), "phase": job.phase, "total": job.total}))
            sys.stdout.flush()
            last_s = now_s

    return show
