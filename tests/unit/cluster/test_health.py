import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from transom.cluster.health import Health, probe

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_target_is_alive_until_it_fails() -> None:
    health = Health(Clock())
    assert health.alive("t1")
    health.mark_dead("t1")
    assert not health.alive("t1")
    assert health.alive("t2")


def test_each_failure_rests_twice_as_long_up_to_15_s() -> None:
    clock = Clock()
    health = Health(clock)
    for rest_s in (1, 2, 4, 8, 15, 15):
        health.mark_dead("t1")
        clock.now += rest_s - 0.01
        assert not health.alive("t1")
        clock.now += 0.01
        assert health.alive("t1")


def test_failures_at_the_same_time_count_once() -> None:
    clock = Clock()
    health = Health(clock)
    for _ in range(20):
        health.mark_dead("t1")
    clock.now = 1.0
    assert health.alive("t1")


def test_a_success_starts_over() -> None:
    clock = Clock()
    health = Health(clock)
    health.mark_dead("t1")
    clock.now = 1.0
    health.mark_dead("t1")
    health.mark_alive("t1")
    assert health.alive("t1")
    health.mark_dead("t1")
    clock.now = 2.0
    assert health.alive("t1")


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("status_line", "healthy"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 503 Service Unavailable", False),
        (b"SSH-2.0-OpenSSH 200", False),
        (b"", False),
        (b"x" * 100_000, False),
    ],
)
async def test_a_probe_is_true_for_200_only(status_line: bytes, healthy: bool) -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(status_line + b"\r\nContent-Length: 0\r\n\r\n" if status_line else b"")

    async with listening(answer) as port:
        assert await probe("127.0.0.1", port) is healthy
    assert asked[0].startswith(b"GET /-/health HTTP/1.1\r\n")


async def test_a_probe_gives_up_on_a_silent_target() -> None:
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # the request, then nothing until the prober goes
        left.set()

    async with listening(answer) as port:
        assert await probe("127.0.0.1", port, timeout_s=0.05) is False
        await left.wait()


async def test_a_probe_of_nobody_is_false() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    async with listening(answer) as port:
        pass
    assert await probe("127.0.0.1", port) is False
