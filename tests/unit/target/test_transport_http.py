"""The HTTP transports move objects through a worker: both ways at once, in bounded memory, on few connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.stub_workers import Request, StubWorker, Wire, a_call, echo, every_request, stub_worker
from transom.target.errors import EtlFailed, EtlTimeout
from transom.target.etl.transports.base import WorkerLost
from transom.target.etl.transports.http import HttpTransport
from transom.target.etl.watch import AbandonedError, Watch

pytestmark = pytest.mark.usefixtures("either_way")

MIB = 1024 * 1024
Serve = Callable[[Wire], object]


def run(
    transport: HttpTransport, data: list[bytes], *, timeout_s: float = 20, **call: Any
) -> Generator[bytes, None, None]:
    given = {"size": sum(map(len, data)), **call}
    return transport.run(a_call(**given), iter(data), Watch("stub", timeout_s))


def whole(transport: HttpTransport, data: bytes = b"", **call: Any) -> bytes:
    return b"".join(run(transport, [data] if data else [], **call))


class Seen:
    """A worker that notes what it is sent."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, wire: Wire, request: Request) -> None:
        self.requests.append(request)
        wire.answer(b"the result")


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[StubWorker]:
    with stub_worker(request.param) as stub:
        yield stub


@pytest.fixture
def transport(worker: StubWorker) -> Iterator[HttpTransport]:
    transport = HttpTransport(worker.address)
    yield transport
    transport.close()


def served_by(serve: Serve) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("worker", [serve], indirect=True, ids=[""])


# --- what is sent ------------------------------------------------------------------------------


def test_an_object_is_put_with_its_type_and_size_and_no_other_header() -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address)
        assert whole(transport, b"bytes", content_type="image/jpeg", etl_args='{"a": "b&c"}') == b"the result"
        transport.close()
    (request,) = seen.requests
    assert 0 < int(request.headers.pop("Transom-Deadline-Ms")) <= 60_000
    assert request == Request(
        "PUT",
        "/photos/cat.jpg?etl_args=%7B%22a%22%3A%20%22b%26c%22%7D",
        {
            "Host": f"{worker.address}",
            "Content-Type": "image/jpeg",
            "Content-Length": "5",
            "Transom-Object-Size": "5",
        },
        b"bytes",
    )


def test_an_objects_metadata_is_told_a_header_each() -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address)
        whole(transport, b"x", metadata={"camera": "Größe 5\r\n", "two-words": "a, b", "no name": "y", "a:b": "z"})
        whole(transport, b"x", metadata={"long": "x" * 9000, "short": "y"})
        whole(transport, b"x", metadata={f"n{n}": "x" for n in range(65)})
        transport.close()
    few, large, many = ({n: v for n, v in request.headers.items() if "Meta" in n} for request in seen.requests)
    assert few == {"Transom-Meta-camera": "Gr%C3%B6%C3%9Fe%205%0D%0A", "Transom-Meta-two-words": "a%2C%20b"}
    assert (large, many) == ({}, {})


@pytest.mark.parametrize(
    "key", ["a b", "a//b", "/a", "../../etc/x", "a/./b", "ä€𝄞", "a%2Fb", "a?b#c&d=e", "a+b", '\r\n"']
)
def test_special_characters_in_keys_and_arguments_survive(key: str) -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address)
        whole(transport, b"x", key=key, etl_args=key)
        transport.close()
    url = urlsplit(seen.requests[0].target)
    assert unquote(url.path) == f"/photos/{key}"
    assert parse_qs(url.query, strict_parsing=True) == {"etl_args": [key]}


def test_a_content_type_that_no_header_can_carry_is_not_sent() -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address)
        whole(transport, b"x", content_type="a/b\r\nAuthorization: c")
        transport.close()
    assert seen.requests[0].headers["Content-Type"] == "binary/octet-stream"


def test_the_path_of_a_file_is_sent_instead_of_its_bytes() -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address)
        assert whole(transport, b"bytes", path="/data/100% ä.bin") == b"the result"
        transport.close()
    (request,) = seen.requests
    # AIStore's workers take the parameter for an escaped path
    assert unquote(parse_qs(urlsplit(request.target).query)["etl_fqn"][0]) == "/data/100% ä.bin"
    assert (request.method, request.headers["Content-Length"], request.body) == ("PUT", "0", b"")
    assert request.headers["Transom-Object-Size"] == "5"


