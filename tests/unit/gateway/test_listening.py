"""Several sockets on one address: who gets the connections, and that nobody else may listen there."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Iterator

import pytest

from transom.gateway.listening import listen, listen_together, steer

THREE = range(3)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listeners(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    try:
        made = listen_together(request.param, 0, len(THREE))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        pytest.skip("this machine has no IPv6")
    with contextlib.ExitStack() as stack:
        for each in made:
            stack.enter_context(each)
        yield made


def arrivals(listeners: list[socket.socket], connections: int) -> list[int]:
    """How many of so many connections come to each."""
    found = [0] * len(listeners)
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(socket.create_connection(listeners[0].getsockname()[:2]))
            (ready,), _, _ = select.select(listeners, [], [], 10)
            stack.enter_context(ready.accept()[0])
            found[listeners.index(ready)] += 1
    return found


def test_all_have_one_address_and_each_gets_its_share(listeners: list[socket.socket]) -> None:
    assert len({each.getsockname() for each in listeners}) == 1
    found = arrivals(listeners, 120)
    assert sum(found) == 120
    assert min(found) > 10


@pytest.mark.parametrize("serving", [[0], [2], [0, 1], [2, 1], [0, 1, 2]])
def test_connections_go_where_they_are_sent(listeners: list[socket.socket], serving: list[int]) -> None:
    steer(listeners, [1])
    steer(listeners, serving)  # the last word counts
    found = arrivals(listeners, 90)
    assert [number for number in THREE if found[number]] == sorted(serving)
    assert min(found[number] for number in serving) > 10


def test_where_nobody_serves_they_go_anywhere(listeners: list[socket.socket]) -> None:
    steer(listeners, [])
    assert sum(arrivals(listeners, 30)) == 30


def test_what_came_before_stays_where_it_is(listeners: list[socket.socket]) -> None:
    steer(listeners, [1])
    with socket.create_connection(listeners[0].getsockname()[:2]) as connection:
        steer(listeners, [0])
        assert arrivals([listeners[0], listeners[2]], 5) == [5, 0]
        accepted, _ = listeners[1].accept()
        with accepted:
            accepted.sendall(b"hello")
            assert connection.recv(5) == b"hello"


@pytest.mark.parametrize("count", [1, 3])
def test_another_server_is_refused_the_address(count: int) -> None:
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(each) for each in listen_together("127.0.0.1", 0, count)]
        port = first[0].getsockname()[1]
        for others in (1, 3):
            with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
                listen_together("127.0.0.1", port, others)
    listen("127.0.0.1", port).close()


def test_one_that_is_alone_is_steered_to_itself() -> None:
    with listen("127.0.0.1", 0) as alone:
        steer([alone], [0])
        assert arrivals([alone], 3) == [3]
