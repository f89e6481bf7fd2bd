"""Told to stop, a server finishes what is under way, but not for ever; and two servers don't share a data folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.processes import children, gone, runs_under_way, timed, workers
from tests.running import RunningServer
from tests.wire import Exchange, Wire, eventually

MIB = 1024 * 1024
SHUTDOWN_S = 4.0
DATA = os.urandom(16 * MIB)
WAYS = {
    "granian": ("--server", "granian", "--processes", "2"),
    "hypercorn": ("--server", "hypercorn", "--processes", "2"),
    "targets": ("--targets", "2"),
}


@pytest.fixture(params=WAYS)
def server(request: pytest.FixtureRequest, start_server: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    config = tmp_path / "transom.toml"
    config.write_text(f"[server]\nshutdown_s = {SHUTDOWN_S}\n")
    running = start_server("--config", str(config), *WAYS[request.param])
    wire = Wire(running)
    wire.put("/stops")
    wire.put("/stops/small", b"small")
    wire.put("/stops/large", DATA)
    return running


def exit_status(server: RunningServer) -> int:
    assert server.process is not None
    return server.process.wait(timeout=15)


def terminate(server: RunningServer) -> None:
    os.kill(server.pid, signal.SIGTERM)


def test_sigterm_lets_a_transform_and_a_download_under_way_end(server: RunningServer) -> None:
    wire = Wire(server)
    processes = [server.desk(), *server.children(), *workers(server)]
    with (
        wire.open("GET", "/stops/small?etl=slow_start&etl_args=2") as transform,
        wire.open("GET", "/stops/large") as download,
        wire.open("GET", "/stops/small") as idle,
    ):
        idle.whole()
        download.head().read(MIB)
        eventually(lambda: runs_under_way(server))
        terminate(server)
        time.sleep(0.5)  # the client of the download is slow: it reads on after the server was told to stop
        assert transform.whole().body == b"small"
        answer = download.whole()
        assert (answer.body, answer.ended) == (DATA, True)
    status, took_s = timed(lambda: exit_status(server))
    assert status == 0, "".join(server.log)
    assert took_s < SHUTDOWN_S  # nothing was waited for beyond that
    assert all(gone(pid) for pid in processes)


def test_sigterm_lets_a_redirected_client_end_its_download(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--targets", "2")
    wire = Wire(server)
    wire.put("/stops")
    wire.put("/stops/large", DATA)
    url = urlsplit(wire.get("/stops/large?etl=echo", {"user-agent": "curl/8"}).headers["location"])
    with socket.create_connection(("127.0.0.1", url.port)) as sock:
        sock.sendall(f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        download = Exchange(sock, "GET").head()
        download.read(MIB)
        terminate(server)
        time.sleep(1)
        answer = download.whole()
        assert (answer.body, answer.ended) == (DATA, True)
    assert exit_status(server) == 0


def test_sigterm_waits_no_longer_than_it_may(server: RunningServer) -> None:
    wire = Wire(server)
    with (
        wire.open("GET", "/stops/small?etl=sleep&etl_args=15") as transform,
        wire.open("GET", "/stops/large") as download,
        socket.create_connection(("127.0.0.1", server.port)) as silent,
    ):
        silent.sendall(b"GET / HTTP/1.1\r\n")
        download.head().read(MIB)
        eventually(lambda: runs_under_way(server))
        processes = server.everything()
        terminate(server)
        status, took_s = timed(lambda: exit_status(server))
        assert status == 0, "".join(server.log)
        assert took_s < SHUTDOWN_S + 2
        assert all(gone(pid) for pid in processes)
        assert not _finished(transform)
        assert not _finished(download)


def _finished(exchange: Exchange) -> bool:
    """Whether what came looks like a whole success."""
    try:
        answer = exchange.whole()
    except (AssertionError, OSError):
        return False
    return answer.ended and answer.status == 200


def test_sigterm_while_idle_is_quick_and_ends_the_workers(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--processes", "2")
    wire = Wire(server)
    wire.put("/stops")
    wire.put("/stops/large", DATA[:200_000])
    assert wire.get("/stops/large?etl=busy&etl_args=0.01").status == 200
    processes = [server.desk(), *server.children(), *workers(server)]
    assert len(processes) == 4
    with socket.create_connection(("127.0.0.1", server.port)) as kept:  # a client that keeps its connection
        kept.sendall(b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in kept.recv(1024)
        status, took_s = timed(server.stop)
    assert status == 0
    assert took_s < 5
    eventually(lambda: all(gone(pid) for pid in processes))


def test_sigint_stops_it_too(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--processes", "1")
    os.kill(server.pid, signal.SIGINT)
    assert exit_status(server) == 0


# --- two servers ---------------------------------------------------------------------------------


def serve(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `transom serve` that is to fail."""
    command = [str(Path(sys.executable).with_name("transom")), "serve", str(folder), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


def test_a_port_in_use_is_said_so(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = start_server("--processes", "1")
    second = serve(tmp_path / "other", "--port", str(server.port))
    assert second.returncode == 1
    assert second.stderr.strip() == f"transom: can't listen on 127.0.0.1:{server.port}: Address already in use"
    assert Wire(server).get("/-/health", signed=False).status == 200


def test_a_data_folder_in_use_is_refused_and_the_first_server_not_disturbed(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server("--targets", "1")
    wire = Wire(server)
    wire.put("/shared")
    wire.put("/shared/key", b"key")
    before = (server.folder / "cluster.json").read_bytes()
    with wire.open("GET", "/shared/key?etl=slow_start&etl_args=4") as under_way:
        eventually(lambda: runs_under_way(server))
        second = serve(server.folder, "--port", "0", "--targets", "2")
        assert second.returncode == 2
        assert f"{server.folder} is in use by another transom serve (pid {server.pid})" in second.stderr
        assert under_way.whole().body == b"key"
    assert (server.folder / "cluster.json").read_bytes() == before


def test_a_start_right_after_kill_9_waits_for_the_old_processes(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--processes", "2")
    Wire(server).put("/again")
    old = [server.desk(), *server.children(), *(each for pid in server.children() for each in children(pid))]
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server._forget()
    server.start()
    assert all(gone(pid) for pid in old)
    assert Wire(server).get("/again").status == 200
