"""hpull and hrev: the worker gets the object itself, from the address it was told, and says what came of that."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from worker_runs import InProcess, received_all

from transom.worker import Context, Worker
from transom.worker.pulling import Puller

Serving = Callable[..., InProcess]
FOUND = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\r\nabc"


class Target:
    """Plays a target: answers every request with the next of `answers`, on connections that close after `keep`."""

    def __init__(self, listener: socket.socket, *answers: bytes, keep: int = 100) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = listener
        self._answers = list(answers)
        self._keep = keep
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while self._answers:
            sock, _ = self._listener.accept()
            self.connections += 1
            with sock:
                for _ in range(self._keep):
                    request = sock.recv(10_000)
                    if not request or not self._answers:
                        break
                    self.requests.append(request)
                    sock.sendall(self._answers.pop(0))

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def target_url(listener: socket.socket) -> str:
    return "http://{}:{}/v1/etl/_object/e/secret/".format(*listener.getsockname())


def pulled(worker: InProcess, path: str = "/b/a%20k") -> tuple[int, bytes]:
    status, body, _ = worker.ask("GET", path)
    return status, body


def pulled_again_and_again(worker: InProcess) -> list[tuple[int, bytes]]:
    """Pull three times, each once the worker has put the connection of the one before away."""
    answers = []
    for _ in range(3):
        answers.append(pulled(worker))
        give_up = time.monotonic() + 10
        while not worker.service.puller.idle and time.monotonic() < give_up:
            time.sleep(0.001)
    return answers


def test_object_is_got_below_the_targets_address(serving: Serving, listener: socket.socket) -> None:
    target = Target(listener, FOUND, keep=1)
    worker = serving(
        lambda d, c: repr((d, c.key, c.args, c.content_type, c.size)).encode(), target_url=target_url(listener)
    )
    assert pulled(worker, "/b/a%20k?etl_args=5") == (200, repr((b"abc", "a k", 5, "text/x", 3)).encode())
    target.join()
    assert target.requests[0].startswith(b"GET /v1/etl/_object/e/secret/b/a%20k HTTP/1.1\r\n")


def test_target_may_listen_on_a_unix_socket(serving: Serving, short_folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_folder / "target"))
        listener.listen()
        target = Target(listener, FOUND, keep=1)
        url = f"http+unix://{quote(str(short_folder / 'target'), safe='')}/prefix"
        worker = serving(lambda data: data.upper(), target_url=url)
        assert pulled(worker) == (200, b"ABC")
        target.join()
    assert target.requests[0].startswith(b"GET /prefix/b/a%20k HTTP/1.1\r\n")


def test_connection_to_the_target_is_kept(serving: Serving, listener: socket.socket) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    target = Target(listener, FOUND, chunked, FOUND)
    worker = serving(lambda data: data, target_url=target_url(listener))
    assert pulled_again_and_again(worker) == [(200, b"abc")] * 3
    worker.stop()
    target.join()
    assert target.connections == 1


def test_a_kept_connection_that_was_closed_is_replaced(serving: Serving, listener: socket.socket) -> None:
    target = Target(listener, FOUND, FOUND, FOUND, keep=1)
    worker = serving(lambda data: data, target_url=target_url(listener))
    assert pulled_again_and_again(worker) == [(200, b"abc")] * 3
    target.join()
    assert target.connections == 3


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", 404, b"gone"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, b"the target has no such object"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 502, b"the target answered 403 no"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503, b"the target answered 503"),
        (b"HTTP/1.1 200 OK\r\n\r\n", 502, b"the target's answer has no length"),
        (b"nonsense\r\n\r\n", 502, b"the target's answer is no HTTP/1.1"),
        (b"", 503, b"the target can't be reached: it closed the connection"),
        (FOUND[:-1], 503, b"the target broke off"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_target_refuses_is_an_error(
    serving: Serving, listener: socket.socket, answer: bytes, status: int, said: bytes, streamed: bool
) -> None:
    class Whole(Worker):
        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            yield b"".join(chunks)

    target = Target(listener, answer, keep=1)
    worker = serving(Whole if streamed else lambda data: data, target_url=target_url(listener))
    assert pulled(worker) == (status, said)
    target.join()


def test_a_target_that_breaks_off_breaks_a_begun_answer_off(serving: Serving, listener: socket.socket) -> None:
    class Echo(Worker):
        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            try:
                yield from chunks
            except Exception:
                yield b"the end"

    target = Target(listener, FOUND[:-1], keep=1)
    with serving(Echo, target_url=target_url(listener)).socket() as sock:
        sock.sendall(b"GET /b/k HTTP/1.1\r\n\r\n")
        answer = received_all(sock)
    target.join()
    assert b"\r\nab" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_target_that_isnt_there_is_worth_another_try(serving: Serving, listener: socket.socket) -> None:
    url = target_url(listener)
    listener.close()
    status, _, headers = serving(lambda data: data, target_url=url).ask("GET", "/b/k")
    assert (status, headers["retry-after"]) == (503, "1")


def test_without_a_target_there_is_nothing_to_get(serving: Serving) -> None:
    assert pulled(serving(lambda data: data))[0] == 400


@pytest.mark.parametrize("url", ["ftp://x/", "127.0.0.1:80", "http:///x"])
def test_a_target_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="AIS_TARGET_URL"):
        Puller(url)
