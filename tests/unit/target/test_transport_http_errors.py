"""What a worker's answers mean: an error is never mistaken for an empty result, nor half a result for a whole one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET

import pytest

from tests.stub_workers import Request, StubWorker, Wire, a_call, every_request, stub_worker
from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlDisconnected, EtlFailed, EtlUnavailable
from transom.target.etl.transports import sockets
from transom.target.etl.transports.base import Address, Unreachable, WorkerLost
from transom.target.etl.transports.http import HttpTransport
from transom.target.etl.watch import Watch

pytestmark = pytest.mark.usefixtures("either_way")


def outcome_of(serve: Callable[[Wire], object], **call: object) -> tuple[bytes, Exception | None]:
    """What was handed on, and what was raised then."""
    with stub_worker(serve) as worker:
        return outcome_at(worker.address, **call)


def outcome_at(address: Address, **call: object) -> tuple[bytes, Exception | None]:
    transport = HttpTransport(address, "pull")
    came = b""
    try:
        for piece in transport.run(a_call(size=1, **call), iter([b"x"]), Watch("stub", 20)):
            came += piece
    except Exception as error:
        return came, error
    finally:
        transport.close()
    return came, None


def answering(status: str, headers: str = "", body: bytes = b"") -> Callable[[Wire], None]:
    def answer(wire: Wire, request: Request) -> None:
        if status.startswith("204"):
            wire.send(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())
        else:
            wire.answer(body, status, headers)

    return every_request(answer)


PLAIN, JSON, HTML = (f"Content-Type: {kind}\r\n" for kind in ("text/plain", "application/json", "text/html"))


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "message"),
    [
        ("204 No Content", "", b"", EtlFailed, "delivered the result elsewhere"),
        ("204 No Content", "Ais-Direct-Put-Length: 5\r\n", b"", EtlFailed, "delivered the result elsewhere"),
        ("204 No Content", "Transom-Outcome: skip\r\n", b"", Skip, "^$"),
        ("204 No Content", "Transom-Outcome: skip\r\nTransom-Message: too%20sm%C3%A4ll\r\n", b"", Skip, "^too smäll$"),
        ("429 Too Many", "", b"at work", WorkerLost, "at work"),
        ("429 Too Many", "Retry-After: 1\r\n", b"", WorkerLost, "Too Many"),
        ("200 OK", "Transom-Outcome: skip\r\n", b"", None, ""),
        ("201 Created", "", b"x", EtlFailed, "status 201"),
        ("206 Partial Content", "", b"x", EtlFailed, "status 206"),
        ("302 Found", "Location: /x\r\n", b"", EtlFailed, "status 302"),
        ("400 Bad Request", PLAIN, b"no image", Reject, "^no image$"),
        ("404 Not Found", JSON, b'{"detail":"file not found"}', Reject, "^file not found$"),
        ("413 Too Large", "", b"", Reject, "^Too Large$"),
        ("422 Unprocessable", JSON, b'{"detail":[{"loc":1}]}', Reject, r'^\[\{"loc": 1\}\]$'),
        ("422 Unprocessable", JSON, b'{"detail":', Reject, r'^\{"detail":$'),
        ("500 Internal Server Error", JSON, b'{"error":"bad luck"}', EtlFailed, "^ETL 'stub' failed: bad luck$"),
        ("500 It broke", HTML, b"<html>a page</html>", EtlFailed, "^ETL 'stub' failed: It broke$"),
        ("500 ", "", b"\x00\xff lines\nof text\r\n", EtlFailed, "failed: \ufffd lines of text$"),
        ("502 Bad Gateway", "", b"no more tries", EtlFailed, "no more tries"),
        ("503 Busy", "", b"", EtlFailed, "Busy"),
        ("503 Busy", "Retry-After: 1\r\n", b"", WorkerLost, "Busy"),
        ("503 Busy", f"Retry-After: {'9' * 5000}\r\n", b"", WorkerLost, "Busy"),
        ("503 Busy", "Ais-Etl-Retry-Reason: direct-put-transient\r\n", b"later", WorkerLost, "later"),
        ("507 Full", "", b"", EtlFailed, "Full"),
        ("599 Odd", "", b"", EtlFailed, "Odd"),
    ],
)
def test_each_status_has_its_meaning(
    status: str, headers: str, body: bytes, kind: type[Exception] | None, message: str
) -> None:
    came, error = outcome_of(answering(status, headers, body))
    assert came == b""
    if kind is None:
        assert error is None
        return
    with pytest.raises(kind, match=message) as caught:
        raise error or AssertionError("no error")
    assert type(caught.value) is kind


def test_a_worker_that_pulls_and_finds_nothing_rejects() -> None:
    assert isinstance(outcome_of(answering("404 Not Found"), pulled=True)[1], Reject)


def test_the_text_of_an_error_is_bounded() -> None:
    _, error = outcome_of(answering("500 Oh", PLAIN, b"e" * 1_000_000))
    assert len(str(error)) <= 1000 + len("ETL 'stub' failed: ")


def test_after_an_error_the_connection_goes_on() -> None:
    with stub_worker(answering("400 Bad", PLAIN, b"no")) as worker:
        transport = HttpTransport(worker.address)
        for _ in range(3):
            with pytest.raises(Reject):
                list(transport.run(a_call(size=1), iter([b"x"]), Watch("stub", 20)))
        transport.close()
    assert worker.served == 1


def sending(*parts: bytes, reset: bool = False) -> Callable[[Wire], None]:
    """Send just this after a request, and hang up."""

    def serve(wire: Wire) -> None:
        wire.request()
        wire.send(*parts)
        if reset:
            wire.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("@ii", 1, 0))

    return serve


OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 10\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", WorkerLost),
        (b"HTTP/1.1 200", WorkerLost),
        (b"HTTP/1.1 100 Continue\r\n\r\n", WorkerLost),
        (SIZED, WorkerLost),
        (SIZED + b"half", EtlDisconnected),
        (CHUNKED, WorkerLost),
        (CHUNKED + b"5\r\n", WorkerLost),
        (CHUNKED + b"5\r\nha", EtlDisconnected),
        (CHUNKED + b"4\r\nhalf\r\n", EtlDisconnected),
        (CHUNKED + b"4\r\nhalf\r\n0\r\n", EtlDisconnected),
    ],
)
def test_half_an_answer_is_an_error(sent: bytes, kind: type[Exception], reset: bool) -> None:
    came, error = outcome_of(sending(sent, reset=reset))
    if reset and isinstance(error, WorkerLost):
        return  # the reset overtook what was sent
    assert type(error) is kind, error
    assert b"half".startswith(came)


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        OK + b"no header\r\n\r\n",
        OK + b"Content-Length: 1\r\n folded\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        OK + b"Content-Length: -1\r\n\r\nx",
        OK + b"Content-Length: 0x1\r\n\r\nx",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"f" * 17 + b"\r\n",
        OK + b"A: " + b"b" * 70_000 + b"\r\n\r\n",
        OK + b"A: b\r\n" * 20_000,
        CHUNKED + b"1;" + b"x" * 100_000,
    ],
)
def test_what_is_no_http_is_an_error(sent: bytes) -> None:
    came, error = outcome_of(sending(sent))
    assert came in (b"", b"a")
    assert type(error) is EtlFailed
    assert "no HTTP" in str(error)


def test_nobody_at_the_address_is_a_lost_worker(tmp_path: object) -> None:
    with stub_worker(sending()) as worker:
        gone = worker.address
    for address in (gone, Address(unix=f"{tmp_path}/no.sock"), Address(host="127.0.0.1", port=1, netns_pid=2**30)):
        _, error = outcome_at(address)
        assert type(error) is Unreachable
        assert str(address) not in str(error)


def test_an_address_that_may_not_be_used_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError

    monkeypatch.setattr(sockets, "_enter_netns", refuse)
    _, error = outcome_at(Address(host="127.0.0.1", port=80, netns_pid=1))
    assert type(error) is EtlUnavailable
    assert "network: true" in str(error)


# --- bodies that end with the connection -------------------------------------------------------

UNSIZED = b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6\r\nDate: Fri, 27 Nov 2026 13:20:09 GMT\r\n\r\n"
LATE = (
    b"HTTP/1.0 500 Internal error\r\nServer: BaseHTTP/0.6\r\nDate: Fri, 27 Nov 2026 13:20:%02d GMT\r\n"
    b"Connection: close\r\nContent-Length: 6\r\n\r\n<html>"
)


@pytest.mark.parametrize("body", [b"", b"the bytes", b"x" * 300_000, LATE % 8, LATE % 9 + b"x", LATE[:-1] % 9])
def test_a_body_without_a_length_ends_with_the_connection(body: bytes) -> None:
    assert outcome_of(sending(UNSIZED, body)) == (body, None)


@pytest.mark.parametrize("before", [b"", b"some", b"x" * 300_000])
def test_a_second_answer_at_its_end_is_the_failure_that_it_tells(before: bytes) -> None:
    came, error = outcome_of(sending(UNSIZED, before, LATE % 9))
    assert before.startswith(came)
    assert type(error) is EtlFailed
    assert str(error) == "ETL 'stub' failed: Internal error"


@pytest.mark.parametrize(("body", "kind"), [(b"half", WorkerLost), (b"x" * 300_000, EtlDisconnected)])
def test_a_body_without_a_length_is_half_where_its_worker_is_gone(body: bytes, kind: type[Exception]) -> None:
    workers: list[StubWorker] = []

    def dies(wire: Wire) -> None:
        sending(UNSIZED, body)(wire)
        workers[0].stop_listening()

    with stub_worker(dies) as worker:
        workers.append(worker)
        assert type(outcome_at(worker.address)[1]) is kind


@pytest.mark.parametrize("sent", [UNSIZED, UNSIZED + b"x" * 300_000])
def test_a_reset_is_no_end_of_a_body(sent: bytes) -> None:
    _, error = outcome_of(sending(sent, reset=True))
    assert type(error) in (WorkerLost, EtlDisconnected)
