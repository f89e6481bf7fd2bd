"""ETLs that are no plugin's, from spec to answer on a real server: every runtime and transport, and their lifecycle."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.processes import gone, load, md5, timed
from tests.runtimes import BUCKET, BY_HAND, OBJECTS, REVERSE, Running, followed, numbers, running_etls, spec
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminError

WAYS = {"embedded": ("--processes", "2"), "targets": ("--targets", "2")}


@pytest.fixture(scope="module", params=["embedded", pytest.param("targets", marks=pytest.mark.soak)])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_etls(tmp_path_factory.mktemp(request.param), *WAYS[request.param]) as made:
        yield made


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("etl", BY_HAND)
def test_every_runtime_and_transport_makes_what_its_function_does_by_hand(running: Running, etl: str) -> None:
    for key, data in OBJECTS.items():
        answer = running.get(key, etl)
        assert (answer.status, md5(answer.body), answer.ended) == (200, md5(BY_HAND[etl](data)), True), key


@pytest.mark.parametrize(
    "pipeline", ["tr>>shout>>sock", "pulled>>tcp>>far", "direct>>tr>>pooled", "far>>pulled>>tcp-pulled"]
)
def test_they_chain_in_one_pipeline(running: Running, pipeline: str) -> None:
    for key in ("empty", "hello.txt", "parts"):
        wanted = OBJECTS[key]
        for etl in pipeline.split(">>"):
            wanted = BY_HAND[etl](wanted)
        assert md5(running.get(key, pipeline).body) == md5(wanted), key


def test_arguments_come_as_they_were_given(running: Running) -> None:
    assert running.get("one", "shout", etl_args="plain words").body == b"X!plain words"
    assert running.get("one", "shout", etl_args='{"b": 1, "a": [true]}').body == b'X!{"b":1,"a":[true]}'


def test_a_service_elsewhere_can_verify_who_asks(running: Running) -> None:
    running.get(running.put(b"signed?"), "far")
    request = running.asked[-1]
    assert request.target.startswith("/etl/runtimes/object-")
    assert request.headers["Transom-Signature"].startswith("t=")
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://169.254.169.254/latest", "is a metadata service"),
        ("http://10.0.0.1", "is not public"),
        ("http://[::1]:80", "is not public"),
        ("http://[::ffff:10.0.0.1]", "is not public"),
    ],
)
def test_a_service_at_an_address_that_nobody_allowed_is_refused(running: Running, url: str, why: str) -> None:
    with pytest.raises(AdminError, match=why):
        running.init({"url": url})


# --- errors -------------------------------------------------------------------------------------


def test_a_worker_may_leave_an_object_out_or_reject_it(running: Running) -> None:
    skipped, rejected = running.get(running.put(b"skip"), "shout"), running.get(running.put(b"reject"), "shout")
    assert (skipped.status, "leaves this object out" in skipped.message) == (404, True)
    assert (rejected.status, rejected.code, "no such picture" in rejected.message) == (422, "EtlInputRejected", True)


def test_a_transform_past_its_deadline_fails_promptly_and_its_worker_lives_on(running: Running) -> None:
    before = running.pids("shout")
    answer, took_s = timed(lambda: running.get(running.put(b"slow"), "shout"))
    assert (answer.status, answer.code) == (504, "EtlTimeout")
    assert "passed its deadline of 2 s" in answer.message
    assert 1.9 < took_s < 4
    assert running.get(running.put(b"next"), "shout").body == b"NEXT!"
    assert running.pids("shout") == before


def test_a_worker_that_kills_itself_is_started_again(running: Running) -> None:
    before = running.pids("shout")
    answer = running.get(running.put(b"die"), "shout")
    assert (answer.status, answer.code) == (500, "EtlCrashed")
    assert answer.message == "ETL 'shout' crashed: its worker ended with exit code 7"
    assert running.get(running.put(b"alive"), "shout").body == b"ALIVE!"
    eventually(lambda: len(running.pids("shout")) == len(before))
    assert running.pids("shout") != before
    assert running.admin.etl("shout").state == "running"


def test_one_that_can_not_start_has_failed_with_its_own_last_words(running: Running) -> None:
    with pytest.raises(AdminError, match="No module named 'resnet_9000'") as caught:
        running.init({"code": "import resnet_9000\n\ndef transform(data, context):\n    return data\n"})
    assert caught.value.code == "EtlStartFailed"


def test_words_in_colour_are_an_error_as_any_other(running: Running) -> None:
    for code, refusal in ((65, (422, "EtlInputRejected")), (3, (500, "EtlExited"))):
        words = f"printf '\\033[31mred\\033[0m and \\001 odd\\n' >&2; exit {code}"
        etl = running.init({"command": ["sh", "-c", words]})
        answer = running.get(running.put(b"x"), etl)
        assert (answer.status, answer.code) == refusal
        assert answer.message.endswith("red and odd")
        assert answer.headers["x-transom-error"] == f"{answer.code}: {answer.message}"


def test_a_result_above_the_bound_of_its_etl_is_refused(running: Running) -> None:
    etl = running.init({"code": "def transform(data, context):\n    return data * 1000\n"}, max_output=5000)
    assert running.get(running.put(b"1234"), etl).body == b"1234" * 1000
    answer = running.get(running.put(b"123456"), etl)
    assert (answer.status, answer.code) == (507, "EtlOutputTooLarge")
    large = running.get(running.put(bytes(40_000)), etl)  # 40 MB, of which the worker says how many they are
    assert (large.status, large.code) == (507, "EtlOutputTooLarge")


# --- handed over --------------------------------------------------------------------------------


def test_a_client_that_follows_is_sent_to_the_worker_itself(running: Running) -> None:
    key = running.put(b"abc")
    curl = {"user-agent": "curl/8"}
    first = running.wire.get(at(BUCKET, key, etl="handed", etl_args="x y"), curl)
    if running.server.args[0] == "--targets":  # by way of the target
        assert first.status == 307
        first = followed(first.headers["location"], **curl)
    location = first.headers["location"]
    assert (first.status, first.headers["cache-control"]) == (307, "no-store")
    assert urlsplit(location).hostname == "127.0.0.1"
    assert int(urlsplit(location).port or 0) not in (0, running.server.port)
    assert followed(location).body == b"cba"
    assert followed(location).body == b"cba"  # as long as it is valid
    assert followed(location.replace("x%20y", "z")).status == 403
    assert followed(location.replace(key, "hello.txt")).status == 403
    assert followed(location.partition("?")[0]).status == 403


@pytest.mark.parametrize(
    "headers", [{}, {"user-agent": "Boto3/1"}, {"user-agent": "curl/8", "range": "bytes=0-1"}], ids=str
)
def test_a_client_that_does_not_follow_or_asks_for_a_part_is_answered_here(
    running: Running, headers: dict[str, str]
) -> None:
    answer = running.wire.get(at(BUCKET, running.put(b"abc"), etl="handed"), headers)
    if answer.status == 307 and "range" in headers:
        answer = followed(answer.headers["location"], **headers)
    assert answer.body == b"cba"[: 2 if "range" in headers else None]
    assert answer.etag


# --- lifecycle ----------------------------------------------------------------------------------


def test_an_update_under_load_loses_no_request_and_ends_the_old_workers(running: Running) -> None:
    code = "def transform(data, context):\n    return b'{} ' + data\n"
    etl = running.init({"code": code.format(0)})
    seen: set[bytes] = set()
    old: list[int] = []

    def read(_: int) -> None:
        key = f"update-{next(numbers)}"
        wire = Wire(running.server)
        assert wire.put(f"/{BUCKET}/{key}", b"me").status == 200
        answer = wire.get(at(BUCKET, key, etl=etl))
        assert answer.status == 200, answer.body
        seen.add(answer.body)

    with load(read, threads=4) as reading:
        for revision in (1, 2):
            reading.more(10)
            old += running.pids(etl)
            running.admin.init_spec(json.dumps(spec(etl, {"code": code.format(revision)})))
        reading.more(20)
    assert seen == {b"0 me", b"1 me", b"2 me"}
    eventually(lambda: all(gone(pid) for pid in old), within_s=20)
    assert running.get(running.put(b"at last"), etl).body == b"2 at last"


def test_stopping_one_touches_no_other_and_lets_its_own_runs_end(running: Running) -> None:
    slow = "import time\ndef transform(data, context):\n    time.sleep(1)\n    return data\n"
    etl = running.init({"code": slow})
    pids, others = running.pids(etl), running.pids("sock")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(running.get, running.put(b"slowly"), etl)
        time.sleep(0.3)  # it has begun
        running.admin.stop_etl(etl)
        assert running.wire.get(at(BUCKET, "one", etl=etl)).code == "EtlUnavailable"
        assert under_way.result().body == b"slowly"
    eventually(lambda: all(gone(pid) for pid in pids), within_s=20)
    assert running.pids("sock") == others
    running.admin.start_etl(etl)
    assert running.get(running.put(b"again"), etl).body == b"again"


def test_a_worker_without_work_rests_and_is_started_on_demand(running: Running) -> None:
    etl = running.init({"code": REVERSE}, idle_timeout="300ms")
    pids = running.pids(etl)
    eventually(lambda: all(gone(pid) for pid in pids), within_s=20)
    assert {worker.state for worker in running.admin.etl(etl).workers} == {"idle"}
    assert running.get(running.put(b"abc"), etl).body == b"cba"


def test_a_restart_replaces_the_workers_while_it_serves(running: Running) -> None:
    old = running.pids("sock")
    stop = threading.Event()
    failures: list[Raw] = []

    def read() -> None:
        wire = Wire(running.server)
        while not stop.is_set():
            key = f"restart-{next(numbers)}"
            wire.put(f"/{BUCKET}/{key}", b"abc")
            answer = wire.get(at(BUCKET, key, etl="sock"))
            if answer.body != b"cba":
                failures.append(answer)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        running.admin.restart_etl("sock")
        stop.set()
        reading.result()
    assert not failures
    eventually(lambda: all(gone(pid) for pid in old))
    assert running.get(running.put(b"abc"), "sock").body == b"cba"


def test_what_a_worker_prints_is_kept(running: Running) -> None:
    loud = "def transform(data, context):\n    print('I saw', data.decode())\n    return data\n"
    etl = running.init({"code": loud})
    running.get(running.put(b"a cat"), etl)
    eventually(lambda: any("I saw a cat\n" in piece.text for piece in running.admin.etl_logs(etl)))


def test_a_worker_sees_nothing_of_the_server(running: Running) -> None:
    nosy = (
        "import os, socket\n"
        "def can(work, *args):\n"
        "    try:\n"
        "        work(*args)\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n"
        "def transform(data, context):\n"
        "    folder = data.decode()\n"
        "    read = [can(open, path) for path in ('/etc/shadow', folder + '/redirect.secret')]\n"
        "    seen = [name for name in os.listdir(folder) if name != 'environments']\n"
        "    reached = can(socket.create_connection, ('192.0.2.1', 80), 1)\n"
        "    return f'{os.getuid()} {read} {seen} {reached}'.encode()\n"
    )
    etl = running.init({"code": nosy})
    answer = running.get(running.put(str(running.server.folder).encode()), etl)
    assert answer.body == b"65534 [False, False] [] False"
