"""An ETL's worker called as a script would call it: one request after another, by Python's own HTTP client."""

from __future__ import annotations

import http.client
import random
import socket
import time
from contextlib import closing
from urllib.parse import urlsplit

from transom.bench.report import Report, Tally, WorkerResult, merge

TIMEOUT_S = 60.0
PATH = "/bench/object"


def measure(endpoint: str, size: int, *, seconds: float, seed: int) -> Report:
    """PUT the same bytes until the time is up, and read each answer, which should be what was put."""
    data, tally = random.Random(seed).randbytes(size), Tally()  # noqa: S311 - nobody is to be kept from guessing it
    with closing(http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=TIMEOUT_S)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _put(connection, data, Tally())
        begun = finished = time.perf_counter()
        while finished - begun < seconds:
            finished = _put(connection, data, tally)
    return merge([WorkerResult(begun, finished, {"put": tally.packed()})])


def _put(connection: http.client.HTTPConnection, data: bytes, tally: Tally) -> float:
    """Put once; return when it was done."""
    started = time.perf_counter()
    try:
        connection.request("PUT", PATH, data)
        with connection.getresponse() as response:
            first_byte = time.perf_counter()
            body = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # and is opened again by the next
        tally.errors[type(error).__name__] += 1
        return time.perf_counter()
    finished = time.perf_counter()
    tally.succeeded(started, first_byte, finished, len(data))
    tally.corrupt += body != data
    return finished
