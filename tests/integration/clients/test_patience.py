"""Results that are slow to begin, not ready within the wait budget, or fail: right bytes or an error, in every client.

All clients wait at once, so the module takes as long as its slowest client, not as all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.clients.cases import MIB, big, small
from tests.integration.clients.drivers import CLIENTS, ClientError, Driver, Place
from tests.integration.clients.matrix import SOURCE, Matrix, fill
from tests.running import RunningServer

SLOW_S = 4.0  # longer than pyarrow waits for a first byte
LATE_S, WAIT_S = 3.0, 2.0  # ready for the first retry of a client that was refused
IMPATIENT = f"[etl]\nwait_s = {WAIT_S}\n"
ETLS: Mapping[str, tuple[str, dict[str, object]]] = {
    "slow": ("slow_start", {"seconds": SLOW_S}),
    "late": ("slow_start", {"seconds": LATE_S}),
    "failing": ("fail", {}),
    "failing-late": ("fail_late", {"n": 12 * MIB}),
}
INSTALLED = [name for name, client in CLIENTS.items() if client.missing() is None]

Outcome = bytes | dict[str, int] | ClientError
Outcomes = Mapping[tuple[str, str], Future[Outcome]]


def prepare(matrix: Matrix) -> Matrix:
    """Make the ETLs of this module and their views; every client is served at once, not one after the other."""
    with matrix.admin() as admin:
        for name, (plugin, args) in ETLS.items():
            admin.init_etl(name, plugin=plugin, args=args, concurrency=64)
            admin.create_view(f"view-{name}", SOURCE, name)
            admin.create_view(f"exact-{name}", SOURCE, name, sizes="materialise")
    return matrix


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """A server that says 503 to whoever has waited for two seconds."""
    folder = tmp_path_factory.mktemp("impatient")
    config = folder / "transom.toml"
    config.write_text(IMPATIENT)
    running = RunningServer(folder / "data", ("--processes", "1", "--config", str(config))).start()
    yield prepare(fill(running))
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture(scope="module")
def outcomes(matrix: Matrix, impatient: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """What came of every read of every client, all of them begun here."""
    prepare(matrix)
    work = tmp_path_factory.mktemp("patience")
    drivers = {name: CLIENTS[name](Path(work), name) for name in INSTALLED}
    reads: dict[str, Callable[[str, Driver], Outcome]] = {
        "slow": lambda name, client: client.read(*whole(matrix, name, "slow", "big.bin")),
        "slow, simplest": lambda name, client: client.get(*whole(matrix, name, "slow", "small.txt")),
        "not ready": lambda name, client: client.read(*whole(impatient, name, "late", "small.txt")),
        "failing": lambda name, client: client.read(*whole(matrix, name, "failing", "small.txt")),
        "failing late": lambda name, client: client.read(*whole(matrix, name, "failing-late", "small.txt")),
        "failing late, simplest": lambda name, client: client.get(
            *whole(matrix, f"{name}/simplest", "failing-late", "small.txt")
        ),
    }
    with ThreadPoolExecutor(max_workers=len(INSTALLED) * len(reads)) as pool:
        yield {
            (name, what): pool.submit(outcome, read, name, drivers[name])
            for name, (what, read) in itertools.product(INSTALLED, reads.items())
        }
    for driver in drivers.values():
        driver.close()


def whole(matrix: Matrix, name: str, etl: str, source: str) -> tuple[Place, str]:
    """Where a source of the client's own is read through an ETL."""
    return matrix.place(f"view-{etl}"), matrix.source(f"patience/{etl}/{name}", source)


def outcome(read: Callable[[str, Driver], Outcome], name: str, client: Driver) -> Outcome:
    """What a read gives: bytes, or the client's own error. Anything else is raised."""
    try:
        return read(name, client)
    except ClientError as error:
        return error


def result(outcomes: Outcomes, name: str, what: str) -> Outcome:
    """What came of one read; skips a client that isn't here."""
    if name not in INSTALLED:
        pytest.skip(str(CLIENTS[name].missing()))
    return outcomes[name, what].result()


@pytest.mark.parametrize("name", CLIENTS)
def test_slow_first_byte_is_waited_for(outcomes: Outcomes, name: str) -> None:
    assert result(outcomes, name, "slow") == big()


@pytest.mark.parametrize("name", CLIENTS)
def test_slow_first_byte_of_a_simple_read_is_waited_for(outcomes: Outcomes, name: str) -> None:
    assert result(outcomes, name, "slow, simplest") == small()


@pytest.mark.parametrize("name", CLIENTS)
def test_result_past_the_wait_budget_is_joined_by_the_retry(outcomes: Outcomes, name: str) -> None:
    assert result(outcomes, name, "not ready") == small()


@pytest.mark.parametrize("what", ["failing", "failing late", "failing late, simplest"])
@pytest.mark.parametrize("name", CLIENTS)
def test_failure_is_an_error_and_never_a_short_body(outcomes: Outcomes, name: str, what: str) -> None:
    assert isinstance(result(outcomes, name, what), ClientError)


def test_listing_with_exact_sizes_waits_or_refuses_but_makes_nothing_up(impatient: Matrix, outcomes: Outcomes) -> None:
    for future in outcomes.values():
        future.result()
    impatient.source("listed", "small.txt")
    sizes = []
    for _ in range(3):
        answer = impatient.s3.list_objects_v2(Bucket="exact-late", Prefix="listed/")
        sizes.append([entry["Size"] for entry in answer["Contents"]])
    assert sizes == [[len(small())]] * 3
