"""A worker's connections serve runs in threads and runs on the event loop in turn."""

from __future__ import annotations

import time

import pytest

from tests.looping import run_on_loop
from tests.stub_workers import Request, Wire, a_call, every_request, stub_worker
from transom.target.etl.transports.http import HttpTransport
from transom.target.etl.watch import Watch


class Counting(Watch):
    """Counts how often it is looked at."""

    looks = 0

    def check(self) -> None:
        self.looks += 1
        super().check()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_thread_waits_idly_on_a_connection_that_has_been_on_the_loop(unix: bool) -> None:
    def slow(wire: Wire, request: Request) -> None:
        time.sleep(float(request.body or b"0"))
        wire.answer(request.body or b"")

    def ask(seconds: bytes) -> int:
        watch = Counting("stub", 20)
        assert b"".join(transport.run(a_call(size=len(seconds)), iter([seconds]), watch)) == seconds
        return watch.looks

    with stub_worker(every_request(slow), unix=unix) as worker:
        transport = HttpTransport(worker.address)
        run_on_loop(lambda: ask(b"0.0"))
        assert ask(b"1.0") < 20  # four a second, and those on the way
        run_on_loop(lambda: ask(b"0.0"))
        assert worker.served == 1
        transport.close()
