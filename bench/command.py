"""`transom bench`: reads the options, runs the load generator, shows and writes what it measured.

It decides nothing about requests or measuring. `bench` is the typer command; the `transom` command mounts it.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from transom.bench.data import parse_duration_s, parse_pixels, parse_size
from transom.bench.mix import Workload, parse_mix, stages
from transom.bench.objects import KINDS, objects_for, parse_kind
from transom.bench.report import MIB, tables, to_json
from transom.bench.run import Bench, BenchError, Progress
from transom.bench.sign import Credentials, Endpoint
from transom.bench.worker import Pace

DEFAULT_DURATION_S = 5.0
DEFAULT_PIXELS = "1600x1200"
PLAIN_LINE_EVERY_S = 1.0
PLAIN_WIDTH = 132
FAILED, USAGE = 1, 2  # exit statuses

T = TypeVar("T")


def bench(  # noqa: PLR0917 - each is an option; typer passes them by name
    endpoint: Annotated[str, typer.Option(envvar="TRANSOM_ENDPOINT", help="S3 endpoint.")] = "http://127.0.0.1:9000",
    access_key: Annotated[str, typer.Option(envvar="TRANSOM_ACCESS_KEY", help="Access key.")] = "",
    secret_key: Annotated[
        str, typer.Option(envvar="TRANSOM_SECRET_KEY", help="Secret key.", show_default=False, show_envvar=True)
    ] = "",
    region: Annotated[str, typer.Option(help="Region to sign for.")] = "us-east-1",
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Send unsigned requests.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any TLS certificate.")] = False,
    bucket: Annotated[
        str, typer.Option(help="Bucket to use; without it one is made, and removed afterwards.", show_default=False)
    ] = "",
    mix: Annotated[str, typer.Option(help="get, put, etl, or weights: get=70,put=30.")] = "get",
    etl: Annotated[
        str,
        typer.Option(
            help="ETL or pipeline to GET through: any built-in transformer, an ETL of yours, 'a>>b'.",
            show_default=False,
        ),
    ] = "",
    etl_args: Annotated[str, typer.Option(help="Its arguments, JSON.", show_default=False)] = "",
    does: Annotated[
        str,
        typer.Option(
            "--as", help="What the ETL equals, for --verify: md5, echo, upper, hello_world.", show_default=False
        ),
    ] = "",
    size: Annotated[str, typer.Option(help="Size of an object: 4KiB, 100KiB, 1MiB.")] = "1MiB",
    pixels: Annotated[
        str, typer.Option(help=f"Put JPEG photos of this size ({DEFAULT_PIXELS} for --etl image).", show_default=False)
    ] = "",
    kind: Annotated[
        str, typer.Option(help=f"What to put, by default what the ETL takes: {', '.join(KINDS)}.", show_default=False)
    ] = "",
    objects: Annotated[int, typer.Option(min=1, max=1_000_000, help="Distinct keys.")] = 64,
    concurrency: Annotated[int, typer.Option(min=1, max=10_000, help="Requests under way at once.")] = 16,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
    duration: Annotated[str, typer.Option(help="How long, 5s unless --count is given.", show_default=False)] = "",
    count: Annotated[int, typer.Option(min=0, help="How many requests.", show_default=False)] = 0,
    warmup: Annotated[str, typer.Option(help="Load before the measuring begins.")] = "0s",
    timeout: Annotated[str, typer.Option(help="Longest a request may take.")] = "60s",
    verify: Annotated[bool, typer.Option("--verify", help="Compare every byte of every answer.")] = False,
    json_file: Annotated[
        str, typer.Option("--json", help="Write the results here; - is standard output.", show_default=False)
    ] = "",
    seed: Annotated[int, typer.Option(help="What data and order follow from.")] = 0,
) -> None:
    """Load an S3 endpoint with GETs, PUTs and ETL GETs, and report throughput and latency percentiles."""
    if not anonymous and not (access_key and secret_key):
        _fail("no credentials: set TRANSOM_ACCESS_KEY and TRANSOM_SECRET_KEY, or give --anonymous", USAGE)
    objects_taken = objects_for(stages(etl) if etl else [])
    what = _read(parse_kind, kind) if kind else ("photo" if pixels else objects_taken.kind)
    photos = (pixels or DEFAULT_PIXELS) if what == "photo" else ""
    run_id = secrets.token_hex(4)
    duration_s = _read(parse_duration_s, duration) if duration else (None if count else DEFAULT_DURATION_S)
    workload = Workload(
        endpoint=_read(Endpoint.parse, endpoint),
        bucket=bucket or f"transom-bench-{run_id}",
        credentials=Credentials() if anonymous else Credentials(access_key, secret_key, region),
        prefix=f"transom-bench-{run_id}/" if bucket else "",
        mix=_read(lambda text: parse_mix(text, etl), mix),
        etl=etl,
        etl_args=etl_args or objects_taken.args,
        does=does,
        size=_read(parse_size, size),
        kind=what,
        pixels=_read(parse_pixels, photos) if photos else None,
        objects=objects,
        seed=seed,
        verify=verify,
    )
    pace = Pace(
        concurrency=concurrency,
        processes=min(workers, concurrency),
        duration_s=duration_s,
        count=count or None,
        warmup_s=_read(parse_duration_s, warmup),
        timeout_s=_read(parse_duration_s, timeout),
        insecure=insecure,
    )
    _run(workload, pace, own_bucket=not bucket, json_file=json_file)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(name="bench")(bench)


def _run(workload: Workload, pace: Pace, *, own_bucket: bool, json_file: str) -> None:
    out = Console(stderr=json_file == "-")
    if not out.is_terminal:
        out.width = PLAIN_WIDTH
    try:
        run = Bench(workload, pace, own_bucket=own_bucket)
        with run.prepared(), _display(Console(stderr=True), pace) as progress:
            report = run.measure(progress)
    except ValueError as error:
        _fail(str(error), USAGE)
    except BenchError as error:
        _fail(str(error), FAILED)
    for table in tables(report):
        out.print(table)
    if json_file:
        text = json.dumps(to_json(report, describe(workload, pace)), indent=2) + "\n"
        if json_file == "-":
            sys.stdout.write(text)
        else:
            Path(json_file).write_text(text, encoding="utf-8")
    if not report.good:
        raise typer.Exit(FAILED)


def describe(workload: Workload, pace: Pace) -> dict[str, Any]:
    """What was run, for the JSON; no secrets."""
    return {
        "endpoint": f"{workload.endpoint.scheme}://{workload.endpoint.authority}{workload.endpoint.prefix}",
        "bucket": workload.bucket,
        "mix": dict(workload.mix),
        "etl": workload.etl,
        "etl_args": workload.etl_args,
        "kind": workload.kind,
        "object_bytes": None if workload.pixels else workload.size,
        "pixels": list(workload.pixels) if workload.pixels else None,
        "objects": workload.objects,
        "concurrency": pace.concurrency,
        "workers": pace.processes,
        "seed": workload.seed,
        "verified": workload.verify,
    }


@contextmanager
def _display(console: Console, pace: Pace) -> Iterator[Progress]:
    """A line kept up to date on a terminal, else a plain line a second."""
    ends = f"/{pace.duration_s:g}" if pace.duration_s else ""
    last = [0.0, 0.0, 0.0]  # seconds, requests and bytes at the last line

    def line(elapsed_s: float, done: int, moved: int, failed: int) -> str:
        step_s = max(elapsed_s - last[0], 1e-9)
        rate, speed = (done - last[1]) / step_s, (moved - last[2]) / MIB / step_s
        last[:] = [elapsed_s, done, moved]
        return f"{elapsed_s:5.1f}{ends} s  {done:>9,} done  {rate:>9,.0f}/s  {speed:>8,.1f} MiB/s  {failed:,} failed"

    if not console.is_terminal:
        shown = [time.monotonic()]

        def plain(*figures: Any) -> None:
            if time.monotonic() - shown[0] >= PLAIN_LINE_EVERY_S:
                shown[0] = time.monotonic()
                console.print(line(*figures), highlight=False, soft_wrap=True)

        yield plain
        return
    with Live(Text("starting"), console=console, refresh_per_second=8, transient=True) as live:

        def show(*figures: Any) -> None:
            if figures[0] - last[0] >= PLAIN_LINE_EVERY_S / 4:
                live.update(Text(line(*figures)))

        yield show


def _read(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _fail(message: str, status: int) -> NoReturn:
    Console(stderr=True).print(f"transom bench: {message}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(status)
