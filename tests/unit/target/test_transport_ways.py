"""A worker's connections serve runs in threads and runs on the event loop in turn."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from functools import partial

import pytest

from tests.looping import run_on_loop
from tests.stub_workers import PATIENCE_S, Request, Wire, a_call, echo, every_request, stub_worker
from transom.target.etl.transports.connections import Connection, ConnectionPool
from transom.target.etl.transports.http import HttpTransport
from transom.target.etl.waiting import aside, sleep
from transom.target.etl.watch import Watch


class Counting(Watch):
    """Counts how often it is looked at."""

    looks = 0

    def check(self) -> None:
        self.looks += 1
        super().check()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_threads_and_a_loop_take_turns_on_one_connection_and_each_waits_idly(unix: bool) -> None:
    def slow(wire: Wire, request: Request) -> None:
        time.sleep(float(request.body or b"0"))
        wire.answer(request.body or b"")

    def ask(seconds: bytes) -> int:
        watch = Counting("stub", 20)
        assert b"".join(transport.run(a_call(size=len(seconds)), iter([seconds]), watch)) == seconds
        return watch.looks

    def idly(seconds: bytes) -> None:
        assert ask(seconds) < 20  # four a second, and those on the way

    def turns() -> None:
        for _ in range(2):
            idly(b"0.0")
            aside(partial(idly, b"0.6"), lambda: None)
            idly(b"0.6")

    with stub_worker(every_request(slow), unix=unix) as worker:
        transport = HttpTransport(worker.address)
        idly(b"0.0")
        run_on_loop(turns)
        idly(b"0.6")
        assert worker.served == 1  # which may be all that it takes at a time
        transport.close()


def test_a_connection_that_a_loop_waited_to_send_on_blocks_a_thread() -> None:
    ours, theirs = socket.socketpair()
    pool = ConnectionPool(lambda _: Connection(ours))

    def work() -> None:
        connection = pool.take(lambda: None)
        assert connection.wait() & select.POLLOUT
        pool.give_back(connection)

    with theirs:
        run_on_loop(work)
        assert not os.get_blocking(ours.fileno())
        pool.give_back(pool.take(lambda: None))
        assert os.get_blocking(ours.fileno())
        pool.close()


def test_what_a_worker_says_between_calls_does_not_keep_the_loop_busy() -> None:
    """A connection that nobody reads is looked at no more once something has come; nor is it used again."""

    idle = threading.Event()

    def chatty(wire: Wire, request: Request) -> None:
        wire.answer(request.body or b"")
        idle.wait(PATIENCE_S)
        wire.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")

    def ask() -> None:
        assert b"".join(transport.run(a_call(size=1), iter([b"x"]), Watch("stub", 20))) == b"x"

    def work() -> None:
        ask()
        idle.set()
        began = time.process_time()
        sleep(1.0)
        assert time.process_time() - began < 0.5
        ask()

    with stub_worker(every_request(chatty)) as worker:
        transport = HttpTransport(worker.address)
        run_on_loop(work)
        assert worker.served == 2
        transport.close()


@pytest.mark.parametrize("way", ["on the loop", "by another thread", "after the loop"])
def test_a_pool_lets_go_of_a_loops_connections_wherever_it_is_closed(way: str) -> None:
    hung_up = threading.Event()

    def serve(wire: Wire) -> None:
        every_request(echo)(wire)
        hung_up.set()

    def work() -> None:
        assert b"".join(transport.run(a_call(size=1), iter([b"x"]), Watch("stub", 20))) == b"x"
        if way == "on the loop":
            transport.close()
        elif way == "by another thread":
            aside(transport.close, lambda: None)
        if way != "after the loop":
            aside(partial(hung_up.wait, PATIENCE_S), lambda: None)
            assert hung_up.is_set()

    with stub_worker(serve) as worker:
        transport = HttpTransport(worker.address)
        run_on_loop(work)
        transport.close()
        assert hung_up.wait(PATIENCE_S)
