"""Code and commands in containers, from spec to answer on a real server: their limits, what is shown, what is left."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers.engines import RunningEngine
from tests.running import ACCESS, SECRET, RunningServer
from tests.runtimes import followed
from tests.wire import Raw, Wire, at
from transom.client.admin import AdminClient, AdminError
from transom.target.etl.keeper.places import Places
from transom.target.etl.runtimes.base import LABEL

BUCKET = "isolation"
CODE = """
import os, sys, time
from transom.worker import Skip

def transform(data, context):
    if data == b"eat":
        hog = bytearray(4 << 30)
        for at in range(0, len(hog), 4096):
            hog[at] = 1
    if data == b"fork":
        for _ in range(10000):
            if os.fork() == 0:
                time.sleep(600)
    if data == b"skip":
        raise Skip("too small, by far")
    if data.startswith(b"list "):
        return " ".join(os.listdir(data[5:].decode())).encode()
    return data.swapcase() + "".join(f" {n}={v}" for n, v in sorted(context.metadata.items())).encode()
"""
SERVER = """
import http.server, os, urllib.request

class Worker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        health = self.path == "/health"
        self.answer(b"ok" if health else urllib.request.urlopen(os.environ["AIS_TARGET_URL"] + self.path).read())

    def do_PUT(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.upper())

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Worker).serve_forever()
"""
SPECS: list[dict[str, Any]] = [
    {"name": "code", "runtime": {"code": CODE}, "resources": {"memory": "256Mi", "pids": 32}},
    {"name": "code-pulls", "runtime": {"code": CODE}, "communication": "hpull://"},
    {"name": "tcp", "runtime": {"command": ["python3", "-c", SERVER]}, "communication": "hpull://"},
    {"name": "code-ws", "runtime": {"code": CODE}, "communication": "ws://"},
    {"name": "upper", "runtime": {"command": ["sh", "-c", "echo odd input >&2; tr a-z A-Z"]}, "communication": "io://"},
]
_numbers = itertools.count(1)


def options(folder: Path, isolation: str, engine: str) -> tuple[str, ...]:
    (folder / "transom.toml").write_text(f'[etl]\nengine = "{engine}"\nisolation = "{isolation}"\n')
    return ("--processes", "1", "--config", str(folder / "transom.toml"))


@pytest.fixture(scope="module")
def server(container_engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("isolation")
    running = RunningServer(folder / "data", options(folder, "auto", container_engine.url)).start()
    Wire(running).put(f"/{BUCKET}")
    with AdminClient(running.endpoint, ACCESS, SECRET) as admin:
        admin.init_spec("\n---\n".join(map(json.dumps, SPECS)))
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


def transformed(server: RunningServer, etl: str, data: bytes, **metadata: str) -> Raw:
    """What an ETL makes of an object that nobody asked for before."""
    wire, key = Wire(server), f"object-{next(_numbers)}"
    headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
    assert wire.put(at(BUCKET, key), data, headers).status == 200
    return wire.get(at(BUCKET, key, etl=etl))


@contextlib.contextmanager
def started(folder: Path, isolation: str, engine: str) -> Iterator[tuple[RunningServer, AdminClient]]:
    """A server of a test's own."""
    server = RunningServer(folder / "data", options(folder, isolation, engine)).start()
    try:
        Wire(server).put(f"/{BUCKET}")
        with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
            yield server, admin
    finally:
        assert server.stop() == 0, "".join(server.log)


@pytest.mark.parametrize("etl", ["code", "code-pulls", "tcp", "upper"])
def test_programs_transform_objects_wherever_they_run(server: RunningServer, etl: str) -> None:
    for data in (b"", b"hello", os.urandom(2 * 1024 * 1024).hex().encode()):
        assert transformed(server, etl, data).body == data.upper()


@pytest.mark.parametrize("etl", ["code", "code-pulls", "code-ws"])
def test_a_worker_is_told_the_objects_metadata_and_says_why_it_leaves_one_out(server: RunningServer, etl: str) -> None:
    answer = transformed(server, etl, b"Hi", camera="X 100%", lens="f/2")
    assert answer.body == b"hI camera=X 100% lens=f/2"
    skipped = transformed(server, etl, b"skip")
    assert skipped.status == 404 and "too small, by far" in skipped.message


