"""The contract: one run serves every waiter, goes on without them if it is kept, and stops if it isn't."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transom_test_transformers import grow_bytes

from tests.integration.conftest import new_bucket
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminClient

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of four processes."""
    running = RunningServer(tmp_path_factory.mktemp("four"), ("--processes", "4")).start()
    yield running
    assert running.stop() == 0, "".join(running.log)


def test_one_run_for_many_waiters_across_processes(four: RunningServer, log: Path, tmp_path: Path) -> None:
    wire, gate = Wire(four), tmp_path / "gate"
    assert len(four.children()) == 4
    bucket = new_bucket(wire)
    wire.put(at(bucket, "k"), b"x")
    with AdminClient(four.endpoint, ACCESS, SECRET) as admin:
        admin.init_etl("shared", "tap", {"log": str(log), "before": MIB, "gate": str(gate), "after": MIB})
    target = at(bucket, "k", etl="shared")
    asked = [("GET", {}), ("HEAD", {}), ("GET", {"Range": f"bytes={MIB - 1}-{MIB}"}), ("GET", {"x-amz-meta-a": "b"})]
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(wire, method, target, headers) for method, headers in asked * 5]
        eventually(log.read_text)
        gate.touch()
        answers = [each.result() for each in waiting]
    for (method, headers), answer in zip(asked * 5, answers, strict=True):
        assert answer.ended and answer.status == (206 if "Range" in headers else 200)
        wanted = b"" if method == "HEAD" else b"ba" if "Range" in headers else b"b" * MIB + b"a" * MIB
        assert answer.body == wanted
    assert log.read_text().split() == ["start", "end"]


def test_processes_share_the_result_and_its_refusals(four: RunningServer, log: Path) -> None:
    wire = Wire(four)
    bucket = new_bucket(wire)
    wire.put(at(bucket, "k"), b"x")
    for etl, status in (("count", 200), ("count>>reject", 422)):
        log.write_text("")
        args = f'"{log}"' if etl == "count" else f'["{log}", null]'
        # a connection each, so that every process gets some
        answers = [wire.get(at(bucket, "k", etl=etl, etl_args=args)) for _ in range(12)]
        assert {answer.status for answer in answers} == {status}
        assert log.read_text().count("run") == 1


def test_a_killed_process_in_mid_run_costs_the_others_nothing(four: RunningServer, log: Path, tmp_path: Path) -> None:
    """Whose run it was is unknown, so all of them are killed; their successors answer the retry."""
    wire, gate = Wire(four), tmp_path / "gate"
    bucket = new_bucket(wire)
    wire.put(at(bucket, "k"), b"x")
    with AdminClient(four.endpoint, ACCESS, SECRET) as admin:
        admin.init_etl("fragile", "tap", {"log": str(log), "gate": str(gate), "after": MIB})
    target = at(bucket, "k", etl="fragile")
    with wire.open("GET", target):
        eventually(log.read_text)
        before = four.children()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(four.children()) == 4 and not set(before) & set(four.children()))
    gate.touch()
    answer = eventually(lambda: _answered(wire, target))
    assert answer.body == b"a" * MIB
    assert log.read_text().split() == ["start", "start", "end"]


def _answered(wire: Wire, target: str) -> Raw | None:
    try:
        return wire.get(target)
    except (AssertionError, OSError):
        return None  # a process that is only starting


def test_cached_run_goes_on_when_all_its_clients_left(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], log: Path, tmp_path: Path
) -> None:
    etl, gate = name("kept"), tmp_path / "gate"
    admin.init_etl(etl, "tap", {"log": str(log), "before": 2 * MIB, "gate": str(gate), "after": 1})
    wire.put(at(bucket, "k"), b"x")
    target = at(bucket, "k", etl=etl)
    with wire.open("GET", target) as streaming:
        assert streaming.head().status == 200
        with wire.open("GET", target, {"Range": "bytes=0-0"}), wire.open("HEAD", target):
            streaming.read(MIB)
    gate.touch()
    eventually(lambda: log.read_text().split() == ["start", "end"])
    answer = wire.get(target)
    assert answer.ended and answer.body == b"b" * 2 * MIB + b"a"
    assert log.read_text().split() == ["start", "end"]
    admin.remove_etl(etl)


@pytest.mark.parametrize("before", [0, 2 * MIB], ids=["before its first byte", "in mid-body"])
def test_uncached_run_ends_when_its_client_leaves(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], log: Path, tmp_path: Path, before: int
) -> None:
    etl = name("let-go")
    args = {"log": str(log), "before": before, "gate": str(tmp_path / "never"), "drip": 1 if before == 0 else 65536}
    admin.init_etl(etl, "tap", args, cache=False)
    wire.put(at(bucket, "k"), b"x")
    with wire.open("GET", at(bucket, "k", etl=etl)) as exchange:
        eventually(log.read_text)
        if before:
            exchange.head()
            exchange.read(before)
    eventually(lambda: log.read_text().split() == ["start", "left"])
    admin.remove_etl(etl)


def test_uncached_etl_runs_for_every_whole_get_and_once_for_ranges_and_heads(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    etl = name("uncached")
    admin.init_etl(etl, "count", {"log": str(log)}, cache=False)
    wire.put(at(bucket, "k"), b"x" * 100)
    target = at(bucket, "k", etl=etl)
    for number in (1, 2):
        answer = wire.get(target)
        assert answer.body == b"x" * 100 and log.read_text().count("run") == number
    for _ in range(2):
        assert wire.get(target, {"Range": "bytes=0-9"}).etag == answer.etag
        assert wire.head(target).headers["content-length"] == "100"
    assert log.read_text().count("run") == 3  # ranges come from one materialised result
    admin.remove_etl(etl)


def test_result_is_made_once_for_get_head_ranges_views_and_prefix(wire: Wire, bucket: str, log: Path) -> None:
    wire.put(at(bucket, "k"), b"text")
    query = {"etl": "upper>>count", "etl_args": f'[null, "{log}"]'}
    for method in ("HEAD", "GET"):
        for headers in ({}, {"Range": "bytes=0-0"}):
            assert wire(method, at(bucket, "k", **query), headers).status < 300
            args = {"etl": "count", "etl_args": f'"{log}"'}
            assert wire(method, at(f"{bucket}--etl--upper", "k", **args), headers).status < 300
            assert wire(method, "/-/via/upper" + at(bucket, "k", **args), headers).status < 300
    assert log.read_text().count("run") == 1


def test_large_gil_bound_stage_and_its_neighbours_make_the_right_bytes(wire: Wire, bucket: str) -> None:
    """`reverse` runs in a worker process here, the digest in a thread; bytes go both ways between them."""
    data = grow_bytes(5 * MIB + 3)
    wire.put(at(bucket, "k"), data)
    assert wire.get(at(bucket, "k", etl="reverse>>reverse")).body == data
    assert wire.get(at(bucket, "k", etl="upper>>reverse>>upper")).body == data.upper()[::-1]
