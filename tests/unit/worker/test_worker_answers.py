"""What an SDK worker answers over HTTP: results, every kind of error, and what it makes of a request."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from worker_runs import InProcess, as_json, received_all

from transom.worker import Context, Reject, Skip, Worker

Serving = Callable[..., InProcess]


def told(data: bytes, context: Context) -> bytes:
    facts = {name: getattr(context, name) for name in ("bucket", "key", "etl", "args", "content_type", "size")}
    return json.dumps({**facts, "length": len(data)}).encode()


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_result_is_what_the_transform_made_of_the_body(serving: Serving, size: int, chunked: bool) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    worker = serving(lambda data: data[::-1])
    given = iter([data[start : start + 70_000] for start in range(0, size, 70_000)]) if chunked else data
    assert worker.put(given) == (200, data[::-1])


def test_health_is_running(serving: Serving) -> None:
    status, body, _ = serving(told).ask("GET", "/health")
    assert (status, body) == (200, b"Running")


def test_health_is_503_until_the_worker_has_started(serving: Serving) -> None:
    worker = serving(told)
    worker.service.ready = False
    assert worker.ask("GET", "/health")[0] == 503
    status, _, headers = worker.ask("PUT", "/b/k", b"x")
    assert (status, headers["retry-after"]) == (503, "1")


def test_context_tells_of_the_object(serving: Serving) -> None:
    worker = serving(told, etl="tell")
    status, body = worker.put(b"12345", "b/a key/ü+%/x?y#z.txt", '{"n": 1}', Content_Type="text/plain")
    assert status == 200
    assert as_json(body) == {
        "bucket": "b",
        "key": "a key/ü+%/x?y#z.txt",
        "etl": "tell",
        "args": {"n": 1},
        "content_type": "text/plain",
        "size": 5,
        "length": 5,
    }


def test_size_of_a_chunked_body_is_what_the_header_says(serving: Serving) -> None:
    worker = serving(told)
    assert as_json(worker.put(iter([b"ab", b"c"]))[1])["size"] is None
    assert as_json(worker.put(iter([b"ab", b"c"]), Transom_Object_Size="3")[1])["size"] == 3


@pytest.mark.parametrize(
    ("text", "args"),
    [("", None), ("5", 5), ('"5"', "5"), ("plain text", "plain text"), ("NaN", "NaN"), ("[1, null]", [1, None])],
)
def test_args_are_json_or_else_the_text(serving: Serving, text: str, args: Any) -> None:
    assert as_json(serving(told).put(b"", args=text)[1])["args"] == args


def test_deadline_comes_from_its_header(serving: Serving) -> None:
    worker = serving(lambda _, context: b"%d" % context.remaining_s() if context.deadline < float("inf") else b"none")
    assert worker.put(b"")[1] == b"none"
    assert worker.put(b"", Transom_Deadline_Ms="60500")[1] == b"60"


def test_metadata_comes_from_its_headers(serving: Serving) -> None:
    worker = serving(lambda _, context: json.dumps(dict(context.metadata)).encode())
    headers = {"Transom_Meta_camera": "Gr%C3%B6%C3%9Fe%205", "Transom_Meta_two_words": "a%2C%20b", "Transom_Metal": "x"}
    assert as_json(worker.put(b"", **headers)[1]) == {"camera": "Größe 5", "two-words": "a, b"}
    assert as_json(worker.put(b"")[1]) == {}


def test_why_an_object_is_left_out_is_told(serving: Serving) -> None:
    assert serving(raising(Skip("too sm\u00e4ll"))).ask("PUT", "/b/k", b"")[2]["transom-message"] == "too%20sm%C3%A4ll"


def test_what_comes_back_has_the_declared_content_type_or_else_the_inputs(serving: Serving) -> None:
    class Declared(Worker):
        content_type = "image/png"

        def transform(self, data: bytes, context: Context) -> bytes:
            return data

    assert serving(Declared).ask("PUT", "/b/k", b"", Content_Type="a/b")[2]["content-type"] == "image/png"
    assert serving(told).ask("PUT", "/b/k", b"", Content_Type="a/b")[2]["content-type"] == "a/b"


def raising(error: BaseException) -> Callable[[bytes], bytes]:
    def transform(_: bytes) -> bytes:
        raise error

    return transform


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (Skip("not this one"), 204, b""),
        (Reject("no image: it is empty"), 422, b"no image: it is empty"),
        (ValueError("what a mess"), 500, b"ValueError: what a mess"),
        (SystemExit(3), 500, b"SystemExit: 3"),
        (Reject("x" * 5000), 422, b"x" * 1000),
        (Reject("\udc80"), 422, b"?"),
    ],
    ids=["skip", "reject", "failed", "exit", "long", "unprintable"],
)
def test_what_is_raised_decides_the_answer(serving: Serving, error: BaseException, status: int, body: bytes) -> None:
    worker = serving(raising(error))
    got, said, headers = worker.ask("PUT", "/b/k", b"data")
    assert (got, said) == (status, body)
    assert headers.get("transom-outcome") == ("skip" if status == 204 else None)


@pytest.mark.parametrize("result", [None, "text", 5])
def test_a_result_that_is_no_bytes_is_a_failure(serving: Serving, result: object) -> None:
    status, body = serving(lambda _: result).put(b"data")
    assert status == 500
    assert body == f"TypeError: transform gave {type(result).__name__} where bytes are due".encode()


def test_failure_before_the_first_piece_is_an_answer(serving: Serving) -> None:
    class Late(Worker):
        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            yield b""
            raise Reject(b"".join(chunks).decode())

    assert serving(Late).put(b"why") == (422, b"why")


class Half(Worker):
    def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
        yield b"half of it"
        raise ValueError("the rest is lost")


def test_failure_in_a_small_result_is_an_answer_too(serving: Serving) -> None:
    worker, answers = serving(Half), []
    for _ in range(20):  # what is small is held back for a moment only, which a busy machine may let pass
        with contextlib.suppress(IncompleteRead, ConnectionResetError):  # reset: it has not read what it was sent
            answers.append(worker.put(b"data"))
            break
    assert answers == [(500, b"ValueError: the rest is lost")]


def test_failure_once_a_piece_is_out_breaks_the_answer_off(serving: Serving) -> None:
    with serving(Half).socket() as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        answer = received_all(sock)
    assert b"half of it" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_output_is_bounded(serving: Serving) -> None:
    worker = serving(lambda data: data * 10, max_output=99)
    assert worker.put(b"123456789") == (200, b"123456789" * 10)
    assert worker.put(b"1234567890") == (500, b"OutputTooLarge: it made more than 99 bytes")


def test_streamed_output_is_bounded(serving: Serving) -> None:
    class Endless(Worker):
        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            while True:
                yield b"x" * 10

    worker = serving(Endless, max_output=95)
    assert worker.put(b"") == (500, b"OutputTooLarge: it made more than 95 bytes")
    with worker.socket() as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = received_all(sock)
    assert answer.count(b"x" * 10) == 9
    assert not answer.endswith(b"0\r\n\r\n")


class FileWorker(Worker):
    def transform_file(self, path: Path, context: Context) -> Path:
        output = path.with_name("output")
        output.write_bytes(path.suffix.encode() + path.read_bytes())
        return output


@pytest.mark.parametrize("size", [0, 3, 3_000_000])
def test_file_shape_reads_a_file_and_answers_with_one(serving: Serving, size: int) -> None:
    assert serving(FileWorker).put(b"x" * size, "b/cat.jpg") == (200, b".jpg" + b"x" * size)


def test_async_shapes_work_too(serving: Serving) -> None:
    class Slow(Worker):
        async def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Any:
            for chunk in chunks:
                yield chunk.upper()

    async def transform(data: bytes) -> bytes:
        return data.upper()

    assert serving(Slow).put(b"abc") == (200, b"ABC")
    assert serving(transform).put(b"abc") == (200, b"ABC")


def test_direct_file_is_read_in_place_below_its_root_only(serving: Serving, tmp_path: Path) -> None:
    root, other = tmp_path / "objects", tmp_path / "objects-of-others"
    for folder in (root, other):
        folder.mkdir()
        (folder / "a%20 b").write_bytes(b"stored")
    (root / "link").symlink_to(other / "a%20 b")
    worker = serving(told, direct_root=str(root))

    def status(path: Path) -> int:
        return worker.ask("PUT", f"/b/k?etl_fqn={quote(quote(str(path)))}", b"")[0]

    assert status(root / "a%20 b") == 200
    assert status(root / "missing") == 404
    assert status(root) == 403
    assert status(other / "a%20 b") == 403
    assert status(root / ".." / "objects-of-others" / "a%20 b") == 403
    assert status(root / "link") == 403
    status_, body, _ = worker.ask("GET", f"/b/k?etl_fqn={root}/a%252520+b", None)
    assert (status_, as_json(body)["size"], as_json(body)["length"]) == (200, 6, 6)


def test_direct_file_is_refused_unless_allowed(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert serving(told).ask("PUT", f"/b/k?etl_fqn={tmp_path / 'f'}", b"")[0] == 403


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"PUT /b/k HTTP/1.0\r\n\r\n", 505),
        (b"PUT b/k HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nContent-Length : 1\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"PUT /b/%ff HTTP/1.1\r\n\r\n", 400),
        (b"PUT /b/k?etl_args=1&etl_args=2 HTTP/1.1\r\n\r\n", 400),
        (b"PUT /b/k?etl_args=%ff HTTP/1.1\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nTransom-Object-Size: big\r\n\r\n", 400),
        (b"POST /b/k HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /b/k HTTP/1.1\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nX: " + b"x" * 300_000, 431),
    ],
)
def test_a_bad_request_is_refused(serving: Serving, request_bytes: bytes, status: int) -> None:
    with serving(told).socket() as sock:
        sock.sendall(request_bytes)
        sock.shutdown(socket.SHUT_WR)
        assert received_all(sock).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("body", [b"5\r\nab", b"zz\r\nabc\r\n", b"2\r\nabc\r\n0\r\n\r\n", b"\r\n", b"5" * 300_000])
def test_half_a_body_is_never_transformed(serving: Serving, body: bytes) -> None:
    class Believing(Worker):
        """Takes the end of its input, however it ends, for a good one."""

        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            try:
                yield from chunks
            except Exception:
                yield b"the end"

    with serving(Believing).socket() as sock:
        with contextlib.suppress(OSError):  # it may have had enough before all is sent
            sock.sendall(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
            sock.shutdown(socket.SHUT_WR)
        assert not received_all(sock).endswith(b"0\r\n\r\n")


def test_a_body_is_asked_for_where_its_sender_waits(serving: Serving) -> None:
    with serving(lambda data: data).socket() as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(1000).endswith(b"\r\n\r\nabc")


def test_a_body_is_not_asked_for_where_the_answer_needs_none(serving: Serving) -> None:
    with serving(told).socket() as sock:
        sock.sendall(b"PUT /b/k?etl_fqn=/etc/passwd HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 403 ")


def test_a_malformed_rest_ends_the_connection_after_the_answer(serving: Serving) -> None:
    class Hasty(Worker):
        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            yield next(iter(chunks))

    with serving(Hasty).socket() as sock:
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nnonsense\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert received_all(sock).endswith(b"2\r\nab\r\n0\r\n\r\n")


def test_one_connection_takes_many_objects(serving: Serving) -> None:
    client = serving(lambda data: data + b"!").client()
    sockets = set()
    for number in range(5):
        client.request("PUT", "/b/k", b"%d" % number)
        assert client.getresponse().read() == b"%d!" % number
        sockets.add(client.sock)
    client.close()
    assert len(sockets) == 1


@pytest.mark.parametrize("size", [1000, 5_000_000, 40_000_000])
def test_an_answer_before_the_end_of_the_body_arrives(serving: Serving, size: int) -> None:
    class Hasty(Worker):
        def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
            raise Reject("not even looked at")

    worker = serving(Hasty)
    with worker.socket() as sock:
        sender = threading.Thread(target=_sent, args=(sock, size))
        sender.start()
        answer = sock.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 422 ")
        assert answer.endswith(b"not even looked at")
        sender.join()


def _sent(sock: socket.socket, size: int) -> None:
    with contextlib.suppress(OSError):  # the worker may have heard enough
        sock.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)


def test_fifty_at_once_are_all_answered_and_no_more_than_allowed_run(serving: Serving) -> None:
    running, most = [], []

    def transform(data: bytes) -> bytes:
        running.append(1)
        most.append(len(running))
        time.sleep(0.005)
        running.pop()
        return data * 2

    worker = serving(transform, concurrency=8)
    results: list[tuple[int, bytes]] = []
    threads = [threading.Thread(target=lambda n=n: results.append(worker.put(b"%d" % n))) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((200, b"%d" % n * 2) for n in range(50))
    assert max(most) <= 8


def test_a_busy_worker_says_so_at_the_deadline(serving: Serving) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def transform(_: bytes) -> bytes:
        begun.set()
        go_on.wait(10)
        return b"done"

    worker = serving(transform, concurrency=1)
    first: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: first.append(worker.put(b"")))
    thread.start()
    assert begun.wait(10)
    status, _, headers = worker.ask("PUT", "/b/k", b"", Transom_Deadline_Ms="50")
    assert (status, headers["retry-after"]) == (503, "1")
    assert worker.ask("GET", "/health")[0] == 200
    go_on.set()
    thread.join()
    assert first == [(200, b"done")]


def test_what_takes_too_long_to_end_is_not_waited_for(serving: Serving) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def transform(_: bytes) -> bytes:
        begun.set()
        go_on.wait(10)
        return b"done"

    worker = serving(transform)
    answers: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: answers.append(worker.put(b"")))
    thread.start()
    assert begun.wait(10)
    assert not worker.stop(0.05)
    go_on.set()
    thread.join()
    assert answers == [(200, b"done")]
