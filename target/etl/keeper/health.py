"""Asks a worker whether it is well: `GET /health`, which answers 200. It draws no conclusions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import connect

_ASK = b"GET /health HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n"
_CHUNKED = b"\r\ntransom-chunked: yes\r\n"
_END = b"\r\n\r\n"
_PIECE = 4096
_MOST = 64 * 1024


def first_well(addresses: Sequence[Address], timeout_s: float) -> Address | None:
    """The first address at which a healthy worker answers; None if there is none. Blocking."""
    return next((address for address in addresses if is_well(address, timeout_s)), None)


def takes_chunks(address: Address, timeout_s: float) -> bool:
    """Whether a healthy worker says that it takes chunked bodies. Blocking."""
    try:
        return _CHUNKED in _answer(address, time.monotonic() + timeout_s).lower()
    except OSError:
        return False


def is_well(address: Address, timeout_s: float) -> bool:
    """Whether a healthy worker answers at an address in time. Blocking."""
    if address.unix and not Path(address.unix).exists():
        return False  # most looks, while a worker starts
    try:
        version, _, rest = _answer(address, time.monotonic() + timeout_s).partition(b" ")
    except OSError:
        return False
    return version.startswith(b"HTTP/1.") and rest.startswith(b"200")


def _answer(address: Address, end: float) -> bytes:
    """The whole answer, as far as it comes: a worker that is cut short may complain of it in its log."""

    def look() -> None:
        if time.monotonic() > end:
            raise TimeoutError

    answer = b""
    with connect(address, look) as sock:
        sock.sendall(_ASK)
        while len(answer) < _MOST:
            look()  # also where it says a little now and then, without end
            try:
                data = sock.recv(_PIECE)
            except BlockingIOError:
                if _END in answer:  # it keeps the connection, which it was asked not to
                    break
                continue
            if not data:
                break
            answer += data
    return answer
