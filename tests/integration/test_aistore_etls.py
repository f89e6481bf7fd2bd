"""Servers built with AIStore's own classes are ETLs unchanged: as programs, in containers, and run by somebody else.

They speak TCP only. As programs and in containers they have no network: all of them listen on port 8000 at once.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from tests import aistore
from tests.containers.engines import RunningEngine
from tests.running import ACCESS, SECRET, RunningServer
from tests.stub_workers import Request, every_request, stub_worker
from tests.stub_workers import Wire as StubWire
from tests.wire import Raw, Wire, at
from transom.client.admin import AdminClient, AdminError

BUCKET = "aistore"
KEYS = ["ä b/€", "a%2Fb", "a+b&c=d#e?f;g", "@:,'\"\\|^`{}", "a//b", "trailing/"]
NOISE = random.Random(4).randbytes(5 * 1024 * 1024)
OBJECTS = {**dict.fromkeys(KEYS, b"data"), "empty": b"", "large": NOISE}
METHODS = {"whole": "transform", "stream": "transform_stream"}
# no ws for streams: AIStore has none
FASTAPI = ["whole-hpush", "whole-hpull", "whole-ws", "stream-hpush", "stream-hpull"]
# AIStore's own spec of each of its transformers looks like this one
SPEC = """
name: {name}

runtime:
  image: {image}
  env:
    - name: AISTORE_WORKER
      value: "{worker}"
    - name: PYTHONPATH
      value: /app
    # Direct file access: it reads from disk instead of receiving bytes
    - name: ETL_DIRECT_FQN
      value: "{direct}"

  # Another server than the image's own
  command: {command}

# --- Optional Fields Below ---

# Communication method: hpull://, hpush://, or ws:// (default is hpush://)
communication: {way}://

# Argument mode: "" (default) or "fqn"
argument: {argument}

init_timeout: 5m    # Max time to initialize the ETL container
obj_timeout: 45s    # Max time to process a single object

support_direct_put: true
"""
# AIStore's two other server classes, each method in one way at the least
OTHERS = [f"{library}-{way}" for library in ("flask", "http") for way in ("whole-hpush", "whole-hpull", "stream-hpush")]
UVICORN = ["python3", "-m", "uvicorn", "worker:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
GUNICORN = ["python3", "-m", "gunicorn", "worker:app", "--bind", "0.0.0.0:8000", "--workers", "2"]
SERVERS = {"fastapi": UVICORN, "flask": GUNICORN, "http": ["python3", "/app/worker.py"]}
UNUSED = "http://127.0.0.1:9"  # its servers don't start without an AIS_TARGET_URL
SDK = "def transform(data, context):\n    return data + b' by our SDK'\n"


@dataclass
class Server:
    """A running server whose ETLs are AIStore's."""

    running: RunningServer
    admin: AdminClient
    wire: Wire

    def get(self, key: str, etl: str, etl_args: str = "bare") -> Raw:
        return self.wire.get(at(BUCKET, key, etl=etl, etl_args=etl_args))

    def init(self, *specs: dict[str, Any] | str) -> None:
        self.admin.init_spec("\n---\n".join(spec if isinstance(spec, str) else json.dumps(spec) for spec in specs))


@contextmanager
def serving(folder: Path, config: str) -> Iterator[Server]:
    (folder / "transom.toml").write_text(config)
    running = RunningServer(folder / "data", ("--processes", "1", "--config", str(folder / "transom.toml"))).start()
    try:
        wire = Wire(running)
        wire.put(f"/{BUCKET}")
        for key, data in OBJECTS.items():
            assert wire.put(at(BUCKET, key), data).status == 200
        with AdminClient(running.endpoint, ACCESS, SECRET) as admin:
            yield Server(running, admin, wire)
    finally:
        status = running.stop()
    assert status == 0, "".join(running.log)


