"""Work on the event loop: while it waits others go on, and it comes back with what it waited for."""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest

from transom.target.etl.waiting import LoopWork, Room, aside, on_loop, sleep

T = TypeVar("T")
_LONG_S = 20.0


def begin(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin work on the running loop; what it comes to."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def noted() -> None:
        try:
            result = work()
        except Exception as error:
            loop.call_soon(done.set_exception, error)
        else:
            loop.call_soon(done.set_result, result)

    LoopWork(loop).begin(noted)
    return done


def nothing() -> None:
    pass


def here() -> LoopWork:
    work = on_loop()
    assert work is not None
    return work


async def test_two_that_wait_for_each_other_get_on() -> None:
    left, right = socket.socketpair()

    def talk(sock: socket.socket, *, begins: bool) -> bytes:
        heard = b""
        for number in range(5):
            if begins or number:
                sock.sendall(bytes([number]))
            assert here().ready(sock, select.POLLIN, _LONG_S) == select.POLLIN
            heard += sock.recv(1)
        sock.sendall(b"!")
        return heard

    with left, right:
        first, second = begin(lambda: talk(left, begins=True)), begin(lambda: talk(right, begins=False))
        assert (await first, await second) == (b"\x01\x02\x03\x04!", b"\x00\x01\x02\x03\x04")


async def test_a_socket_that_says_nothing_is_waited_for_no_longer_than_asked() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert await begin(lambda: here().ready(left, select.POLLIN, 0.05)) == 0
        assert await begin(lambda: here().ready(left, select.POLLIN | select.POLLOUT, _LONG_S)) == select.POLLOUT
        right.close()
        assert await begin(lambda: here().ready(left, select.POLLIN, _LONG_S)) == select.POLLIN


async def test_the_loop_goes_on_while_work_sleeps() -> None:
    order: list[str] = []

    def work() -> None:
        order.append("lies down")
        sleep(0.2)
        order.append("is up")

    done = begin(work)
    await asyncio.sleep(0)
    order.append("meanwhile")
    await done
    assert order == ["lies down", "meanwhile", "is up"]


async def test_what_blocks_is_done_in_a_thread_and_its_error_is_the_works() -> None:
    def refuse() -> None:
        raise OSError("no way")

    assert await begin(lambda: aside(threading.get_ident, nothing)) != threading.get_ident()
    with pytest.raises(OSError, match="no way"):
        await begin(lambda: aside(refuse, nothing))


async def test_what_blocks_for_too_long_is_left_to_its_thread_and_many_of_them_hold_nobody_up() -> None:
    release = threading.Event()

    def look() -> None:
        raise TimeoutError("long enough")

    try:
        hung = [begin(lambda: aside(partial(release.wait, _LONG_S), look)) for _ in range(64)]
        async with asyncio.timeout(_LONG_S):
            assert await asyncio.to_thread(lambda: "served") == "served"
            for each in hung:
                with pytest.raises(TimeoutError, match="long enough"):
                    await each
    finally:
        release.set()


# uvloop calls readers out of libuv's poll, which keeps pointers into its own stack. Work at any depth of the stack must
# not be switched to from there; it took the process away, so it is one of its own.
_DEEP = """
import asyncio, select, socket
import uvloop
from transom.target.etl.waiting import LoopWork, on_loop

ROUNDS = 5

def received(sock, depth):
    if depth:
        yield from received(sock, depth - 1)
        return
    for _ in range(ROUNDS):
        assert on_loop().ready(sock, select.POLLIN, 20) == select.POLLIN
        yield sock.recv(10, socket.MSG_DONTWAIT)

async def begin(sock, depth, done):
    if depth:
        await begin(sock, depth - 1, done)
        return
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    LoopWork(loop).begin(lambda: loop.call_soon(done.set_result, b"".join(received(sock, 12))))

async def main():
    loop = asyncio.get_running_loop()
    for depth in range(10, 20):
        pairs = [socket.socketpair() for _ in range(100)]
        waiting = [loop.create_future() for _ in pairs]
        await asyncio.gather(*(begin(ours, depth, done) for (ours, _), done in zip(pairs, waiting)))
        for _ in range(ROUNDS):
            for _, theirs in pairs:
                theirs.send(b"x")
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*waiting) == [b"x" * ROUNDS] * len(pairs)
        for sock in sum(pairs, ()):
            sock.close()
    print("all done")

uvloop.run(main())
"""


def test_work_at_any_depth_goes_on_where_it_was() -> None:
    done = subprocess.run([sys.executable, "-c", _DEEP], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.returncode) == ("all done\n", 0), done.stderr


def test_in_a_thread_of_its_own_work_just_blocks() -> None:
    assert on_loop() is None
    assert aside(threading.get_ident, nothing) == threading.get_ident()
    began = time.monotonic()
    sleep(0.05)
    assert time.monotonic() - began >= 0.05


async def test_a_place_is_waited_for_until_the_loop_gives_one() -> None:
    rooms: list[Room] = []

    def work() -> list[bool]:
        rooms.append(Room(1))
        return [rooms[0].take(), rooms[0].take(), rooms[0].wait(0.05), rooms[0].wait(_LONG_S), rooms[0].take()]

    done = begin(work)
    await asyncio.sleep(0.1)
    rooms[0].give()
    assert await done == [True, False, False, True, False]


async def test_places_given_before_they_are_wanted_or_twice_at_once_wake_nobody_wrongly() -> None:
    rooms: list[Room] = []

    def work() -> list[bool]:
        rooms.append(Room(0))
        sleep(0.05)
        return [rooms[0].wait(_LONG_S), rooms[0].wait(_LONG_S), rooms[0].wait(0.05)]

    done = begin(work)
    rooms[0].give()
    rooms[0].give()
    assert await done == [True, True, False]


async def test_one_does_work_after_work_and_what_is_left_of_one_wakes_no_other() -> None:
    loop = asyncio.get_running_loop()
    one, ended = LoopWork(loop), loop.create_future()
    rooms: list[Room] = []
    took: list[float] = []

    def first() -> None:
        rooms.append(Room(0))
        assert rooms[0].wait(_LONG_S)

    def second() -> None:
        began = time.monotonic()
        sleep(0.2)
        took.append(time.monotonic() - began)
        assert not Room(0).wait(0.2)
        took.append(time.monotonic() - began)
        loop.call_soon(ended.set_result, None)

    one.begin(first)
    rooms[0].give()
    await asyncio.sleep(0.01)
    one.begin(second)
    for _ in range(3):
        await asyncio.sleep(0.1)
        rooms[0].give()
    await ended
    assert took[0] >= 0.2
    assert took[1] >= 0.4


@pytest.mark.parametrize("wait", [sleep, lambda s: aside(partial(time.sleep, s), nothing), lambda s: Room(0).wait(s)])
async def test_work_that_is_stopped_ends_where_it_waits(wait: Callable[[float], object]) -> None:
    started: list[LoopWork] = []

    def work() -> None:
        started.append(here())
        wait(0.5)

    done = begin(work)
    started[0].stop(ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        await done
    started[0].stop(ValueError("again"))  # it has ended
