"""One large object up and down while the server's memory is watched.

The object is streamed both ways by a plain socket, so the client needs no memory either.
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from transom.bench.peers import Peer
from transom.bench.run import BenchError
from transom.bench.sign import Credentials, Endpoint, serialize

MIB = 1024 * 1024
BLOCK = 4 * MIB
LIMIT_MIB = 300
WATCH_INTERVAL_S = 0.05
SOCKET_TIMEOUT_S = 300.0
BUCKET, KEY = "bench-memory", "large"


@dataclass(slots=True)
class Watched:
    """The largest resident memory seen in a time, in MiB: sampled over the whole family, and by the kernel."""

    rss_mib: float = 0.0
    peak_mib: float = 0.0


class Watch:
    """Samples a server's memory in a thread while the context lasts."""

    def __init__(self, peer: Peer) -> None:
        self.seen = Watched()
        self._peer = peer
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            memory = self._peer.memory()
            self.seen.rss_mib = max(self.seen.rss_mib, memory.rss / MIB)
            self.seen.peak_mib = max(self.seen.peak_mib, memory.peak / MIB)
            if self._done.wait(WATCH_INTERVAL_S):
                return


def blocks(size: int, seed: int) -> Iterator[bytes]:
    """The object's bytes: one random block, each time with its own number in front."""
    base = random.Random(seed).randbytes(BLOCK)  # noqa: S311 - data, not secrets
    for number in range((size + BLOCK - 1) // BLOCK):
        block = number.to_bytes(8, "big") + base[8:]
        yield block[: min(BLOCK, size - number * BLOCK)]


def up_and_down(peer: Peer, size: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """PUT and GET one object of `size` bytes; raises BenchError if it comes back as anything else."""
    endpoint = Endpoint.parse(peer.endpoint)
    credentials = Credentials(peer.access_key, peer.secret_key)

    def head(method: str, path: str, length: int | None = None) -> bytes:
        return serialize(endpoint, credentials, method, path, length=length)

    exchange(endpoint, head("PUT", f"/{BUCKET}", 0))
    idle = peer.memory().rss / MIB
    path = f"/{BUCKET}/{KEY}"
    with Watch(peer) as seen_up:
        begun = time.perf_counter()
        sent = hashlib.md5(usedforsecurity=False)
        exchange(endpoint, head("PUT", path, size), body=_through(sent.update, blocks(size, seed)))
        up_s = time.perf_counter() - begun
    say(f"{peer.name}: up in {up_s:.1f} s, {seen_up.rss_mib:.0f} MiB")
    with Watch(peer) as seen_down:
        begun = time.perf_counter()
        received = hashlib.md5(usedforsecurity=False)
        length = exchange(endpoint, head("GET", path), sink=received.update)
        down_s = time.perf_counter() - begun
    say(f"{peer.name}: down in {down_s:.1f} s, {seen_down.rss_mib:.0f} MiB")
    exchange(endpoint, head("DELETE", path))
    exchange(endpoint, head("DELETE", f"/{BUCKET}"))
    if length != size or sent.digest() != received.digest():
        raise BenchError(f"{peer.name}: the object came back different ({length} of {size} bytes)")
    peak = max(seen_up.peak_mib, seen_down.peak_mib)
    return {
        "peer": peer.name,
        "bytes": size,
        "idle_mib": round(idle, 1),
        "put_rss_mib": round(seen_up.rss_mib, 1),
        "get_rss_mib": round(seen_down.rss_mib, 1),
        "peak_mib": round(peak, 1),
        "put_mib_per_s": round(size / MIB / up_s, 1),
        "get_mib_per_s": round(size / MIB / down_s, 1),
        "limit_mib": LIMIT_MIB,
        "met": peak < LIMIT_MIB,
    }


def _through(update: Callable[[bytes], object], pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def exchange(
    endpoint: Endpoint,
    head: bytes,
    *,
    body: Iterable[bytes] = (),
    sink: Callable[[memoryview], object] | None = None,
) -> int:
    """One request on a connection of its own; returns the length of the answer's body. Raises BenchError."""
    with socket.create_connection((endpoint.host, endpoint.port), SOCKET_TIMEOUT_S) as connection:
        connection.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        for piece in body:
            connection.sendall(piece)
        with connection.makefile("rb", buffering=0) as answer:
            return _read_answer(answer, sink)


def _read_answer(answer: Any, sink: Callable[[memoryview], object] | None) -> int:
    buffer = bytearray(MIB)
    view = memoryview(buffer)
    start = b""
    while b"\r\n\r\n" not in start:
        count = answer.readinto(buffer)
        if not count:
            raise BenchError("the connection ended before the answer")
        start += bytes(view[:count])
    head, _, rest = start.partition(b"\r\n\r\n")
    if not re.match(rb"HTTP/1\.1 2\d\d", head):
        raise BenchError(f"refused: {head.splitlines()[0].decode(errors='replace')} {rest[:300]!r}")
    if re.search(rb"(?i)\r\ntransfer-encoding:", head):
        raise BenchError("the answer carries no length")
    length = int((re.search(rb"(?i)\r\ncontent-length: *(\d+)", head) or (b"", b"0"))[1])
    total = len(rest)
    if sink is not None:
        sink(memoryview(rest))
    while total < length and (count := answer.readinto(buffer)):
        total += count
        if sink is not None:
            sink(view[:count])
    return total
