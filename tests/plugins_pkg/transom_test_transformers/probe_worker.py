"""A worker that does what its arguments say, as every kind there is: all runtimes and transports are held to one table.

Our SDK serves `transform_stream`. `probe_worker.py KIND` is the rest: `sdk` and `io` by our SDK too, `http` by Python's
own server on a TCP port, `once` for one object on standard input, `once INPUT OUTPUT` in files. It needs nothing but
Python's own library, and no file but this.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PIECE = 256 * 1024
REJECTED, SKIPPED = 65, 100


class Rejected(Exception):
    """The input can't be transformed."""


class Skipped(Exception):
    """The object is to be left out."""


class Task(NamedTuple):
    """One object, and what the worker was told of it."""

    args_text: str
    bucket: str
    key: str
    content_type: str

    @property
    def args(self) -> dict[str, Any]:
        """The arguments, where they are an object."""
        try:
            given = json.loads(self.args_text)
        except ValueError:
            return {}
        return given if isinstance(given, dict) else {}


def act(task: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Do what the argument `do` says; without one, answer with the arguments."""
    sys.stderr.write("a worker may say what it likes\n")
    yield from _ACTS[task.args.get("do", "args")](task, chunks)


def _told(task: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield "".join(f"{each}\n" for each in (task.bucket, task.key, task.content_type)).encode()
    yield from chunks


def _each(change: Callable[[bytes], bytes]) -> Callable[[Task, Iterable[bytes]], Iterator[bytes]]:
    return lambda _, chunks: map(change, chunks)


def _whole(change: Callable[[bytes], bytes]) -> Callable[[Task, Iterable[bytes]], Iterator[bytes]]:
    return lambda _, chunks: iter([change(b"".join(chunks))])


def _append(task: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield from chunks
    yield task.args["text"].encode()


def _grow(task: Task, _: Iterable[bytes]) -> Iterator[bytes]:
    left = task.args["size"]
    while left:
        size = min(left, PIECE)
        yield b"g" * size
        left -= size


def _trickle(_: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for byte in b"".join(chunks):
        time.sleep(0.02)
        yield bytes((byte,))


def _fail(task: Task, _: Iterable[bytes]) -> Iterator[bytes]:
    raise ValueError(task.args.get("message", ""))
    yield b""


def _reject(task: Task, _: Iterable[bytes]) -> Iterator[bytes]:
    raise Rejected(task.args.get("message", ""))
    yield b""


def _skip(_: Task, __: Iterable[bytes]) -> Iterator[bytes]:
    raise Skipped
    yield b""


def _late(task: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield from _grow(task, chunks)
    yield from _ACTS[task.args["then"]](task, chunks)


def _slow(task: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    time.sleep(task.args["seconds"])
    yield from chunks


def _crash(_: Task, __: Iterable[bytes]) -> Iterator[bytes]:
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(9)  # the first process of a container can't be killed by itself
    yield b""


def _flaky(task: Task, chunks: Iterable[bytes]) -> Iterator[bytes]:
    folder = Path(os.environ["TRANSOM_SOCKET"]).parent  # which outlives the worker
    died = folder / hashlib.md5(task.key.encode()).hexdigest()
    if died.exists():
        yield from chunks
    else:
        died.touch()
        yield from _crash(task, chunks)


def _nothing(_: Task, __: Iterable[bytes]) -> Iterator[bytes]:
    return iter(())


def _args(task: Task, _: Iterable[bytes]) -> Iterator[bytes]:
    yield task.args_text.encode()


_ACTS: dict[str, Callable[[Task, Iterable[bytes]], Iterator[bytes]]] = {
    "args": _args,
    "told": _told,
    "echo": _each(bytes),
    "upper": _each(bytes.upper),
    "reverse": _whole(lambda data: data[::-1]),
    "length": _whole(lambda data: str(len(data)).encode()),
    "md5": _whole(lambda data: hashlib.md5(data).hexdigest().encode()),
    "append": _append,
    "grow": _grow,
    "trickle": _trickle,
    "empty": _nothing,
    "raise": _fail,
    "late": _late,
    "reject": _reject,
    "skip": _skip,
    "slow": _slow,
    "crash": _crash,
    "flaky": _flaky,
}


def transform_stream(chunks: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """Do it by our SDK."""
    from transom.worker import Reject, Skip

    try:
        yield from act(Task(context.args_text, context.bucket, context.key, context.content_type), chunks)
    except Rejected as error:
        raise Reject(str(error)) from None
    except Skipped as error:
        raise Skip(str(error)) from None


def once(files: list[str]) -> None:
    """Do it for one object as a program of its own: what happened is in the exit code."""
    env = os.environ
    task = Task(env["TRANSOM_ARGS"], env["TRANSOM_BUCKET"], env["TRANSOM_KEY"], env["TRANSOM_CONTENT_TYPE"])
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(Path(files[0]).open("rb")) if files else sys.stdin.buffer
        result = stack.enter_context(Path(files[1]).open("wb", buffering=0)) if files else sys.stdout.buffer
        try:
            for piece in act(task, iter(lambda: source.read(PIECE), b"")):
                result.write(piece)
                result.flush()
        except Rejected as error:
            _leave(REJECTED, str(error))
        except Skipped as error:
            _leave(SKIPPED, str(error))
        except Exception as error:
            _leave(1, f"{type(error).__name__}: {error}")


def _leave(code: int, words: str) -> None:
    sys.stderr.write(words + "\n")
    sys.exit(code)


def serve_http() -> None:
    """Do it as a server that knows nothing of our SDK, on a TCP port."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # slow to import, for a program of one object

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        do_GET = _get  # noqa: N815 - as its base has it
        do_PUT = _put  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    Server(("127.0.0.1", int(os.environ["TRANSOM_PORT"])), Handler).serve_forever()


def _get(handler: Any) -> None:
    from urllib.request import urlopen

    if handler.path == "/health":
        _answer(handler, 200, b"Running")
        return
    with urlopen(os.environ["AIS_TARGET_URL"] + handler.path, timeout=30) as pulled:
        _respond(handler, iter(lambda: pulled.read(PIECE), b""), pulled.headers["Content-Type"])


def _put(handler: Any) -> None:
    left = int(handler.headers["Content-Length"])

    def read() -> bytes:
        nonlocal left
        piece: bytes = handler.rfile.read(min(left, PIECE))
        left -= len(piece)
        return piece

    _respond(handler, iter(read, b""), handler.headers["Content-Type"])
    while read():
        pass  # the connection can't be used again before that


def _respond(handler: Any, chunks: Iterator[bytes], content_type: str) -> None:
    from urllib.parse import parse_qs, unquote, urlsplit

    asked = urlsplit(handler.path)
    bucket, _, key = unquote(asked.path)[1:].partition("/")
    args = parse_qs(asked.query).get("etl_args", [""])[0]
    pieces = filter(None, act(Task(args, bucket, key, content_type), chunks))
    try:
        first = next(pieces, b"")
    except Rejected as error:
        _answer(handler, 422, str(error).encode())
    except Skipped:
        handler.send_response(204)
        handler.send_header("Transom-Outcome", "skip")
        handler.end_headers()
    except Exception as error:
        _answer(handler, 500, f"{type(error).__name__}: {error}".encode())
    else:
        _stream(handler, first, pieces)


def _stream(handler: Any, first: bytes, pieces: Iterator[bytes]) -> None:
    """Answer in chunks. What goes wrong from here on can only break the answer off."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        while first:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(first), first))
            first = next(pieces, b"")
    except ValueError:
        handler.close_connection = True
    else:
        handler.wfile.write(b"0\r\n\r\n")


def _answer(handler: Any, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def main(kind: str, *words: str) -> None:
    """Be a worker of one kind."""
    if kind == "once":
        once(list(words))
    elif kind == "http":
        serve_http()
    else:
        from transom.worker import serve, serve_io

        {"sdk": serve, "io": serve_io}[kind](transform_stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