class Suite:
    """What is so of every ETL that AIStore's users bring. A name is of a library, a method and a way."""

    ETLS: ClassVar[tuple[str, ...]] = ()
    PIPELINE: ClassVar[tuple[str, ...]] = ()  # three of AIStore's after our SDK's

    def test_the_right_bytes_of_the_right_object_with_its_arguments(self, server: Server, etl: str) -> None:
        for key in KEYS:
            args = json.dumps({"a": key}, ensure_ascii=False, separators=(",", ":"))
            path, said, body = server.get(key, etl, args).body.split(b"\n")
            # the threaded server gives its transformer the path as it came
            shown = unquote(path.decode()).lstrip("/") if "http-" in etl else path.decode()
            assert (shown, said.decode(), body) == (f"{BUCKET}/{key}", args, b"DATA")

    def test_empty_objects_and_empty_results_are_results(self, server: Server, etl: str) -> None:
        for key, args in (("empty", "bare"), ("a//b", "empty")):
            answer = server.get(key, etl, args)
            assert (answer.status, answer.body, answer.ended) == (200, b"", True)

    def test_a_larger_object_comes_through_whole(self, server: Server, etl: str) -> None:
        assert server.get("large", etl).body == NOISE.swapcase()

    def test_a_transformer_that_raises_is_an_error_with_its_text(self, server: Server, etl: str) -> None:
        answer = server.get("a//b", etl, "raise")
        assert (answer.status, answer.code) == (500, "EtlFailed")
        assert f"ETL '{etl}' failed: " in answer.message
        # AIStore's streams don't say why, nor do its Flask class and, given bytes, its threaded one: the log does
        assert "no good: äöü" in answer.message or not re.search("fastapi-whole|http-whole-hpull", etl)
        late = server.get("large", etl, "late")
        assert late.status in (500, 502) or not late.ended
        assert server.get("a//b", etl).body == b"DATA"

    def test_they_chain_with_plugins_and_our_sdk(self, server: Server) -> None:
        args = json.dumps([None if each in ("upper", "sdk") else "bare" for each in self.PIPELINE])
        for key, result in (("a//b", b"data BY OUR sdk"), ("empty", b" BY OUR sdk")):
            assert server.get(key, ">>".join(self.PIPELINE), args).body == result


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "etl" in metafunc.fixturenames and metafunc.cls is not None:
        metafunc.parametrize("etl", metafunc.cls.ETLS)


# --- programs, and services that somebody else runs ---------------------------------------------

