"""Runs the comparison: starts every peer, prepares each case once, measures in interleaved rounds.

It decides neither what is measured nor which ratio is good: `cases` does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from transom.bench.mix import Workload
from transom.bench.peers import Peer, PeerError, moto, nginx, rclone, transom
from transom.bench.report import Report
from transom.bench.run import Bench, BenchError
from transom.bench.sign import Credentials, Endpoint
from transom.bench.suite import bareloop, http_loop
from transom.bench.suite.cases import BARE_LOOP, TRANSOMS, UNCACHED, Case
from transom.bench.suite.etl_cases import HTTP_LOOP, LOOP_WORKER, SPREAD
from transom.bench.suite.ratios import Figures
from transom.bench.worker import Pace
from transom.client.admin import AdminClient, AdminError

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and where: servers share `server_cores`, the generator has `client_cores`.

    What is compared with the bare HTTP loop is not kept to any core, nor is the loop.
    """

    rounds: int = 3
    seconds: float = 2.0
    warmup_s: float = 0.3
    server_cores: tuple[int, ...] = (0,)
    client_cores: tuple[int, ...] = (1,)
    seed: int = 0


@contextmanager
def started(
    names: Sequence[str], work: Path, settings: Settings, say: Say
) -> Iterator[tuple[dict[str, Peer], dict[str, str]]]:
    """The peers that could be started, by name, and why the others could not."""
    up: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        for name in names:
            folder = work / name
            folder.mkdir()
            try:
                up[name] = stack.enter_context(_context(name, folder, settings.server_cores))
                if name in TRANSOMS:
                    make_uncached_etls(up[name])
            except (PeerError, AdminError) as error:
                up.pop(name, None)
                absent[name] = str(error)
                say(f"{name} is not part of this run: {error}")
        yield up, absent


@contextmanager
def _context(name: str, work: Path, cores: Sequence[int]) -> Iterator[Peer]:
    if name in TRANSOMS:
        with transom(work, cores=cores, http_server=name.removeprefix("transom-")) as peer:
            yield peer
        return
    with {"nginx": nginx, "rclone": rclone, "moto": moto}[name](work, cores=cores) as peer:
        yield peer


def make_uncached_etls(peer: Peer) -> None:
    """Make the ETLs that the comparison runs with the result cache off."""
    with AdminClient(peer.endpoint, peer.access_key, peer.secret_key) as admin:
        for name, plugin in UNCACHED.items():
            admin.init_etl(name, plugin, cache=False)


def bench_of(case: Case, name: str, peer: Peer, settings: Settings) -> Bench:
    """The generator's run for a case on the peer of that name."""
    workload = Workload(
        endpoint=Endpoint.parse(peer.endpoint),
        bucket=f"bench-{case.name.lower().replace(' ', '-')}",
        credentials=Credentials(peer.access_key, peer.secret_key),
        mix={case.op: 1},
        etl=case.etl,
        etl_args=case.etl_args,
        does=case.does,
        size=case.size,
        pixels=case.pixels,
        objects=case.objects,
        seed=settings.seed,
    )
    pace = Pace(
        concurrency=case.concurrency,
        duration_s=settings.seconds,
        warmup_s=settings.warmup_s,
        cores=() if name == SPREAD else settings.client_cores,
    )
    return Bench(workload, pace)


def add(figures: Figures, report: Report) -> None:
    """Note one round."""
    figures.ops_per_s.append(report.ops_per_s())
    figures.mib_per_s.append(report.mib_per_s())
    figures.failed += report.failed
    figures.corrupt += report.corrupt
    for op in report.ops.values():
        figures.p50_ms.append(op.latency.get_value_at_percentile(50) / 1000)
        figures.p99_ms.append(op.latency.get_value_at_percentile(99) / 1000)


def compare(
    cases: Sequence[Case], peers: dict[str, Peer], settings: Settings, say: Say
) -> dict[tuple[str, str], Figures]:
    """All cases on all peers that are up; a case that fails on a peer keeps its error and no figures."""
    results: dict[tuple[str, str], Figures] = {}
    benches: dict[tuple[str, str], Bench] = {}
    with ExitStack() as stack:
        for case in cases:
            for name in case.peers:
                if name not in peers:
                    continue
                figures = results[case.name, name] = Figures()
                bench = bench_of(case, name, peers[name], settings)
                try:
                    wrong = 0
                    if peers[name].keeps:
                        stack.enter_context(bench.prepared())
                        wrong = bench.rehearse()  # warms caches, and no wrong answer gets a figure
                    if wrong:
                        raise BenchError(f"{wrong} wrong answers")  # noqa: TRY301 - it is one of those handled below
                    benches[case.name, name] = bench
                except BenchError as error:
                    figures.error = str(error)
                    say(f"{case.name} on {name}: {error}")
        for number in range(settings.rounds):
            say(f"round {number + 1} of {settings.rounds}")
            for case in cases:
                _round(case, benches, results)
                _loops(case, peers, results, settings)
    return results


def _round(
    case: Case,
    benches: dict[tuple[str, str], Bench],
    results: dict[tuple[str, str], Figures],
) -> None:
    for name in case.peers:
        bench = benches.get((case.name, name))
        if bench is not None:
            add(results[case.name, name], bench.measure())


def _loops(case: Case, peers: Mapping[str, Peer], results: dict[tuple[str, str], Figures], settings: Settings) -> None:
    """What is no server: plain loops, of the transformer itself and over a worker."""
    if HTTP_LOOP in case.peers and LOOP_WORKER in peers:
        endpoint, figures = peers[LOOP_WORKER].endpoint, results.setdefault((case.name, HTTP_LOOP), Figures())
        add(figures, http_loop.measure(endpoint, case.size, seconds=settings.seconds, seed=settings.seed))
    if BARE_LOOP in case.peers and case.pixels:
        figures = results.setdefault((case.name, BARE_LOOP), Figures())
        figures.ops_per_s.append(
            bareloop.rate(
                case.pixels,
                case.etl_args,
                processes=1,
                seconds=settings.seconds,
                cores=settings.server_cores,
                seed=settings.seed,
            )
        )


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder on a real disk for the peers' files, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="transom-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
