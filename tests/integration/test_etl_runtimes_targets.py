"""ETLs that are no plugin's on two targets: a worker on each, on all or on none, and no request lost by a change."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.processes import gone, load, marked
from tests.running import ACCESS, SECRET, RunningServer
from tests.runtimes import numbers, spec
from tests.wire import Wire, at, eventually
from transom.client.admin import AdminClient, AdminError

BUCKET = "targets"
TELLS = (
    "import os\ndef transform(data, context):\n    return os.environ['TRANSOM_WORKER_OF'].encode() + b' {} ' + data\n"
)
ONE_ONLY = "import os\nassert not os.environ['TRANSOM_WORKER_OF'].endswith('1'), 'not here'\n" + TELLS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("targets"), ("--targets", "2")).start()
    Wire(running).put(f"/{BUCKET}")
    yield running
    assert running.stop() == 0, "".join(running.log)
    assert marked(running) == []


@pytest.fixture(scope="module")
def admin(server: RunningServer) -> Iterator[AdminClient]:
    with AdminClient(server.endpoint, ACCESS, SECRET) as client:
        client.init_spec(json.dumps(spec("tells", {"code": TELLS.format(0)}, communication="hpull")))
        yield client


def tell(server: RunningServer, etl: str = "tells") -> str:
    """What an ETL makes of an object that nobody asked for before."""
    wire, key = Wire(server), f"object-{next(numbers)}"
    assert wire.put(f"/{BUCKET}/{key}", b"words").status == 200
    answer = wire.get(at(BUCKET, key, etl=etl))
    assert answer.status == 200, answer.body
    return answer.body.decode().partition(":")[2]


def pids(admin: AdminClient) -> list[int]:
    return [worker.pid for worker in admin.etl("tells").workers]


def test_every_target_has_a_worker_of_its_own(server: RunningServer, admin: AdminClient) -> None:
    assert [worker.target for worker in admin.etl("tells").workers] == ["target-0", "target-1"]
    assert {tell(server).split()[0] for _ in range(30)} == {"target-0", "target-1"}


def test_one_that_starts_on_one_target_only_runs_on_none(server: RunningServer, admin: AdminClient) -> None:
    with pytest.raises(AdminError, match=r"on target-1: .*AssertionError: not here"):
        admin.init_spec(json.dumps(spec("picky", {"code": ONE_ONLY})))
    assert admin.etl("picky").state == "failed"
    eventually(lambda: not admin.etl("picky").workers)


def test_an_update_under_load_loses_no_request(server: RunningServer, admin: AdminClient) -> None:
    seen: set[str] = set()
    old = pids(admin)
    with load(lambda _: seen.add(tell(server).split()[1]), threads=4) as reading:
        reading.more(10)
        admin.init_spec(json.dumps(spec("tells", {"code": TELLS.format(1)}, communication="hpull")))
        reading.more(20)
    assert seen == {"0", "1"}
    eventually(lambda: all(gone(pid) for pid in old))
    assert tell(server).split()[1] == "1"


def test_a_failed_update_leaves_the_old_revision_serving(server: RunningServer, admin: AdminClient) -> None:
    before = pids(admin)
    with pytest.raises(AdminError, match=r"on target-1: .*not here.*goes on serving"):
        admin.init_spec(json.dumps(spec("tells", {"code": ONE_ONLY}, communication="hpull")))
    eventually(lambda: pids(admin) == before)
    assert tell(server)
