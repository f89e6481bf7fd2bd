"""Which targets a gateway should try: those that failed rest for a while, longer each time.

It decides nothing of correctness, since any target can serve any key; it only saves futile attempts.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

FIRST_REST_S = 1.0
LONGEST_REST_S = 15.0
PROBE_TIMEOUT_S = 2.0
_STATUS_PARTS = 2


@dataclass(frozen=True, slots=True)
class _Rest:
    length_s: float
    until: float


class Health:
    """What one gateway process knows of the targets; `clock` counts seconds monotonically."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._resting: dict[str, _Rest] = {}

    def mark_dead(self, target_id: str) -> None:
        """Note a failure: the target rests 1 s, then twice as long each time it fails again, up to 15 s.

        Failures of requests that were under way together count once.
        """
        now = self._clock()
        rest = self._resting.get(target_id)
        if rest is not None and now < rest.until:
            return
        length_s = FIRST_REST_S if rest is None else min(rest.length_s * 2, LONGEST_REST_S)
        self._resting[target_id] = _Rest(length_s, now + length_s)

    def mark_alive(self, target_id: str) -> None:
        """Note a success: what went before is forgotten."""
        self._resting.pop(target_id, None)

    def alive(self, target_id: str) -> bool:
        """Whether to try the target: it has not failed, or has rested."""
        rest = self._resting.get(target_id)
        return rest is None or self._clock() >= rest.until


async def probe(host: str, port: int, timeout_s: float = PROBE_TIMEOUT_S, *, tls: ssl.SSLContext | None = None) -> bool:
    """Ask `GET /-/health`; True when it answers 200 in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(host, port, tls)
    except (OSError, TimeoutError, ValueError):  # ValueError: a line longer than the reader's limit
        return False


async def _ask(host: str, port: int, tls: ssl.SSLContext | None) -> bool:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        name = f"[{host}]" if ":" in host else host
        writer.write(f"GET /-/health HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode("ascii"))
        await writer.drain()
        status = (await reader.readline()).split()
        return len(status) >= _STATUS_PARTS and status[0].startswith(b"HTTP/1.") and status[1] == b"200"
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
