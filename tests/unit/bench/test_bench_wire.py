"""The generator's HTTP/1.1 client, fed bytes by hand: whatever way they are cut, the answer is the same."""

import pytest

from transom.bench.wire import BUFFER_SIZE, Expected, Wire

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class FakeTransport:
    def __init__(self):
        self.sent = b""
        self.unsent = 0
        self.closed = False

    def write(self, data):
        self.sent += bytes(data)

    def writelines(self, pieces):
        for piece in pieces:
            self.write(piece)

    def get_write_buffer_size(self):
        return self.unsent

    def close(self):
        self.closed = True

    abort = close


class Connection:
    """A wire on a fake transport, with the outcomes that it announced."""

    def __init__(self):
        self.buffer = bytearray(BUFFER_SIZE)
        self.answers = []
        self.wire = Wire(self.buffer, lambda w: self.answers.append((w.failure, w.status, w.size, w.matches)))
        self.transport = FakeTransport()
        self.wire.connection_made(self.transport)

    def receive(self, data, step=None):
        for at in range(0, len(data), step or len(data)):
            piece = data[at : at + (step or len(data))]
            self.wire.get_buffer(-1)[: len(piece)] = piece
            self.wire.buffer_updated(len(piece))


@pytest.fixture
def connection():
    return Connection()


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nETag: x\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, INTERIM], ids=["sized", "chunked", "interim"])
@pytest.mark.parametrize("step", [None, 1, 2, 3, 7, 20])
def test_answer_is_read_whatever_way_it_is_cut(connection, answer, step):
    pool = b"--hello world--"
    for _ in range(2):  # the connection is reused
        connection.wire.send(REQUEST, None, expected=Expected(pool, 2, 11))
        connection.receive(answer, step)
    assert connection.answers == [("", 200, 11, True)] * 2
    assert connection.wire.reusable


@pytest.mark.parametrize(
    "expected",
    [Expected(b"hello_world", 0, 11), Expected(b"hello world!", 0, 12), Expected(b"hello world", 0, 10)],
    ids=["other byte", "too short", "too long"],
)
@pytest.mark.parametrize("answer", [SIZED, CHUNKED])
def test_other_bytes_do_not_match(connection, expected, answer):
    connection.wire.send(REQUEST, None, expected=expected)
    connection.receive(answer, 4)
    assert connection.answers == [("", 200, 11, False)]


def test_empty_body(connection):
    connection.wire.send(REQUEST, None, expected=Expected(b"", 0, 0))
    connection.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert connection.answers == [("", 200, 0, True)]


def test_head_and_204_have_no_body(connection):
    connection.wire.send(REQUEST, None, head_only=True)
    connection.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    connection.wire.send(REQUEST, None)
    connection.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert connection.answers == [("", 200, 0, True), ("", 204, 0, True)]


def test_body_without_length_ends_with_the_connection(connection):
    connection.wire.send(REQUEST, None)
    connection.receive(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert connection.answers == []
    connection.wire.eof_received()
    assert connection.answers == [("", 200, 5, True)]
    assert not connection.wire.reusable


@pytest.mark.parametrize("answer", [SIZED[:-1], CHUNKED[:-2], SIZED[:20], b""])
def test_connection_that_ends_early_is_a_failure(connection, answer):
    connection.wire.send(REQUEST, None)
    if answer:
        connection.receive(answer)
    connection.wire.eof_received()
    connection.wire.connection_lost(None)
    assert [failure for failure, *_ in connection.answers] == ["ConnectionClosed"]


def test_error_body_is_kept_and_not_compared(connection):
    connection.wire.send(REQUEST, None, expected=Expected(b"x", 0, 1))
    connection.receive(b"HTTP/1.1 404 Not Found\r\nContent-Length: 25\r\n\r\n<Code>NoSuchKey</Code>   ", 10)
    assert connection.wire.kept.startswith(b"<Code>NoSuchKey</Code>")
    assert not connection.wire.succeeded


def test_headers_are_found_by_lower_case_name(connection):
    connection.wire.send(REQUEST, None)
    connection.receive(b'HTTP/1.1 200 OK\r\nETag:  "ABC" \r\nCONTENT-LENGTH: 0\r\n\r\n')
    assert connection.wire.header(b"etag") == b'"abc"'
    assert connection.wire.header(b"missing") == b""


@pytest.mark.parametrize(
    ("answer", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    ],
)
def test_connection_is_reused_only_when_the_server_keeps_it(connection, answer, reusable):
    connection.wire.send(REQUEST, None)
    connection.receive(answer)
    assert connection.wire.reusable is reusable


def test_answer_before_the_request_is_out_costs_the_connection(connection):
    connection.transport.unsent = 1000
    connection.wire.send(REQUEST, memoryview(b"body"))
    connection.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert connection.answers == [("", 403, 0, True)]
    assert not connection.wire.reusable


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    ],
)
def test_what_is_not_http_fails_the_request(connection, answer):
    connection.wire.send(REQUEST, None)
    connection.receive(answer)
    assert connection.answers[0][0].startswith("BadAnswer")
    assert connection.transport.closed


def test_bytes_that_nobody_asked_for_close_the_connection(connection):
    connection.wire.send(REQUEST, None)
    connection.receive(SIZED + b"more")
    assert connection.answers == [("", 200, 11, True)]
    assert connection.transport.closed


def test_failed_request_is_announced_once(connection):
    connection.wire.send(REQUEST, None)
    connection.wire.fail("Timeout")
    connection.wire.connection_lost(ConnectionResetError())
    assert [failure for failure, *_ in connection.answers] == ["Timeout"]


def test_body_is_sent_after_the_head(connection):
    connection.wire.send(REQUEST, memoryview(b"body"))
    assert connection.transport.sent == REQUEST + b"body"