def test_a_worker_that_pulls_is_asked_with_get_and_only_where_the_run_says_so() -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address, "pull")
        whole(transport, b"bytes", pulled=True, etl_args="7")
        whole(transport, b"bytes")
        transport.close()
    first, second = seen.requests
    assert (first.method, first.target, first.body) == ("GET", "/photos/cat.jpg?etl_args=7", b"")
    assert "Content-Type" not in first.headers
    assert (second.method, second.body) == ("PUT", b"bytes")


@pytest.mark.parametrize("data", [[], [b"one"], [b"one", b"two"], [b"", b"one", b"", b"two", b""]])
@served_by(every_request(echo))
def test_input_of_unknown_length_arrives_whole(transport: HttpTransport, data: list[bytes]) -> None:
    assert b"".join(run(transport, data, size=None)) == b"".join(data)


def test_a_worker_that_must_be_told_the_length_is_told_it_from_then_on() -> None:
    def picky(wire: Wire, request: Request) -> None:
        if "Transfer-Encoding" in request.headers:
            wire.answer(status="501 Not Implemented")
        else:
            echo(wire, request)

    with stub_worker(every_request(picky)) as worker:
        transport = HttpTransport(worker.address)
        with pytest.raises(WorkerLost, match="length"):
            list(run(transport, [b"one", b"two"], size=None))
        assert b"".join(run(transport, [b"one", b"two"], size=None)) == b"onetwo"
        transport.close()


@pytest.mark.parametrize("size", [2, 9])
@served_by(every_request(echo))
def test_input_of_another_length_than_promised_is_an_error(transport: HttpTransport, size: int) -> None:
    with pytest.raises(EtlFailed, match=r"than the \d bytes promised"):
        list(run(transport, [b"one", b"two"], size=size))


def test_what_the_input_raises_passes_through_and_breaks_the_request_off() -> None:
    requests: Queue[Request | None] = Queue()

    def breaks() -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        raise OSError("the disk")

    with stub_worker(lambda wire: requests.put(wire.request())) as worker:
        transport = HttpTransport(worker.address)
        with pytest.raises(OSError, match="the disk"):
            list(transport.run(a_call(), breaks(), Watch("stub", 20)))
        transport.close()
        request = requests.get(timeout=10)
    assert request is not None
    assert request.body is None


# --- what comes back ---------------------------------------------------------------------------


def in_chunks(wire: Wire, request: Request) -> None:
    body = request.body or b""
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in body:
        wire.send(b"1;x=y\r\n", bytes([byte]), b"\r\n")
    wire.send(b"0\r\nTrailer: x\r\n\r\n")


def after_interim_answers(wire: Wire, request: Request) -> None:
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
    echo(wire, request)


def byte_by_byte(wire: Wire, request: Request) -> None:
    body = request.body or b""
    for byte in b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body):
        wire.send(bytes([byte]))


@pytest.mark.parametrize("answer", [echo, in_chunks, after_interim_answers, byte_by_byte])
@pytest.mark.parametrize("data", [b"", b"the bytes"])
def test_an_answer_is_the_same_however_it_comes(answer: Callable[[Wire, Request], None], data: bytes) -> None:
    with stub_worker(every_request(answer)) as worker:
        transport = HttpTransport(worker.address)
        assert whole(transport, data) == data
        assert whole(transport, data) == data
        transport.close()
    assert worker.served == 1


