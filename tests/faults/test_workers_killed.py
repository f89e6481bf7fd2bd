"""What ETL workers do to a server, and a server to them: workers, keepers and whole servers are killed under load."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import gone, kill, load, marked
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Wire, at, eventually
from transom.client.admin import AdminClient

BUCKET = "workers"
CODE = "def transform(data, context):\n    return data.upper()\n"
SPECS = (
    {"name": "upper", "runtime": {"code": CODE}},
    {"name": "pulled", "runtime": {"code": CODE}, "communication": "hpull"},
    {"name": "tr", "runtime": {"command": ["tr", "a-z", "A-Z"]}},
)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server process and its keeper, with ETLs that run; every test leaves it so."""
    running = RunningServer(tmp_path_factory.mktemp("workers"), ("--processes", "1")).start()
    Wire(running).put(f"/{BUCKET}")
    with admin_of(running) as admin:
        admin.init_spec("\n---\n".join(map(json.dumps, SPECS)))
    yield running
    assert running.stop() == 0, "".join(running.log)


@contextmanager
def admin_of(server: RunningServer) -> Iterator[AdminClient]:
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        yield admin


def keeper_of(server: RunningServer) -> int:
    """The process that started the workers."""
    stat = Path(f"/proc/{worker_pid(server, 'upper')}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def reader(server: RunningServer, etl: str) -> Callable[[int], None]:
    """Puts an object and reads it through an ETL: nothing is cached, and nothing may go wrong."""

    def read(_: int) -> None:
        wire, key = Wire(server), f"object-{next(_numbers)}"
        assert wire.put(f"/{BUCKET}/{key}", b"words").status == 200
        answer = wire.get(at(BUCKET, key, etl=etl))
        assert (answer.status, answer.body) == (200, b"WORDS"), answer.body

    return read


def worker_pid(server: RunningServer, etl: str) -> int:
    with admin_of(server) as admin:
        return next((worker.pid for worker in admin.etl(etl).workers if worker.state == "running"), 0)


@pytest.mark.parametrize("etl", ["upper", "pulled"])
def test_a_killed_worker_costs_the_clients_under_load_nothing(server: RunningServer, etl: str) -> None:
    with load(reader(server, etl), threads=4) as reading:
        reading.more(10)
        first = worker_pid(server, etl)
        kill(first)
        eventually(lambda: worker_pid(server, etl) not in (0, first))
        reading.more(10)
    eventually(lambda: gone(first))


def test_a_killed_keeper_is_replaced_with_all_its_workers_and_costs_the_clients_nothing(server: RunningServer) -> None:
    first, keeper = worker_pid(server, "upper"), keeper_of(server)
    with load(reader(server, "upper"), threads=2) as reading:
        reading.more(5)
        kill(keeper)
        eventually(lambda: worker_pid(server, "upper") not in (0, first))
        reading.more(5)
    eventually(lambda: gone(first))
    assert keeper_of(server) != keeper


def test_a_killed_server_leaves_nothing_behind_and_one_that_is_started_again_brings_it_all_back(
    server: RunningServer,
) -> None:
    read = reader(server, "upper")
    read(0)
    before = marked(server)
    sockets = (server.folder / "run/workers/local/sockets").read_text()
    assert before
    server.kill()
    eventually(lambda: all(gone(pid) for pid in before))
    server.start()
    for etl in ("upper", "pulled", "tr"):
        reader(server, etl)(0)
    assert not Path(sockets).exists()
    after = marked(server)
    assert after
    assert all(gone(pid) for pid in before)


def test_a_server_that_is_told_to_stop_lets_runs_end_before_it_ends_their_workers(server: RunningServer) -> None:
    slow = "import time\ndef transform(data, context):\n    time.sleep(1.5)\n    return data.upper()\n"
    with admin_of(server) as admin:
        admin.init_spec(json.dumps({"name": "slow", "runtime": {"code": slow}}))
    Wire(server).put(f"/{BUCKET}/slowly", b"words")
    running = marked(server)
    with Wire(server).open("GET", at(BUCKET, "slowly", etl="slow")) as under_way:
        eventually(lambda: any(server.folder.glob("results/tmp/*")))
        assert server.stop() == 0
        assert under_way.whole().body == b"WORDS"
    assert all(gone(pid) for pid in running)
    assert not (server.folder / "run/workers/local/sockets").exists()
    server.start()
