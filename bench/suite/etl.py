"""Runs `scripts/bench etl`: one Transom with an ETL of every kind, measured in interleaved rounds with the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from transom.bench.peers import Peer, PeerError, aistore, transom
from transom.bench.peers.engine import find_engine, worker_image
from transom.bench.suite.cases import GRANIAN
from transom.bench.suite.compare import Say, Settings
from transom.bench.suite.etl_cases import (
    AISTORE,
    BARE_WORKER,
    CONTAINER,
    ECHO_BYTES,
    LOOP_WORKER,
    SPREAD,
    aistore_spec,
    container_spec,
    specs,
)
from transom.bench.suite.ratios import Figures, median
from transom.client.admin import AdminClient, AdminError

# in the sandbox, wherever an engine is: what is compared are transports
_CONFIG = '[etl]\nurl_allow = ["127.0.0.1"]\nconcurrency = 32\nisolation = "sandbox"\n'


@dataclass(slots=True)
class _Parts:
    """What takes part besides Transom, the specs for it, and what doesn't and why."""

    peers: dict[str, Peer] = field(default_factory=dict)
    specs: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    config: str = _CONFIG


@contextmanager
def started(
    work: Path, settings: Settings, engine: str, say: Say
) -> Iterator[tuple[dict[str, Peer], list[str], dict[str, str]]]:
    """The servers, the names of the ETLs that run, and why others don't. `engine` names a container engine's socket."""
    with ExitStack() as stack:
        parts = _Parts(specs=specs(_worker(work)))
        _bring_aistore(parts, stack, work, settings)
        _bring_container(parts, stack, work, engine)
        config = work / "transom.toml"
        config.write_text(parts.config)
        server = stack.enter_context(
            transom(work / "transom", cores=settings.server_cores, options=("--config", str(config)))
        )
        names = _made(server, parts.specs, parts.absent)
        if BARE_WORKER in parts.peers:
            _bring_spread(parts, stack, work, config)
        for name, reason in parts.absent.items():
            say(f"{name} is not part of this run: {reason}")
        yield {GRANIAN: server, **parts.peers}, names, parts.absent


def _worker(work: Path) -> Path:
    """The file of a transformer for our SDK."""
    file = work / "echo.py"
    file.write_text(ECHO_BYTES)
    return file


def _bring_aistore(parts: _Parts, stack: ExitStack, work: Path, settings: Settings) -> None:
    try:
        peer = stack.enter_context(aistore(work / "aistore", cores=settings.server_cores))
    except PeerError as error:
        parts.absent[BARE_WORKER] = str(error)
        return
    parts.peers[BARE_WORKER] = peer
    parts.specs |= {name: aistore_spec(name, peer.endpoint) for name in AISTORE}


def _bring_spread(parts: _Parts, stack: ExitStack, work: Path, config: Path) -> None:
    """A server as it runs when nobody says anything, and a worker for it and one for the plain loop; all on any core.

    Two workers: one that was once asked for several large objects at once is faster with each from then on.
    """
    parts.peers[LOOP_WORKER] = stack.enter_context(aistore(work / "aistore-loop"))
    worker = stack.enter_context(aistore(work / "aistore-spread"))
    options = ("--config", str(config))
    server = stack.enter_context(transom(work / "spread", processes=os.cpu_count() or 1, options=options))
    parts.peers[SPREAD] = server
    _made(server, {"echo-aistore": aistore_spec("echo-aistore", worker.endpoint)}, parts.absent)


def _bring_container(parts: _Parts, stack: ExitStack, work: Path, engine: str) -> None:
    try:
        url = find_engine(engine)
        image = stack.enter_context(worker_image(url, work / "echo.py", work))
    except PeerError as error:
        parts.absent[CONTAINER] = str(error)
        return
    parts.config += f'engine = "{url}"\nengine_pulls = false\n'
    parts.specs[CONTAINER] = container_spec(image)


def _made(server: Peer, wanted: Mapping[str, str], absent: dict[str, str]) -> list[str]:
    names = []
    with AdminClient(server.endpoint, server.access_key, server.secret_key) as admin:
        for name, spec in wanted.items():
            try:
                admin.init_spec(spec)
                names.append(name)
            except AdminError as error:
                absent[name] = str(error)
    return names


def latencies_table(results: Mapping[tuple[str, str], Figures], order: Sequence[tuple[str, str]]) -> Table:
    """Median throughput and percentiles, a row a case."""
    table = Table("case", title="medians over the rounds", title_justify="left", box=SIMPLE_HEAD)
    for column in ("requests/s", "MiB/s", "p50 ms", "p99 ms", ""):
        table.add_column(column, justify="right")
    for case in order:
        figures = results.get(case)
        if figures is None:
            continue
        cells = (figures.ops_per_s, figures.mib_per_s, figures.p50_ms, figures.p99_ms)
        name = case[0] if case[1] in (GRANIAN, BARE_WORKER) else f"{case[0]}, {case[1].removeprefix('transom, ')}"
        note = figures.error or (f"{figures.failed} failed" if figures.failed else "")
        table.add_row(name, *(f"{median(values):,.1f}" if values else "" for values in cells), note)
    return table
