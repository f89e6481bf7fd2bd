"""The contract: what an ETL that fails, is busy, slow or stopped answers; never a short body, never the raw object."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transom_test_transformers import grow_bytes

from tests.integration.conftest import MAX_OUTPUT, WAIT_S
from tests.running import RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminClient

SECRET_DATA = b"the raw object must never show"
BIG = 100 * 1024  # above the size that GIL-bound transformers run on in the server's own process


def check_error(answer: Raw, status: int, code: str, *, names: str = "") -> None:
    assert (answer.status, answer.code, answer.ended) == (status, code, True), answer
    assert answer.headers["content-type"] == "application/xml"
    assert names in answer.message and answer.element("RequestId") == answer.headers["x-amz-request-id"]
    assert SECRET_DATA not in answer.body
    assert "etag" not in answer.headers


def asks(target: str) -> list[tuple[str, str, dict[str, str]]]:
    """The ways to ask for an object: whole, ranged, and its head."""
    return [("GET", target, {}), ("GET", target, {"Range": "bytes=0-9"}), ("HEAD", target, {})]


# --- on the server as it comes ------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SECRET_DATA, SECRET_DATA * 4000], ids=["small", "in a worker"])
def test_transformer_that_raises_is_500_naming_the_etl(wire: Wire, bucket: str, data: bytes) -> None:
    wire.put(at(bucket, "k"), data)
    for target in (at(bucket, "k", etl="fail"), at(f"{bucket}--etl--fail", "k"), at(bucket, "k", etl="fail_late")):
        for method, path, headers in asks(target):
            answer = wire(method, path, headers)
            assert answer.status == 500
            if method == "GET":
                check_error(answer, 500, "EtlFailed", names="'fail")
    in_the_middle = wire.get(at(bucket, "k", etl="upper>>fail>>md5"))
    check_error(in_the_middle, 500, "EtlFailed", names="'fail'")
    assert wire.get(at(bucket, "k", etl="upper")).body == data.upper()  # and nothing else is harmed


def test_failure_is_not_remembered(wire: Wire, bucket: str, log: Path) -> None:
    wire.put(at(bucket, "k"), b"x")
    target = at(bucket, "k", etl="count>>fail", etl_args=f'["{log}", null]')
    for _ in range(3):
        assert wire.get(target).code == "EtlFailed"
    assert log.read_text().count("run") == 3


@pytest.mark.parametrize("data", [SECRET_DATA, SECRET_DATA * 4000], ids=["small", "in a worker"])
def test_bad_input_is_422_and_remembered_briefly(wire: Wire, bucket: str, log: Path, data: bytes) -> None:
    wire.put(at(bucket, "k"), data)
    target = at(bucket, "k", etl="count>>reject", etl_args=f'["{log}", "no picture"]')
    for method, path, headers in asks(target) * 2:
        answer = wire(method, path, headers)
        assert answer.status == 422
        if method == "GET":
            check_error(answer, 422, "EtlInputRejected", names="no picture")
    assert log.read_text().count("run") == 1
    wire.put(at(bucket, "k"), data + b"!")
    assert wire.get(target).status == 422
    assert log.read_text().count("run") == 2  # it was for the old bytes


def test_stopped_etl_is_503_until_it_is_started(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl, view = name("stopped"), name("stopped-view")
    wire.put(at(bucket, "k"), SECRET_DATA)
    admin.init_etl(etl, "upper")
    admin.create_view(view, bucket, etl)
    targets = [at(bucket, "k", etl=etl), at(bucket, "k", etl=f"upper>>{etl}"), at(view, "k")]
    for target in targets:
        assert wire.get(target).status == 200  # it is in the cache
    admin.stop_etl(etl)
    for target in targets:
        check_error(wire.get(target), 503, "EtlUnavailable", names=f"'{etl}' is stopped")
        assert wire.head(target).status == 503
    assert wire.get(f"/{view}?list-type=2").status == 503
    admin.start_etl(etl)
    for target in targets:
        assert wire.get(target).status == 200
    admin.remove_view(view)
    admin.remove_etl(etl)


def test_the_etl_of_a_plugin_can_be_stopped_too(wire: Wire, bucket: str, admin: AdminClient) -> None:
    wire.put(at(bucket, "k"), b"x")
    admin.stop_etl("double")
    check_error(wire.get(at(bucket, "k", etl="double")), 503, "EtlUnavailable", names="'double'")
    admin.start_etl("double")
    assert wire.get(at(bucket, "k", etl="double")).body == b"xx"


def test_crash_is_500_and_after_several_in_a_row_the_circuit_opens(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    etl = name("crash")
    admin.init_etl(etl, "crash", {"status": 71})
    wire.put(at(bucket, "k"), SECRET_DATA * 4000)  # large enough to run in a worker process
    children = server.children()
    target = at(bucket, "k", etl=f"count>>{etl}", etl_args=f'["{log}", null]')
    first = wire.get(target)
    check_error(first, 500, "EtlCrashed", names=f"'{etl}' crashed: its worker process ended with exit code 71")

    def opened() -> Raw | None:
        answer = wire.get(target)
        return answer if answer.code == "EtlUnavailable" else None

    refused = eventually(opened)
    assert 5 <= log.read_text().count("run") <= 6
    check_error(refused, 503, "EtlUnavailable", names=f"'{etl}'")
    assert int(refused.headers["retry-after"]) > 0
    runs = log.read_text().count("run")
    assert wire.head(target).status == 503
    assert log.read_text().count("run") == runs
    assert wire.get(at(bucket, "k", etl="count")).status == 200  # the other stage's circuit stays closed
    assert server.children() == children  # no server process died of it
    admin.start_etl(etl)  # an admin closes it
    assert wire.get(target).code == "EtlCrashed"
    admin.remove_etl(etl)


# --- on a server with tight bounds --------------------------------------------------------------------


def test_not_ready_within_the_wait_budget_is_slow_down_and_the_retry_joins_the_run(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path, tmp_path: Path
) -> None:
    gate, etl = tmp_path / "gate", name("gated")
    tight_admin.init_etl(etl, "tap", {"log": str(log), "gate": str(gate), "after": 10})
    tight.put(at(tight_bucket, "k"), b"x")
    target = at(tight_bucket, "k", etl=etl)
    started = time.monotonic()
    refused = tight.get(target)
    check_error(refused, 503, "SlowDown")
    assert int(refused.headers["retry-after"]) >= 1
    assert WAIT_S <= time.monotonic() - started < WAIT_S + 5
    head = tight.head(target)
    assert (head.status, int(head.headers["retry-after"]) >= 1) == (503, True)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(tight.get, target)
        gate.touch()
        assert joined.result().body == b"a" * 10
    assert log.read_text().split() == ["start", "end"]
    tight_admin.remove_etl(etl)


def test_not_begun_within_the_wait_budget_is_slow_down_without_the_cache_too(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path, tmp_path: Path
) -> None:
    """The work goes on for the cache, and the retry joins it: else an answer that takes long could never be had."""
    gate, etl = tmp_path / "gate", name("uncached")
    tight_admin.init_etl(etl, "tap", {"log": str(log), "gate": str(gate)}, cache=False)
    tight.put(at(tight_bucket, "k"), b"x")
    check_error(tight.get(at(tight_bucket, "k", etl=etl)), 503, "SlowDown")
    gate.touch()
    eventually(lambda: tight.get(at(tight_bucket, "k", etl=etl)).status == 200)
    tight_admin.remove_etl(etl)


def test_full_queue_is_slow_down_and_those_who_wait_get_their_turn(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path, tmp_path: Path
) -> None:
    gate, etl = tmp_path / "gate", name("narrow")
    tight_admin.init_etl(etl, "tap", {"log": str(log), "gate": str(gate), "after": 3}, concurrency=1)
    for key in "abcd":
        tight.put(at(tight_bucket, key), b"x")
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(tight.get, at(tight_bucket, "a", etl=etl))
        eventually(log.read_text)
        others = [pool.submit(tight.get, at(tight_bucket, key, etl=etl)) for key in "bcd"]
        # one place, one in the queue: two of the three are turned away at once
        eventually(lambda: sum(each.done() for each in others) >= 2)
        gate.touch()
        answers = [running.result(), *(each.result() for each in others)]
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
    for answer in answers:
        if answer.status == 503:
            check_error(answer, 503, "SlowDown", names=f"'{etl}' is busy")
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.body == b"aaa"
    assert tight.get(at(tight_bucket, "d", etl=etl)).body == b"aaa"
    tight_admin.remove_etl(etl)


def test_output_past_the_bound_is_507(tight: Wire, tight_bucket: str) -> None:
    tight.put(at(tight_bucket, "k"), SECRET_DATA)
    target = at(tight_bucket, "k", etl="grow", etl_args=MAX_OUTPUT + 1)
    assert tight.head(target).status == 507
    check_error(tight.get(target, {"Range": "bytes=0-9"}), 507, "EtlOutputTooLarge", names="grow")
    check_error(tight.get(target, version="1.0"), 507, "EtlOutputTooLarge", names="grow")
    streamed = tight.get(target)  # begun before it was known: broken off, never ended
    if streamed.status == 200:
        assert not streamed.ended and grow_bytes(MAX_OUTPUT + 1).startswith(streamed.body)
    else:
        check_error(streamed, 507, "EtlOutputTooLarge", names="grow")
    whole = tight.get(at(tight_bucket, "k", etl="grow", etl_args=MAX_OUTPUT))
    assert whole.ended and whole.body == grow_bytes(MAX_OUTPUT)


def test_timeout_in_a_worker_process_is_504_and_kills_it(
    tight_server: RunningServer,
    tight: Wire,
    tight_bucket: str,
    tight_admin: AdminClient,
    name: Callable[[str], str],
) -> None:
    etl = name("endless")
    tight_admin.init_etl(etl, "loop_forever", timeout_s=1.0)
    tight.put(at(tight_bucket, "k"), SECRET_DATA * 4000)
    answer = tight.get(at(tight_bucket, "k", etl=etl))
    for _ in range(10):
        if answer.status != 503:
            break
        answer = tight.get(at(tight_bucket, "k", etl=etl))  # a new worker took its time to start: not the run's
    check_error(answer, 504, "EtlTimeout", names=f"'{etl}' passed its deadline")
    eventually(lambda: not busy_workers(tight_server))
    tight_admin.remove_etl(etl)


def test_timeout_in_a_thread_is_504_and_lost_slots_open_the_circuit_until_they_return(
    tight: Wire, tight_bucket: str, tight_admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    etl = name("overslept")
    # with two places, one lost run is half of them
    tight_admin.init_etl(etl, "count", {"log": str(log), "seconds": 5.0}, timeout_s=0.5, concurrency=2)
    tight.put(at(tight_bucket, "k"), SECRET_DATA)
    target = at(tight_bucket, "k", etl=etl)
    started = time.monotonic()
    check_error(tight.get(target), 504, "EtlTimeout", names=f"'{etl}' passed its deadline of 0.5 s")
    # every process that loses a run refuses more; in the end all do, and few enough were lost to know it
    refused = eventually(lambda: answer if (answer := tight.get(target)).status == 503 else None, within_s=4)
    check_error(refused, 503, "EtlUnavailable", names=f"'{etl}'")
    assert int(refused.headers["retry-after"]) > 0
    assert 1 <= log.read_text().count("run") <= 4
    assert time.monotonic() - started < 5.0
    # a shorter sleep is another revision, whose circuit is its own: it works once the threads are back
    tight_admin.init_etl(etl, "count", {"log": str(log), "seconds": 0.0}, timeout_s=30.0, concurrency=2)
    eventually(lambda: tight.get(target).status == 200)
    tight_admin.remove_etl(etl)


def busy_workers(server: RunningServer) -> list[int]:
    """Transformer workers of the server that are at work: more than a tick of CPU within a moment."""

    def used() -> dict[int, int]:
        found = {}
        for process in server.children():
            for worker in Path(f"/proc/{process}/task").glob("*/children"):
                for pid in worker.read_text().split():
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    found[int(pid)] = int(fields[11]) + int(fields[12])
        return found

    before = used()
    threading.Event().wait(0.1)
    after = used()
    return [pid for pid in after if after[pid] - before.get(pid, 0) > 2]