def test_clients_are_sent_to_a_worker_in_a_container_where_it_answers(
    server: RunningServer, admin: AdminClient
) -> None:
    handed = {"name": "handed", "runtime": {"code": CODE}, "communication": "hpull", "redirect": "worker"}
    admin.init_spec(json.dumps({**handed, "network": True}))
    (worker,) = admin.etl("handed").workers
    assert worker.container
    wire, curl = Wire(server), {"user-agent": "curl/8"}
    assert wire.put(at(BUCKET, "handed"), b"Hello").status == 200
    sent = wire.get(at(BUCKET, "handed", etl="handed"), curl)
    assert sent.status == 307
    assert followed(sent.headers["location"], **curl).body == b"hELLO"


def test_what_a_program_of_an_object_says_is_in_the_log(server: RunningServer, admin: AdminClient) -> None:
    assert transformed(server, "upper", b"hello").body == b"HELLO"
    (piece,) = admin.etl_logs("upper")
    assert piece.text.endswith(":\nodd input\n") and f"{BUCKET}/object-" in piece.text


def test_an_engine_that_is_there_confines_what_is_kept_and_it_is_shown(
    admin: AdminClient, container_engine: RunningEngine
) -> None:
    version = container_engine.api.version()["Version"]
    for etl in ("code", "code-pulls", "tcp"):
        (worker,) = admin.etl(etl).workers
        assert worker.container and worker.pid
        assert worker.confinement == f"container ({container_engine.name} {version})"
    upper = admin.etl("upper")
    assert upper.workers == () and "sandbox" not in upper.confinement and upper.confinement != ""


def test_code_in_a_container_sees_the_system_alone(server: RunningServer) -> None:
    above = transformed(server, "code", b"list /").body.split()
    assert b"usr" in above and b"boot" not in above and b"home" not in above
    # folders above our SDK, which lies there, are there; what else is in them is not
    inside = transformed(server, "code", f"list {server.folder}".encode()).body.split()
    assert set(inside) <= {b"environments", b"run"}


@pytest.mark.parametrize(
    ("data", "status", "code", "limit"),
    [
        (b"eat", 507, "EtlOutOfMemory", "its memory limit of 256 MiB"),
        (b"fork", 500, "EtlFailed", "its process limit of 32"),
    ],
    ids=str,
)
def test_a_limit_that_is_met_is_named_and_the_worker_is_there_again(
    server: RunningServer, data: bytes, status: int, code: str, limit: str
) -> None:
    answer = transformed(server, "code", data)
    assert (answer.status, answer.code) == (status, code) and limit in answer.message
    assert transformed(server, "code", b"hello").body == b"HELLO"


def test_a_killed_server_leaves_no_container_once_it_is_started_again(
    server: RunningServer, container_engine: RunningEngine
) -> None:
    before = containers(container_engine, server)
    assert before
    server.kill()
    server.start()
    assert transformed(server, "code", b"hello").body == b"HELLO"
    assert not set(before) & set(containers(container_engine, server))


@pytest.mark.parametrize("isolation", ["sandbox", "auto"])
def test_without_an_engine_the_sandbox_confines(isolation: str, tmp_path: Path) -> None:
    engine = f"unix://{tmp_path}/none.sock"
    with started(tmp_path, isolation, engine) as (server, admin):
        admin.init_spec(json.dumps(SPECS[0]))
        assert transformed(server, "code", b"hello").body == b"HELLO"
        (worker,) = admin.etl("code").workers
        assert not worker.container and not worker.confinement.startswith("container") and worker.confinement


def test_a_container_that_is_a_must_and_can_not_be_had_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    with started(tmp_path, "container", f"unix://{tmp_path}/none.sock") as (_, admin):
        with pytest.raises(AdminError, match="no container engine at") as caught:
            admin.init_spec(json.dumps({**SPECS[0], "init_timeout": "10s"}))
        assert 'isolation = "sandbox" under [etl]' in str(caught.value)
