"""Workers of a few lines for the transports' tests: raw sockets served in threads."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transom.target.etl.transports.base import Address, Call

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Request:
    """What a worker was sent; `body` is None where the request broke off."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None


class Wire:
    """One connection, at the worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self.reader = sock.makefile("rb")

    def head(self) -> Request | None:
        """A request without its body; None once the other end has closed."""
        line = self.reader.readline()
        if not line:
            return None
        method, target, _ = line.decode("ascii").split(" ")
        headers: dict[str, str] = {}
        while line := self.reader.readline().strip():
            name, _, value = line.decode("ascii").partition(": ")
            headers[name] = value
        return Request(method, target, headers, None)

    def pieces(self, request: Request) -> Iterator[bytes]:
        """The body as it comes; raises EOFError where it breaks off."""
        if "Transfer-Encoding" not in request.headers:
            left = int(request.headers.get("Content-Length", 0))
            while left:
                yield (piece := self._some(min(left, 65536)))
                left -= len(piece)
            return
        while size := int(self.reader.readline() or b"-1", 16):
            if size < 0:
                raise EOFError
            yield from self._exactly(size)
            assert self.reader.readline() == b"\r\n"
        assert self.reader.readline() == b"\r\n"

    def request(self) -> Request | None:
        """A whole request."""
        head = self.head()
        if head is None:
            return None
        try:
            body = b"".join(self.pieces(head))
        except EOFError:
            return head
        return Request(head.method, head.target, head.headers, body)

    def send(self, *parts: bytes) -> None:
        """Send some bytes."""
        for part in parts:
            self.sock.sendall(part)

    def answer(self, body: bytes = b"", status: str = "200 OK", headers: str = "") -> None:
        """A whole answer."""
        self.send(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def is_left(self) -> bool:
        """Wait until the other end has closed."""
        try:
            while self.reader.read1(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            yield (piece := self._some(min(size, 65536)))
            size -= len(piece)

    def _some(self, at_most: int) -> bytes:
        piece = self.reader.read1(at_most)
        if not piece:
            raise EOFError
        return piece


class StubWorker:
    """Serves each connection in a thread of its own; `served` counts them."""

    def __init__(self, serve: Callable[[Wire], object], folder: Path | None = None) -> None:
        if folder is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = Address(host="127.0.0.1", port=self._listener.getsockname()[1])
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self.address = Address(unix=str(folder / "worker.sock"))
            self._listener.bind(self.address.unix)
            self._listener.listen(64)
        self.served = 0
        self._serve = serve
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop_listening(self) -> None:
        """Refuse further connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE_S)
        self._listener.close()

    def close(self) -> None:
        """End all of it."""
        self.stop_listening()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.served += 1
                self._open.add(sock)
                thread = threading.Thread(target=self._serve_one, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve_one(self, sock: socket.socket) -> None:
        wire = Wire(sock)
        # a test that has seen enough closes the connection under its worker
        with sock, wire.reader, contextlib.suppress(OSError, EOFError):
            self._serve(wire)
        self._open.discard(sock)


@contextmanager
def stub_worker(serve: Callable[[Wire], object], *, unix: bool = False) -> Iterator[StubWorker]:
    """Run a worker, on a TCP port or on a unix socket."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if unix else None
        worker = StubWorker(serve, folder)
        stack.callback(worker.close)
        yield worker


def every_request(answer: Callable[[Wire, Request], object]) -> Callable[[Wire], None]:
    """Serve one whole request after the other on a connection."""

    def serve(wire: Wire) -> None:
        while (request := wire.request()) is not None and request.body is not None:
            answer(wire, request)

    return serve


def echo(wire: Wire, request: Request) -> None:
    """Answer with what came."""
    assert request.body is not None
    wire.answer(request.body)


def a_call(**given: object) -> Call:
    """A call with the rest filled in."""
    return Call(**{"etl": "stub", "bucket": "photos", "key": "cat.jpg", **given})  # type: ignore[arg-type]
