"""ETLs that are containers, from spec to answer on a real server with a real engine: and what a killed one leaves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from tests.containers import images
from tests.containers.engines import RunningEngine
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminClient, AdminError
from transom.target.etl.keeper.places import Places
from transom.target.etl.runtimes.base import LABEL

BUCKET = "containers"
MIB = 1024 * 1024
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(container_engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("containers")
    (folder / "transom.toml").write_text(f'[etl]\nengine = "{container_engine.url}"\nengine_pulls = false\n')
    options = ("--processes", "1", "--config", str(folder / "transom.toml"))
    running = RunningServer(folder / "data", options).start()
    Wire(running).put(f"/{BUCKET}")
    ways = {"pushed": "hpush", "pulled": "hpull", "sock": "ws"}
    specs = [{"name": name, "runtime": {"image": images.WORKER}, "communication": way} for name, way in ways.items()]
    specs.append({"name": "direct", "runtime": {"image": images.WORKER}, "direct_file": True})
    with AdminClient(running.endpoint, ACCESS, SECRET) as admin:
        admin.init_spec("\n---\n".join(map(json.dumps, specs)))
    yield running
    assert running.stop() == 0, "".join(running.log)
    assert containers(container_engine, running) == []


@pytest.fixture
def admin(server: RunningServer) -> Iterator[AdminClient]:
    with AdminClient(server.endpoint, ACCESS, SECRET) as client:
        yield client


def containers(engine: RunningEngine, server: RunningServer) -> list[str]:
    """The ids of a server's containers, running or not."""
    label = f"{LABEL}={Places(server.folder).mark}"
    return [each["Id"] for each in engine.api.containers(all=True, filters={"label": label})]


def transformed(server: RunningServer, etl: str, data: bytes, **query: str) -> Raw:
    """What an ETL makes of an object that nobody asked for before."""
    wire, key = Wire(server), f"a b/ü%41-{next(_numbers)}"
    assert wire.put(at(BUCKET, key), data).status == 200
    return wire.get(at(BUCKET, key, etl=etl, **query))


@pytest.mark.parametrize("etl", ["pushed", "pulled", "sock", "direct"])
@pytest.mark.parametrize("data", [b"", b"Hello", b"aB" * 2 * MIB], ids=["empty", "small", "large"])
def test_a_container_transforms_objects(server: RunningServer, etl: str, data: bytes) -> None:
    assert transformed(server, etl, data).body == data.swapcase()


def test_containers_and_programs_chain(server: RunningServer, admin: AdminClient) -> None:
    admin.init_spec(json.dumps({"name": "upper", "runtime": {"command": ["tr", "a-z", "A-Z"]}}))
    assert transformed(server, "pulled>>upper>>sock>>pushed", b"Hello").body == b"HELLO"


def test_a_container_of_aistores_own_that_only_speaks_tcp_has_no_network(
    server: RunningServer, admin: AdminClient, aistore_image: str
) -> None:
    for name, way in (("ais-pushed", "hpush"), ("ais-pulled", "hpull"), ("ais-sock", "ws")):
        admin.init_spec(json.dumps({"name": name, "runtime": {"image": aistore_image}, "communication": f"{way}://"}))
        assert transformed(server, name, b"Hello", etl_args="!").body == b"hELLO!"
        assert transformed(server, f"pushed>>{name}", b"aB" * MIB).body == b"aB" * MIB


def test_an_image_that_is_not_there_fails_the_start(server: RunningServer, admin: AdminClient) -> None:
    with pytest.raises(AdminError, match="image 'localhost/none:1' is not on this machine"):
        admin.init_spec(json.dumps({"name": "none", "runtime": {"image": "localhost/none:1"}}))


def test_a_container_that_is_killed_is_started_again(
    server: RunningServer, admin: AdminClient, container_engine: RunningEngine
) -> None:
    (worker,) = admin.etl("pushed").workers
    container_engine.api.kill(worker.container)
    eventually(lambda: admin.etl("pushed").workers[0].container not in ("", worker.container))
    assert transformed(server, "pushed", b"Hello").body == b"hELLO"
    assert worker.container not in containers(container_engine, server)


def test_a_killed_server_leaves_no_container_once_it_is_started_again(
    server: RunningServer, container_engine: RunningEngine
) -> None:
    before = containers(container_engine, server)
    assert before
    server.kill()
    server.start()
    assert transformed(server, "pushed", b"Hello").body == b"hELLO"
    assert not set(before) & set(containers(container_engine, server))