COMMANDS = [*(f"fastapi-{each}" for each in FASTAPI), "fastapi-whole-fqn", *OTHERS]
SERVICES = [*(f"url-fastapi-{each}" for each in FASTAPI), *(f"url-{each}" for each in OTHERS)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    aistore.need()
    folder = tmp_path_factory.mktemp("programs")
    with serving(folder, '[etl]\nurl_allow = ["127.0.0.1"]\npull_listen = "127.0.0.1:0"\n') as server:
        ports = {name.rpartition("-")[0]: aistore.free_port() for name in SERVICES}
        server.init(*(service(name, ports) for name in SERVICES))
        asked = [started(server, name, port) for name, port in ports.items()]
        with (folder / "log").open("wb") as log, aistore.workers(asked, log):
            server.init({"name": "sdk", "runtime": {"code": SDK}}, *map(command, COMMANDS))
            yield server


def service(name: str, ports: dict[str, int]) -> dict[str, Any]:
    process, _, way = name.rpartition("-")
    return {"name": name, "runtime": {"url": f"http://127.0.0.1:{ports[process]}"}, "communication": f"{way}://"}


def started(server: Server, process: str, port: int) -> tuple[str, str, int, str]:
    """How a service is started: its library and method, where it listens, and where it fetches objects if it does."""
    _, library, method = process.split("-")
    pulls = f"{process}-hpull"
    return library, METHODS[method], port, target_url(server, pulls) if pulls in SERVICES else UNUSED


def target_url(server: Server, etl: str) -> str:
    """What the one who starts a service that fetches objects is told."""
    told = server.admin.etl(etl).service
    assert told is not None
    return told.target_url


def command(name: str) -> dict[str, Any]:
    kind, method, way = name.split("-")
    words = [str(aistore.PYTHON), str(aistore.PROGRAM), kind, METHODS[method], "{port}"]
    runtime: dict[str, Any] = {"command": words, "env": {"ETL_DIRECT_FQN": "true"} if way == "fqn" else {}}
    if way == "fqn":
        return {"name": name, "runtime": runtime, "communication": "hpush://", "argument": "fqn"}
    return {"name": name, "runtime": runtime, "communication": f"{way}://"}


class TestProgramsAndServices(Suite):
    ETLS = (*COMMANDS, *SERVICES)
    PIPELINE = (
        "url-fastapi-stream-hpull",
        "upper",
        "sdk",
        "fastapi-whole-ws",
        "flask-whole-hpull",
        "url-http-whole-hpush",
    )

    @pytest.fixture
    def server(self, programs: Server) -> Server:
        return programs

    def test_a_service_fetches_only_what_it_is_to_transform(self, server: Server) -> None:
        url = urlsplit(target_url(server, "url-fastapi-whole-hpull"))
        connection = HTTPConnection(url.netloc, timeout=20)
        with closing(connection):
            connection.request("GET", f"{url.path}/{BUCKET}/large")
            assert connection.getresponse().status == 404

    @pytest.mark.parametrize("cache", [True, False])
    def test_an_object_replaced_before_it_was_fetched_is_no_fault_of_it(self, server: Server, cache: bool) -> None:
        """The worker finds none, and says so; the run begins anew, with the object that is there now."""
        etl = f"replacing-{cache}".lower()
        fetched: list[int] = []

        def fetch(wire: StubWire, request: Request) -> None:
            if not fetched:
                assert server.wire.put(at(BUCKET, etl), b"new").status == 200
            url = urlsplit(target_url(server, etl))
            with closing(HTTPConnection(url.netloc, timeout=20)) as connection:
                connection.request("GET", url.path + request.target)
                answer = connection.getresponse()
                fetched.append(answer.status)
                wire.answer(answer.read(), f"{answer.status} {answer.reason}")

        with stub_worker(every_request(fetch)) as worker:
            url = f"http://{worker.address}"
            server.init({"name": etl, "runtime": {"url": url}, "communication": "hpull://", "cache": cache})
            assert server.wire.put(at(BUCKET, etl), b"old").status == 200
            answer = server.wire.get(at(BUCKET, etl, etl=etl))
        assert (answer.status, answer.body, fetched) == (200, b"new", [404, 200])
        assert not list(server.admin.etl_errors(etl))


# --- containers ---------------------------------------------------------------------------------

CONTAINERS = [*(f"fastapi-{each}" for each in FASTAPI), "fastapi-whole-fqn", "flask-stream-hpull", "http-whole-hpush"]


@pytest.fixture(scope="module")
def containers(
    container_engine: RunningEngine, aistore_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("containers"), f'[etl]\nengine = "{container_engine.url}"\nurl_allow = ["127.0.0.1"]\n'
    ) as server:
        server.init({"name": "sdk", "runtime": {"code": SDK}}, *(container(name, aistore_image) for name in CONTAINERS))
        yield server


def container(name: str, image: str) -> str:
    library, method, way = name.split("-")
    return SPEC.format(
        name=name,
        image=image,
        worker=f"{library} {METHODS[method]}",
        command=json.dumps(SERVERS[library]),
        way="hpush" if way == "fqn" else way,
        argument="fqn" if way == "fqn" else '""',
        direct="true" if way == "fqn" else "false",
    )


class TestContainers(Suite):
    ETLS = tuple(CONTAINERS)
    PIPELINE = ("fastapi-whole-hpull", "upper", "sdk", "flask-stream-hpull", "fastapi-whole-ws", "fastapi-whole-fqn")

    @pytest.fixture
    def server(self, containers: Server) -> Server:
        return containers

    def test_a_service_that_fetches_objects_needs_a_place_for_that(self, server: Server) -> None:
        with pytest.raises(AdminError, match="pull_listen under"):
            server.init({"name": "far", "runtime": {"url": "http://127.0.0.1:9"}, "communication": "hpull"})

    def test_an_image_that_can_not_be_pulled_is_named(self, server: Server, container_engine: RunningEngine) -> None:
        image = f"{container_engine.registry}/transformer_echo:latest"
        with pytest.raises(AdminError, match=f"image '{image}' is not on this machine, and it can't be pulled"):
            server.init({"name": "absent", "runtime": {"image": image}, "support_direct_put": True})
