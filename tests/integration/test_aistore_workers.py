"""Workers written for AIStore, on its own server classes from PyPI, run unchanged behind our transports."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests import aistore
from tests.stub_workers import a_call
from transom.plugins.contract import Reject
from transom.target.errors import EtlCrashed, EtlFailed
from transom.target.etl.transports.base import Address, Transport, WorkerLost
from transom.target.etl.transports.http import HttpTransport
from transom.target.etl.transports.ws import WsTransport
from transom.target.etl.watch import Watch

PREFIX = "/v1/etl/_object/stub/s3cr3t/"
MIB = 1024 * 1024
SERVERS = [
    f"{server}-{method}" for server in ("fastapi", "flask", "http") for method in ("transform", "transform_stream")
]
WAYS = [(server, way) for server in SERVERS for way in ("hpush", "hpull", "ws") if way != "ws" or server == SERVERS[0]]
KEYS = ["cat.jpg", "ä b/€", "a%2Fb", "a+b&c=d#e?f;g", "x/../y", "./.", "@:,'\"", "a\\b|^`{}", "a//b", "trailing/"]


@dataclass
class Target:
    """Stands in for the target that workers pull objects from: one object, whatever it is called."""

    data: bytes = b""
    asked: list[str] = field(default_factory=list)

    def serve(self) -> ThreadingHTTPServer:
        target = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                target.asked.append(unquote(self.path.removeprefix(PREFIX)))
                found = self.path.startswith(PREFIX) and target.data != b"missing"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(target.data)))
                self.end_headers()
                self.wfile.write(target.data)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *args: None  # type: ignore[method-assign]  # workers that raise hang up on it
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


@dataclass
class Workers:
    """All of them, started at once; and the target that they pull from."""

    target: Target
    transports: dict[tuple[str, str], Transport]

    def whole(self, server: str, way: str, data: bytes, *, pieces: int = MIB, **call: Any) -> bytes:
        self.target.data = data
        given = a_call(**{"size": len(data), "pulled": way == "hpull", **call})
        chunks = (data[i : i + pieces] for i in range(0, len(data), pieces))
        return b"".join(self.transports[server, way].run(given, chunks, Watch("stub", 30)))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    aistore.need()
    target = Target()
    pulls = target.serve()
    url = f"http://127.0.0.1:{pulls.server_port}{PREFIX.rstrip('/')}"
    ports = {name: aistore.free_port() for name in SERVERS}
    asked = [(*name.split("-"), port, url) for name, port in ports.items()]
    transports: dict[tuple[str, str], Transport] = {}
    try:
        with (tmp_path_factory.mktemp("aistore") / "log").open("wb") as log, aistore.workers(asked, log):
            for name, port in ports.items():
                address = Address(host="127.0.0.1", port=port)
                transports[name, "hpush"] = HttpTransport(address)
                transports[name, "hpull"] = HttpTransport(address, "pull")
                transports[name, "ws"] = WsTransport(address)
            yield Workers(target, transports)
    finally:
        for transport in transports.values():
            transport.close()
        pulls.shutdown()
        pulls.server_close()


@pytest.mark.parametrize(("server", "way"), WAYS)
def test_the_right_bytes_of_the_right_object_with_its_arguments(workers: Workers, server: str, way: str) -> None:
    for key in KEYS:
        workers.target.asked.clear()
        path, args, body = workers.whole(server, way, b"data", key=key, etl_args=f'{{"a": "{key}"}}').split(b"\n")
        # the threaded server gives its transformer the path as it came
        said = unquote(path.decode()).lstrip("/") if server.startswith("http") else path.decode()
        assert said == f"photos/{key}"
        assert args.decode() == f'{{"a": "{key}"}}'
        assert body == b"DATA"
        assert workers.target.asked == ([f"photos/{key}"] if way == "hpull" else [])


@pytest.mark.parametrize(("server", "way"), WAYS)
def test_empty_objects_and_empty_results_are_results(workers: Workers, server: str, way: str) -> None:
    assert workers.whole(server, way, b"", etl_args="bare") == b""
    assert workers.whole(server, way, b"data", etl_args="empty") == b""
    assert workers.whole(server, way, b"", etl_args="x").endswith(b"\nx\n")


@pytest.mark.parametrize(("server", "way"), WAYS)
def test_a_transformer_that_raises_is_an_error(workers: Workers, server: str, way: str) -> None:
    for _ in range(2):
        with pytest.raises(EtlFailed) as caught:
            workers.whole(server, way, b"data", etl_args="raise")
        assert caught.value.message.startswith("ETL 'stub' failed: ")
        assert "<b>" not in caught.value.message or "no good: äöü <b>" in caught.value.message
    assert workers.whole(server, way, b"data", etl_args="bare") == b"DATA"


@pytest.mark.parametrize("size", [4, 3 * MIB])
@pytest.mark.parametrize(("server", "way"), [way for way in WAYS if way[0].endswith("stream")])
def test_a_transformer_that_raises_late_is_an_error(workers: Workers, server: str, way: str, size: int) -> None:
    with pytest.raises((EtlFailed, EtlCrashed, WorkerLost)):
        workers.whole(server, way, bytes(size), etl_args="late")


@pytest.mark.parametrize(("server", "way"), WAYS)
def test_a_larger_object_comes_through_whole(workers: Workers, server: str, way: str) -> None:
    data = os.urandom(8 * MIB)
    assert workers.whole(server, way, data, etl_args="bare") == data.swapcase()


@pytest.mark.parametrize("server", SERVERS)
def test_an_input_of_unknown_length_comes_through_whole(workers: Workers, server: str) -> None:
    try:
        result = workers.whole(server, "hpush", b"data" * 1000, pieces=1000, size=None, etl_args="bare")
    except WorkerLost:  # the threaded server must be told the length: so it is when the run is tried again
        assert server.startswith("http")
        result = workers.whole(server, "hpush", b"data" * 1000, pieces=1000, size=None, etl_args="bare")
    assert result == b"DATA" * 1000


@pytest.mark.parametrize(("server", "way"), [way for way in WAYS if way[1] != "hpull"])
def test_a_file_that_the_worker_can_read_is_named_instead_of_sent(
    workers: Workers, server: str, way: str, tmp_path: Path
) -> None:
    file = tmp_path / "100%25 ä+b"
    file.write_bytes(b"from the file")
    assert workers.whole(server, way, b"sent", path=str(file), etl_args="bare") == b"FROM THE FILE"
    with pytest.raises((Reject, EtlFailed)):
        workers.whole(server, way, b"sent", path=str(tmp_path / "missing"), etl_args="bare")


@pytest.mark.parametrize("server", SERVERS)
def test_a_worker_that_can_not_pull_its_object_is_an_error(workers: Workers, server: str) -> None:
    with pytest.raises(Reject):
        workers.whole(server, "hpull", b"missing", etl_args="bare")


@pytest.mark.parametrize(("server", "way"), [way for way in WAYS if way[1] != "hpull"])
def test_many_at_once_each_get_their_own_result(workers: Workers, server: str, way: str) -> None:
    def one(i: int) -> bool:
        return workers.whole(server, way, b"no%d" % i, etl_args="bare") == b"NO%d" % i

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(40)))


def test_what_a_websocket_can_not_carry_is_an_error(workers: Workers) -> None:
    with pytest.raises(EtlFailed, match="closed the WebSocket without an answer"):
        workers.whole("fastapi-transform_stream", "ws", b"data")
    for server in ("flask-transform", "http-transform"):
        with pytest.raises(EtlFailed, match="accepts no WebSocket"):
            workers.whole(server, "ws", b"data")
    with pytest.raises(Reject, match="no message as large"):
        workers.whole("fastapi-transform", "ws", bytes(17 * MIB))  # uvicorn's own bound is 16 MiB
    assert workers.whole("fastapi-transform", "ws", b"data", etl_args="bare") == b"DATA"