def stream_back(wire: Wire) -> None:
    """Answer each piece of the request as it comes."""
    while (request := wire.head()) is not None:
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in wire.pieces(request):
            wire.send(b"%x\r\n" % len(piece), piece, b"\r\n")
        wire.send(b"0\r\n\r\n")


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("size", [64 * MIB, None])
def test_a_large_object_streams_through_in_bounded_memory(unix: bool, size: int | None) -> None:
    pulled = 0

    def pieces() -> Iterator[bytes]:
        nonlocal pulled
        for i in range(64):
            pulled += MIB
            yield bytes([i]) * MIB

    with stub_worker(stream_back, unix=unix) as worker:
        transport = HttpTransport(worker.address)
        came = furthest = 0
        for piece in transport.run(a_call(size=size), pieces(), Watch("stub", 60)):
            assert piece.count(came // MIB) == min(len(piece), MIB - came % MIB)
            came += len(piece)
            furthest = max(furthest, pulled - came)
        transport.close()
    assert came == 64 * MIB
    assert (
        furthest <= (8 if unix else 56) * MIB
    )  # what the sockets of both ways hold, which for TCP is the kernel's choice


def test_a_slow_client_holds_the_input_back() -> None:
    pulled = 0

    def pieces() -> Iterator[bytes]:
        nonlocal pulled
        for _ in range(64):
            pulled += MIB
            yield bytes(MIB)

    with stub_worker(stream_back, unix=True) as worker:
        transport = HttpTransport(worker.address)
        output = transport.run(a_call(size=64 * MIB), pieces(), Watch("stub", 60))
        next(output)
        assert pulled <= 4 * MIB
        output.close()
        transport.close()


def test_an_answer_that_is_complete_early_ends_the_sending() -> None:
    pulled: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            pulled.append(1)
            yield bytes(MIB)

    def first_bytes_only(wire: Wire) -> None:
        request = wire.head()
        assert request is not None
        next(wire.pieces(request))
        wire.answer(b"enough")
        wire.is_left()

    with stub_worker(first_bytes_only) as worker:
        transport = HttpTransport(worker.address)
        for _ in range(2):  # and its connection is not used again
            assert b"".join(transport.run(a_call(), endless(), Watch("stub", 20))) == b"enough"
        transport.close()
    assert worker.served == 2


def test_an_answer_is_read_though_the_worker_takes_no_more() -> None:
    def hangs_up(wire: Wire) -> None:
        wire.head()
        wire.answer(b"too much", "413 Content Too Large")

    with stub_worker(hangs_up) as worker:
        transport = HttpTransport(worker.address)
        with pytest.raises(Exception, match="too much"):
            list(transport.run(a_call(), iter([bytes(MIB)] * 64), Watch("stub", 20)))
        transport.close()


def test_a_worker_that_is_slow_both_ways_gets_and_gives_everything() -> None:
    pause = threading.Event()

    def slow(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        for byte in b"abc":
            pause.wait(0.3)  # longer than the transport waits at a time
            wire.send(bytes([byte]))

    with stub_worker(every_request(slow)) as worker:
        transport = HttpTransport(worker.address)
        assert whole(transport, b"x" * MIB) == b"abc"
        transport.close()


def test_a_worker_that_sends_head_and_body_apart_is_not_kept_waiting() -> None:
    def apart(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        wire.send(b"ok")  # which its kernel holds back until the head is acknowledged

    with stub_worker(every_request(apart)) as worker:
        transport = HttpTransport(worker.address)
        began = time.monotonic()
        for _ in range(50):
            assert whole(transport, b"x") == b"ok"
        assert time.monotonic() - began < 50 * 0.02  # an acknowledgement on its own comes after 0.04 s
        transport.close()


# --- bounds ------------------------------------------------------------------------------------


def never_answers(wire: Wire) -> None:
    wire.request()
    wire.is_left()


def never_reads(wire: Wire) -> None:
    PATIENCE.wait(20)


def reads_slowly(wire: Wire) -> None:
    while not PATIENCE.wait(0.05):
        wire.sock.recv(16384)


PATIENCE = threading.Event()


@pytest.fixture
def patience() -> Iterator[None]:
    """What stubs wait for in vain; they are let go at the end."""
    PATIENCE.clear()
    yield
    PATIENCE.set()


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("serve", [never_answers, never_reads, reads_slowly])
def test_a_deadline_ends_the_wait(serve: Serve) -> None:
    with stub_worker(serve) as worker:
        transport = HttpTransport(worker.address)
        with pytest.raises(EtlTimeout):
            list(run(transport, [bytes(MIB)] * 16, timeout_s=0.4))
        transport.close()
        PATIENCE.set()


@served_by(never_answers)
def test_a_run_that_nobody_wants_ends(transport: HttpTransport) -> None:
    watch = Watch("stub", 20)
    threading.Timer(0.1, watch.abandon).start()
    with pytest.raises(AbandonedError):
        list(transport.run(a_call(size=0), iter(()), watch))


def test_closing_the_output_early_closes_the_connection() -> None:
    left = threading.Event()

    def endless(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert wire.is_left()
        left.set()

    with stub_worker(endless) as worker:
        transport = HttpTransport(worker.address)
        output = run(transport, [b"x"])
        assert next(output) == b"abc"
        output.close()
        assert left.wait(10)
        transport.close()


# --- connections -------------------------------------------------------------------------------


@served_by(every_request(echo))
def test_connections_are_used_again(worker: StubWorker, transport: HttpTransport) -> None:
    for i in range(20):
        assert whole(transport, b"%d" % i) == b"%d" % i
    assert worker.served == 1


@pytest.mark.parametrize(
    "head",
    ["HTTP/1.1 200 OK\r\nConnection: close\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n"],
)
def test_a_connection_the_worker_is_done_with_is_not_used_again(head: str) -> None:
    def answers(wire: Wire) -> None:
        wire.request()
        more = b"unasked" if "X: y" in head else b""
        wire.send(f"{head}Content-Length: 2\r\n\r\n".encode() + b"ok" + more)
        wire.is_left()

    with stub_worker(answers) as worker:
        transport = HttpTransport(worker.address)
        assert [whole(transport, b"x") for _ in range(2)] == [b"ok", b"ok"]
        transport.close()
    assert worker.served == 2


def answers_once(wire: Wire) -> None:
    """Take a second request and hang up without a word: as if it had crossed with the end of an idle connection."""
    request = wire.request()
    assert request is not None
    echo(wire, request)
    wire.head()


@pytest.mark.parametrize("data", [[], [b"one"]])
@served_by(answers_once)
def test_a_connection_that_broke_while_idle_costs_nothing(
    worker: StubWorker, transport: HttpTransport, data: list[bytes]
) -> None:
    for _ in range(3):
        assert b"".join(run(transport, data)) == b"".join(data)
    assert worker.served == 3


def answers_once_and_a_half(wire: Wire) -> None:
    """Hang up in the middle of a second request's body."""
    request = wire.request()
    assert request is not None
    echo(wire, request)
    request = wire.head()
    assert request is not None
    read = 0
    for piece in wire.pieces(request):
        read += len(piece)
        if read > 2 * MIB:
            return


@served_by(answers_once_and_a_half)
def test_a_connection_that_broke_while_input_was_used_up_is_told(transport: HttpTransport) -> None:
    assert whole(transport, b"x") == b"x"
    with pytest.raises(WorkerLost):
        list(run(transport, [bytes(MIB)] * 8))


def test_many_at_once_each_get_their_own_result() -> None:
    with stub_worker(every_request(echo), unix=True) as worker:
        transport = HttpTransport(worker.address)

        def one(i: int) -> bool:
            data = b"%d," % i * 20_000
            return whole(transport, data) == data

        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(one, range(200)))
        transport.close()
    assert worker.served <= 16


def test_a_transport_that_is_closed_keeps_no_connection() -> None:
    left = threading.Event()

    def serve(wire: Wire) -> None:
        every_request(echo)(wire)
        left.set()

    with stub_worker(serve) as worker:
        transport = HttpTransport(worker.address)
        transport.close()
        assert whole(transport, b"x") == b"x"
        assert left.wait(10)


def test_the_call_may_name_headers_but_not_break_the_request() -> None:
    seen = Seen()
    with stub_worker(every_request(seen)) as worker:
        transport = HttpTransport(worker.address, host="example.net", prefix="/base/")
        whole(transport, b"x", headers={"Transom-Signature": "abc"})
        with pytest.raises(ValueError, match="header"):
            whole(transport, b"x", headers={"A": "b\r\nC: d"})
        transport.close()
    (request,) = seen.requests
    assert request.target == "/base/photos/cat.jpg"
    assert request.headers["Host"] == "example.net"
    assert request.headers["Transom-Signature"] == "abc"
