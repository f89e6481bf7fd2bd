"""`python -m transom.worker` as a process: start, memory, shutdown, and what it needs, which is nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_runs import SRC, WorkerProcess, received_all

Spawn = Callable[..., WorkerProcess]
MIB = 1024 * 1024
ECHO = "def transform(data, context):\n    return data\n"
STREAM = """
from transom.worker import Worker

class Echo(Worker):
    def transform_stream(self, chunks, context):
        yield from chunks
"""
ENDLESS = """
class Endless:
    def transform_stream(self, chunks, context):
        while True:
            yield bytes(1 << 20)
"""
STARTING = """
import time

class Starting:
    def start(self):
        {starts}

    def transform(self, data):
        return data
"""
MARKED = """
from pathlib import Path
import threading

class Marked:
    def start(self):
        self.gate = threading.Event()
        while not Path({gate!r}).exists():
            self.gate.wait(0.01)

    def transform_stream(self, chunks, context):
        yield b"begun "
        for chunk in chunks:
            yield chunk

    def close(self):
        Path({gate!r}).unlink()
"""


def test_streaming_takes_constant_memory(spawn: Spawn) -> None:
    worker = spawn(STREAM)
    before = worker.peak_memory()
    client = worker.client()
    client.connect()
    size = 64 * MIB
    piece = os.urandom(MIB)

    def send() -> None:
        client.sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        for _ in range(size // MIB):
            client.sock.sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    received = 0
    while got := client.sock.recv(MIB):
        received += len(got)
    sender.join()
    client.close()
    assert received > size
    assert worker.peak_memory() - before < 8 * MIB


def test_a_client_that_doesnt_read_holds_the_worker_up(spawn: Spawn) -> None:
    worker = spawn(ENDLESS)
    before = worker.peak_memory()
    with contextlib.closing(worker.client()) as client:
        client.connect()
        client.sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        for _ in range(20):
            assert client.sock.recv(100_000)
    assert worker.peak_memory() - before < 16 * MIB


def test_it_is_healthy_once_start_has_returned_and_ends_what_is_under_way(spawn: Spawn, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = spawn(MARKED.format(gate=str(gate)), ready=False)
    worker.wait_health(503)
    gate.touch()
    worker.wait_ready()
    busy, idle = worker.client(), worker.client()
    for client in (busy, idle):
        client.connect()
    # the input is not all there, so nothing of the output is held back
    busy.sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf")
    answer = b""
    while b"half" not in answer:
        answer += busy.sock.recv(1000)
    worker.process.send_signal(signal.SIGTERM)
    assert received_all(idle.sock) == b""
    assert gate.exists()
    busy.sock.sendall(b" done")
    answer += received_all(busy.sock)
    assert answer.endswith(b" done\r\n0\r\n\r\n")
    assert worker.process.wait(10) == 0
    assert not gate.exists()
    assert not Path(worker.socket_path).exists()
    for client in (busy, idle):
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_it_starts_too(spawn: Spawn, number: int) -> None:
    worker = spawn(STARTING.format(starts="time.sleep(60)"), ready=False)
    worker.wait_health(503)
    worker.process.send_signal(number)
    assert worker.process.wait(10) == 0


def test_what_start_raises_ends_it_with_the_reason_in_its_log(spawn: Spawn) -> None:
    worker = spawn(STARTING.format(starts="raise OSError('no model')"), ready=False)
    assert worker.process.wait(10) == 1
    assert worker.log.read_text().rstrip().endswith("OSError: no model")


def test_failures_are_in_its_log(spawn: Spawn) -> None:
    worker = spawn("def transform(data):\n    raise KeyError('lost')\n")
    assert worker.put(b"") == (500, b"KeyError: 'lost'")
    worker.process.terminate()
    worker.process.wait(10)
    assert "in transform" in worker.log.read_text()


def test_it_takes_the_place_of_one_that_was_killed(spawn: Spawn) -> None:
    spawn(ECHO).kill()
    assert spawn(ECHO).health() == 200


def test_a_port_is_told_in_the_log(spawn: Spawn) -> None:
    worker = spawn(ECHO, ready=False, TRANSOM_SOCKET="", TRANSOM_PORT="0")
    end = time.monotonic() + 10
    while "running" not in worker.log.read_text():
        assert time.monotonic() < end, worker.log.read_text()
        time.sleep(0.01)
    port = int(worker.log.read_text().partition("listening on 127.0.0.1:")[2].split()[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert received_all(sock).endswith(b"\r\n\r\nRunning")


@pytest.mark.parametrize(
    ("code", "options", "reason"),
    [
        ("x = 1\n", (), "has no class with one of transform, transform_stream, transform_file, and no function"),
        (ECHO + STREAM, (), "has several things to serve (Echo, transform): name one with --class"),
        (ECHO, ("--class", "Other"), "has no class Other with one of"),
        ("from transom.worker import Worker\nclass A(Worker):\n    pass\n", (), "A has none of these methods"),
    ],
)
def test_what_cant_be_served_is_said(spawn: Spawn, code: str, options: tuple[str, ...], reason: str) -> None:
    worker = spawn(code, *options, ready=False)
    assert worker.process.wait(10) == 1
    (line,) = worker.log.read_text().splitlines()
    assert line.startswith("transom.worker: ")
    assert reason in line


def test_one_of_several_is_served_by_its_name(spawn: Spawn) -> None:
    assert spawn(ECHO + STREAM, "--class", "Echo").put(b"data") == (200, b"data")


def test_it_needs_nothing_but_its_folder_and_pythons_library(spawn: Spawn, tmp_path: Path) -> None:
    shutil.copytree(SRC / "transom" / "worker", tmp_path / "transom" / "worker")
    run = f"sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('transom.worker', run_name='__main__')"
    bare = f"import runpy, sys; {run}"
    worker = spawn("from transom.worker import Reject\n" + ECHO, python=(sys.executable, "-I", "-S", "-c", bare))
    assert worker.put(b"data") == (200, b"data")
