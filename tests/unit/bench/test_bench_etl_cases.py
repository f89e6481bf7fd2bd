"""The comparison of runtimes and transports: its cases, and the plain loop over a worker that it compares with."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from transom.bench.suite import http_loop
from transom.bench.suite.cases import GRANIAN
from transom.bench.suite.etl import latencies_table
from transom.bench.suite.etl_cases import (
    AISTORE,
    BARE_WORKER,
    CONTAINER,
    ETL_SIZES,
    HTTP_LOOP,
    aistore_spec,
    container_spec,
    etl_cases,
    etl_ratios,
    specs,
)
from transom.bench.suite.ratios import Figures, outcomes
from transom.target.etl.spec_load import load

WORKER = Path("/nowhere/echo.py")
NAMES = [*specs(WORKER), *AISTORE, CONTAINER]


def test_every_spec_is_one():
    texts = [*specs(WORKER).items(), *((name, aistore_spec(name, "http://127.0.0.1:1")) for name in AISTORE)]
    for name, text in [*texts, (CONTAINER, container_spec("localhost/echo:1"))]:
        (spec,) = load(text)
        assert (spec.name, spec.cache) == (name, False)


def test_every_ratio_names_measured_cases_and_every_etl_has_one():
    sizes = list(ETL_SIZES)
    measured = {(case.name, peer) for case in etl_cases(sizes, NAMES) for peer in case.peers}
    ratios = etl_ratios(sizes, NAMES)
    for ratio in ratios:
        assert {ratio.over, ratio.under} <= measured, ratio.name
    assert len({ratio.name for ratio in ratios}) == len(ratios)
    assert {case for case, peer in measured if peer == GRANIAN} == {
        case for ratio in ratios for case, peer in (ratio.over, ratio.under) if peer == GRANIAN
    }


def test_what_is_promised():
    promised = {ratio.name: ratio.target for ratio in etl_ratios(list(ETL_SIZES), NAMES) if ratio.target is not None}
    assert promised == {
        "echo-hpush 100KiB / echo-call 100KiB": 0.5,
        "echo-ws 1KiB / echo-hpush 1KiB": 1.0,
        "echo-io 1KiB / echo-hpush 1KiB": 1.0,
        "echo-file 16MiB / echo-stream 16MiB": 1.0,
        "image-process / image-call": 0.8,
        **{f"echo-aistore {size}, every core / aistore worker {size}, bare HTTP loop": 0.7 for size in ETL_SIZES},
    }


def test_what_takes_no_part_gives_no_ratio():
    sizes = ["1KiB"]
    cases = etl_cases(sizes, ["echo-call", "image-call"])
    assert [case.name for case in cases] == ["get 1KiB", "echo-call 1KiB", "image-call"]
    results = {(case.name, GRANIAN): Figures(ops_per_s=[1.0]) for case in cases}
    assert [outcome.ratio.name for outcome in outcomes(results, etl_ratios(sizes, []))] == ["echo-call 1KiB / get 1KiB"]


@pytest.fixture
def worker():
    """A worker that echoes, and after a second request behaves as `behaviour` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        asked = 0
        behaviour = ""

        def do_PUT(self):
            Handler.asked += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if Handler.asked > 2 and Handler.behaviour == "breaks":
                self.close_connection = True
                return
            if Handler.asked > 2 and Handler.behaviour == "lies":
                body = body[:-1] + b"!"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server, Handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("behaviour", "failed", "corrupt"), [("", False, False), ("lies", False, True), ("breaks", True, False)]
)
def test_the_plain_loop_counts_what_it_gets(worker, behaviour, failed, corrupt):
    server, handler = worker
    handler.behaviour = behaviour
    report = http_loop.measure(f"http://127.0.0.1:{server.server_port}", 1000, seconds=0.2, seed=1)
    assert report.done >= 1
    assert (report.failed > 0, report.corrupt > 0) == (failed, corrupt)
    assert report.ops["put"].moved == 1000 * report.done


def test_the_plain_loop_has_a_row_of_its_own():
    results = {(f"{BARE_WORKER} 1KiB", peer): Figures(ops_per_s=[1.0]) for peer in (BARE_WORKER, HTTP_LOOP)}
    table = latencies_table(results, list(results))
    assert list(table.columns[0].cells) == ["aistore worker 1KiB", "aistore worker 1KiB, bare HTTP loop"]
