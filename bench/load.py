"""A closed loop of requests in one process: as many under way as asked, the next sent when one is answered.

It knows connections, time limits and reconnecting; which requests, and what their answers mean, is the caller's.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from transom.bench.mix import Request
from transom.bench.sign import Credentials, Endpoint
from transom.bench.wire import BUFFER_SIZE, Wire

CONNECT_TIMEOUT_S = 10.0
RECONNECT_PAUSE_S = 0.05  # after a broken connection, so that a dead server isn't hammered
WATCH_INTERVAL_S = 0.25


class Load:
    """Sends what `next_request` gives, `concurrency` at a time, and hands each answer to `observe`.

    `next_request` returning None ends a lane for good. A request past `timeout_s` fails as `Timeout`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        next_request: Callable[[], Request | None],
        observe: Callable[[Request, Wire], None],
        *,
        concurrency: int,
        timeout_s: float = 60.0,
        insecure: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.credentials = credentials
        self.next_request = next_request
        self.observe = observe
        self.timeout_s = timeout_s
        self.buffer = bytearray(BUFFER_SIZE)
        self.tls = _tls(insecure) if endpoint.scheme == "https" else None
        self._lanes = [Lane(self) for _ in range(concurrency)]
        self._working = 0
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Return when every lane has ended. An exception out of `next_request` or `observe` ends the run.

        Connections stay open, so that a second run starts on warm ones; `close` closes them.
        """
        loop = asyncio.get_running_loop()
        failure: list[BaseException] = []

        def stop(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
            error = context.get("exception")
            failure.append(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))
            self._finished.set()

        loop.set_exception_handler(stop)
        self._finished.clear()
        self._working = len(self._lanes)
        for lane in self._lanes:
            lane.proceed()
        watch = loop.create_task(self._watch())
        try:
            await self._finished.wait()
        finally:
            watch.cancel()
            loop.set_exception_handler(None)
        if failure:
            self.close()
            raise failure[0]

    def close(self) -> None:
        """Close all connections."""
        for lane in self._lanes:
            lane.close()

    def ended(self) -> None:
        """Note that a lane has ended."""
        self._working -= 1
        if not self._working:
            self._finished.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            oldest = time.perf_counter() - self.timeout_s
            for lane in self._lanes:
                lane.expire(oldest)


class Lane:
    """One request at a time, over one connection that is replaced when it breaks."""

    __slots__ = ("_connecting", "_load", "_request", "_wire")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._wire: Wire | None = None
        self._request: Request | None = None
        self._connecting: asyncio.Task[None] | None = None

    def proceed(self) -> None:
        """Send the next request, connecting first where there is no usable connection."""
        load = self._load
        request = self._request = load.next_request()
        if request is None:
            load.ended()
            return
        wire = self._wire
        if wire is not None and wire.reusable:
            self._send(wire, request, 0.0)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(request))

    def expire(self, oldest_s: float) -> None:
        """Fail the request under way if it was sent before `oldest_s`."""
        if self._wire is not None and self._wire.busy and self._wire.started_s < oldest_s:
            self._wire.fail("Timeout")

    def close(self) -> None:
        """Let go of the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.close()

    def _send(self, wire: Wire, request: Request, started_s: float) -> None:
        wire.send(
            request.head(self._load.endpoint, self._load.credentials),
            request.body,
            expected=request.expected,
            head_only=request.method == "HEAD",
            started_s=started_s,
        )

    async def _connect(self, request: Request) -> None:
        load = self._load
        started_s = time.perf_counter()
        if self._wire is not None:
            self._wire.close()
        self._wire = wire = Wire(load.buffer, self._answered)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: wire, load.endpoint.host, load.endpoint.port, ssl=load.tls
                )
        except OSError as error:  # TimeoutError is one
            wire.started_s, wire.finished_s = started_s, time.perf_counter()
            wire.failure = type(error).__name__
            self._answered(wire)
        else:
            self._send(wire, request, started_s)

    def _answered(self, wire: Wire) -> None:
        assert self._request is not None
        self._load.observe(self._request, wire)
        if wire.failure:
            asyncio.get_running_loop().call_later(RECONNECT_PAUSE_S, self.proceed)
        else:
            self.proceed()


def _tls(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
