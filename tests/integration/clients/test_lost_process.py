"""Server processes killed under load: clients may have to try again, but nobody gets wrong bytes."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.clients.cases import CASE
from tests.integration.clients.drivers import ClientError, Driver, Place
from tests.integration.clients.matrix import SOURCE, Matrix
from tests.running import RunningServer

Clients = Callable[[str], Driver]
AT_ONCE, READS, KILLS = 4, 20, 3
TRIES = 4


class Killer:
    """Kills one of the four server processes whenever so many more reads or writes have been done."""

    def __init__(self, server: RunningServer) -> None:
        self.killed: list[int] = []
        self._server = server
        self._done = itertools.count(1)
        self._lock = threading.Lock()

    def one_done(self) -> None:
        with self._lock:
            if next(self._done) % (READS // (KILLS + 1)) == 0 and len(self.killed) < KILLS:
                victim = random.Random(len(self.killed)).choice(self._server.children())
                os.kill(victim, signal.SIGKILL)
                self.killed.append(victim)


def persistent(act: Callable[[], object]) -> object:
    """Do it again after an error, as an application would; the client itself has tried before."""
    for left in reversed(range(TRIES)):
        try:
            return act()
        except ClientError:
            if not left:
                raise
    raise AssertionError("unreachable")


@pytest.mark.parametrize("name", ["boto3", "boto3-1.37", "s3fs"])
def test_reads_are_right_while_processes_are_killed(matrix: Matrix, clients: Clients, name: str) -> None:
    client, killer = clients(name), Killer(matrix.server)
    cases = [CASE["grow12"], CASE["upper"], CASE["packed"], CASE["empty"]]

    def read(number: int) -> None:
        case = cases[number % len(cases)]
        key = str(persistent(lambda: copied(matrix, f"killed/{name}/{number}", case.source)))
        got = persistent(lambda: client.read(matrix.place(case.view), key))
        assert got == case.result_bytes(), f"wrong bytes of {key}"
        killer.one_done()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(read, range(READS)))
    assert len(set(killer.killed)) == KILLS
    assert not set(killer.killed) & set(matrix.server.children())


def test_acknowledged_puts_are_whole_while_processes_are_killed(
    matrix: Matrix, clients: Clients, tmp_path: Path
) -> None:
    client, killer = clients("boto3"), Killer(matrix.server)
    place = Place(matrix.server.endpoint, SOURCE)

    def put(number: int) -> None:
        data = random.Random(number).randbytes(200_000 + number)
        path = tmp_path / str(number)
        path.write_bytes(data)
        persistent(lambda: client.put(place, f"put/{number}", path))
        assert persistent(lambda: client.get(place, f"put/{number}")) == data
        killer.one_done()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(put, range(READS)))
    assert len(killer.killed) == KILLS
    listed = persistent(lambda: client.list(place, "put/"))
    assert listed == {f"put/{number}": 200_000 + number for number in range(READS)}


def copied(matrix: Matrix, name: str, source: str) -> str:
    """A source nobody has read; the connection it is asked over may be one that just died."""
    try:
        return matrix.source(name, source)
    except Exception as error:
        raise ClientError(str(error)) from error
