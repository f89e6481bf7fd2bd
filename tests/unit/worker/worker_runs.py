"""Workers for tests: one served by threads of this process, one a process of its own; and plain clients of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from transom.worker.listening import Reception, listeners
from transom.worker.service import Service
from transom.worker.settings import Settings
from transom.worker.shapes import Transform

SRC = Path(__file__).parents[3] / "src"


class UnixConnection(http.client.HTTPConnection):
    """An HTTP client's connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


class InProcess:
    """A worker in threads of this process."""

    def __init__(self, written: Any, settings: Settings) -> None:
        self.service = Service.of(Transform(written), settings)
        opened = listeners(settings)
        self.address = opened[0].getsockname()
        self._reception = Reception(self.service, opened)
        self._reception.start()
        self.service.ready = True
        self._stopped = False

    def client(self) -> http.client.HTTPConnection:
        """A client of one's own, to be closed."""
        if isinstance(self.address, str):
            return UnixConnection(self.address)
        return http.client.HTTPConnection(*self.address[:2], timeout=20)

    def socket(self) -> socket.socket:
        """A bare connection, to be closed."""
        client = self.client()
        client.connect()
        return client.sock

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Send one request on a connection of its own; header names are written with underscores."""
        client = self.client()
        try:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = client.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        finally:
            client.close()

    def put(self, data: Any, key: str = "b/k", args: str = "", **headers: str) -> tuple[int, bytes]:
        """Have one object transformed: its status and its body."""
        query = f"?etl_args={quote(args, safe='')}" if args else ""
        status, body, _ = self.ask("PUT", f"/{quote(key)}{query}", data, **headers)
        return status, body

    def stop(self, timeout_s: float = 5) -> bool:
        """Stop as SIGTERM would; whether everything under way ended in time."""
        if self._stopped:
            return True
        self._stopped = True
        in_time = self._reception.stop(timeout_s)
        self.service.puller.close()
        return in_time


class WorkerProcess:
    """A worker on a file with `code` as a process, on a unix socket; `python` is what runs our module."""

    def __init__(self, code: str, folder: Path, *options: str, python: Sequence[str] = (), **env: str) -> None:
        self.socket_path = str(folder / "s")
        self.log = folder / "log"
        file = folder / "code.py"
        file.write_text(code)
        command = [*(python or (sys.executable, "-m", "transom.worker")), str(file), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={"PYTHONPATH": str(SRC), "TRANSOM_SOCKET": self.socket_path, **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def client(self) -> UnixConnection:
        """A client of one's own, to be closed."""
        return UnixConnection(self.socket_path)

    def put(self, data: bytes) -> tuple[int, bytes]:
        """Have one object transformed: its status and its body."""
        with contextlib.closing(self.client()) as client:
            client.request("PUT", "/b/k", data)
            response = client.getresponse()
            return response.status, response.read()

    def health(self) -> int | None:
        """The status of its health, None while it doesn't listen."""
        with contextlib.closing(self.client()) as client:
            try:
                client.request("GET", "/health")
                return client.getresponse().status
            except (FileNotFoundError, ConnectionError):
                return None

    def wait_ready(self) -> None:
        """Wait until it is healthy."""
        self.wait_health(200)

    def wait_health(self, status: int) -> None:
        """Wait until its health has a status."""
        end = time.monotonic() + 20
        while self.health() != status:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def peak_memory(self) -> int:
        """The most bytes of memory that it ever had."""
        (line,) = [
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        ]
        return int(line.split()[1]) * 1024

    def kill(self) -> None:
        """End it, and let go of its streams."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def received_all(sock: socket.socket) -> bytes:
    """Everything that comes until the other end closes, gently or not."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1024 * 1024):
            data += piece
    return data


def as_json(body: bytes) -> Any:
    """What an answer says."""
    return json.loads(body)
