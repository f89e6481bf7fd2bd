"""What is seen of services elsewhere that are asked for their health: well ones, and all kinds of unwell."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.stub_workers import Request, Wire, every_request, stub_worker
from transom.target.etl.keeper.health import is_well
from transom.target.etl.runtimes.url import SIGNATURE
from transom.target.etl.runtimes.url_health import Seen, look_at, seen_in_time
from transom.target.etl.runtimes.url_rules import UrlRules

HERE = UrlRules.parse(["127.0.0.1", "127.0.0.2"])
SECRET = "the ETL's secret"


def looked(port: int, path: str = "", *, rules: UrlRules = HERE, bound_s: float = 5.0) -> Seen:
    return look_at(f"http://127.0.0.1:{port}{path}", rules, SECRET, bound_s=bound_s)


def seen(serve: Callable[[Wire], object], path: str = "", *, bound_s: float = 5.0) -> Seen:
    """What is seen of a service on one connection."""
    with stub_worker(serve) as worker:
        found = looked(worker.address.port, path, bound_s=bound_s)
        assert worker.served == 1
        return found


def answering(status: str, headers: str = "") -> Callable[[Wire], None]:
    return every_request(lambda wire, _: wire.answer(b"Running", status, headers))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_it_is_asked_as_a_run_would_ask_it_and_can_verify_that() -> None:
    asked: list[Request] = []

    def answer(wire: Wire, request: Request) -> None:
        asked.append(request)
        wire.answer(b"Running")

    found = seen(every_request(answer), "/etl/")
    assert found == Seen(True, "its service answers GET /etl/health with 200")
    (request,) = asked
    assert (request.method, request.target, request.body) == ("GET", "/etl/health", b"")
    assert request.headers["Host"].startswith("127.0.0.1:")
    fields = dict(field.split("=", 1) for field in request.headers[SIGNATURE].split(","))
    text = f"{fields['t']}.GET./etl/health".encode()
    assert fields["v1"] == hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("status", "well", "said"),
    [
        ("200 OK", True, "its service answers GET /health with 200"),
        ("204 No Content", True, "its service answers GET /health with 204"),
        ("404 Not Found", True, "its service answers, and has no GET /health (404)"),
        ("405 Method Not Allowed", True, "its service answers, and has no GET /health (405)"),
        ("501 Unsupported method ('GET')", True, "its service answers, and has no GET /health (501)"),
        ("500 Oops", False, "its service answers GET /health with 500: see what the service itself, or its log, says"),
        (
            "503 Not Yet",
            False,
            "its service answers GET /health with 503: see what the service itself, or its log, says",
        ),
        ("401 Who", False, "with 401: it must take what Transom-Signature signs with the secret in 'transom etl show'"),
        ("403 No", False, "with 403: it must take what Transom-Signature signs with the secret in 'transom etl show'"),
        ("429 Busy", False, "its service answers GET /health with 429: see what"),
    ],
)
def test_what_an_answer_comes_to(status: str, well: bool, said: str) -> None:
    found = seen(answering(status))
    assert found.well is well
    assert said in found.message


def test_no_redirect_is_followed() -> None:
    with stub_worker(answering("200 OK")) as other:
        there = f"Location: http://127.0.0.1:{other.address.port}/health\r\n"
        found = seen(answering("302 Found", there))
        assert other.served == 0
    assert found == Seen(
        False,
        "its service answers GET /health with 302: no redirect is followed, so the ETL must be made with the address "
        "that it leads to",
    )


def test_where_nobody_listens_is_said_with_what_to_do() -> None:
    port = free_port()
    assert looked(port) == Seen(
        False,
        f"127.0.0.1:{port}: nobody listens there: start it, or make the ETL anew with the address where it is",
    )


def drip(wire: Wire) -> None:
    """An answer that never comes to its end, a little of it every now and then."""
    wire.request()
    wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.send(b"X: y\r\n")
        time.sleep(0.01)  # as slow as that: it is the pace that is tested


@pytest.mark.parametrize("serve", [Wire.is_left, drip])
def test_one_that_takes_too_long_is_waited_for_no_longer_than_the_bound(serve: Callable[[Wire], object]) -> None:
    began = time.monotonic()
    found = seen(serve, bound_s=0.5)
    assert 0.4 < time.monotonic() - began < 4.0
    assert not found.well
    assert "no answer to GET /health within 0.5 s: start it" in found.message


def test_a_long_answer_is_left_once_its_head_is_there() -> None:
    def endless(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            wire.send(b"x" * 65536)

    assert seen(endless).well


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "what answers there speaks no HTTP (no status line): see whether the URL"),
        (b"", "it closed the connection without an answer: see whether the URL should begin with http or with https"),
    ],
)
def test_what_is_no_http_is_told_from_what_is_not_there(said: bytes, why: str) -> None:
    def serve(wire: Wire) -> None:
        wire.request()
        wire.send(said)

    found = seen(serve)
    assert not found.well
    assert why in found.message


def test_https_where_http_is_spoken_is_said() -> None:
    def serve(wire: Wire) -> None:
        wire.reader.read1(5)
        wire.answer(b"", "400 Bad Request")

    with stub_worker(serve) as worker:
        found = look_at(f"https://127.0.0.1:{worker.address.port}", HERE, SECRET)
    assert not found.well
    assert "TLS can't be agreed on" in found.message
    assert "http or with https" in found.message


def test_what_no_run_may_come_to_is_not_asked_either() -> None:
    with stub_worker(answering("200 OK")) as worker:
        found = looked(worker.address.port, rules=UrlRules())
        assert worker.served == 0
    assert found == Seen(
        False,
        "127.0.0.1, which is not public, is not allowed: an administrator can add '127.0.0.1' to [etl] url_allow",
    )


def test_a_name_is_looked_up_once_and_each_of_its_addresses_tried() -> None:
    looked_up: list[str] = []

    def resolve(host: str, _: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

    with stub_worker(answering("200 OK")) as worker:
        port = worker.address.port
        assert look_at(f"http://here.example:{port}", HERE, SECRET, resolve=resolve).well
    found = look_at(f"http://here.example:{port}", HERE, SECRET, resolve=resolve)
    assert not found.well
    for address in ("127.0.0.1", "127.0.0.2"):
        assert f"here.example:{port} ({address}): nobody listens there" in found.message
    assert looked_up == ["here.example"] * 2


def test_a_name_that_nobody_knows_is_said() -> None:
    def resolve(host: str, _: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    assert look_at("http://nowhere.example", HERE, SECRET, resolve=resolve) == Seen(
        False,
        "nowhere.example can't be looked up (Name or service not known): "
        "see to the name, or to this machine's name server",
    )


async def test_a_name_server_that_hangs_holds_up_neither_the_answer_nor_the_loop() -> None:
    over = threading.Event()
    turns = 0

    def resolve(_host: str, _port: int) -> list[str]:
        over.wait(30)
        raise OSError(-2, "Name or service not known")

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    beside = asyncio.create_task(others())
    try:
        found = await seen_in_time("http://slow.example", HERE, SECRET, bound_s=0.2, resolve=resolve)
    finally:
        beside.cancel()
        over.set()
    assert found.message.startswith("slow.example can't be looked up (not within 0.2 s)")
    assert turns > 10


async def test_what_is_seen_in_time_is_what_there_is() -> None:
    with stub_worker(answering("200 OK")) as worker:
        url = f"http://127.0.0.1:{worker.address.port}"
        assert (await seen_in_time(url, HERE, SECRET)).well


def test_a_worker_that_drips_its_answer_is_not_well_for_ever() -> None:
    began = time.monotonic()
    with stub_worker(drip, unix=True) as worker:
        assert not is_well(worker.address, 0.5)
    assert time.monotonic() - began < 4.0
