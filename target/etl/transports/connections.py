"""Keeps connections to one worker open between calls. It knows nothing of what is spoken over them."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from transom.target.etl.waiting import LOOK_S, Arrivals, Look, on_loop

_MAX_IDLE = 32
_IDLE_S = 30.0
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


class Connection:
    """A socket to a worker, for threads and the work of one event loop. `reused` tells that it has served before."""

    __slots__ = ("_arrivals", "_is_tcp", "_poll", "idle_since", "reused", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reused = False
        self.idle_since = 0.0
        self._is_tcp = sock.family != socket.AF_UNIX
        self._poll: select.poll | None = None
        self._arrivals: Arrivals | None = None

    def acknowledge(self) -> None:
        """Tell the other end now that its data came: a server that sends head and body apart may wait for that."""
        if self._is_tcp:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def wait(self) -> int:
        """Wait a quarter of a second at most until something can be sent or received; the events of poll(2)."""
        work = on_loop()
        if work is not None:
            if self._arrivals is not None:
                self._arrivals.end()
            return work.ready(self.sock, select.POLLIN | select.POLLOUT, LOOK_S)
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.sock, select.POLLIN | select.POLLOUT)
        events = self._poll.poll(LOOK_S * 1000)
        return events[0][1] if events else 0

    def listen(self) -> None:
        """Wait a quarter of a second at most until something can be received; on its event loop."""
        work = on_loop()
        assert work is not None
        if self._arrivals is None or self._arrivals.loop is not work.loop:
            self._arrivals = Arrivals(self.sock, work.loop)
        self._arrivals.wait(work, LOOK_S)

    def change_hands(self) -> None:
        """Get ready for whoever takes it now: loops leave a socket that doesn't block, and a thread's is to."""
        if on_loop() is None:
            self.sock.setblocking(True)

    def is_quiet(self) -> bool:
        """Whether it stands open with nothing to read: only then can a call be begun on it."""
        try:
            self.sock.recv(1, _PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the socket; from any thread."""
        if self._arrivals is None:
            self.sock.close()
        else:
            self._arrivals.close()


C = TypeVar("C", bound=Connection)


class ConnectionPool(Generic[C]):
    """Idle connections to one worker, the latest used first; `make` opens one. Callable from any thread."""

    def __init__(self, make: Callable[[Look], C]) -> None:
        self._make = make
        self._idle: deque[C] = deque()
        self._closed = False
        self._lock = threading.Lock()

    def take(self, look: Look) -> C:
        """An idle connection that still stands, else a fresh one; raises what `make` raises."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if connection.is_quiet():
                connection.change_hands()
                return connection
            connection.close()
        return self.fresh(look)

    def fresh(self, look: Look) -> C:
        """A new connection; raises what `make` raises."""
        return self._make(look)

    def give_back(self, connection: C) -> None:
        """Keep a connection for the next call; closes what has been idle for long."""
        now = connection.idle_since = time.monotonic()
        connection.reused = True
        old: list[C] = []
        with self._lock:
            idle = self._idle
            idle.append(connection)
            while idle and (self._closed or len(idle) > _MAX_IDLE or now - idle[0].idle_since > _IDLE_S):
                old.append(idle.popleft())
        for each in old:
            each.close()

    def close(self) -> None:
        """Close the idle ones now, and those in use when they're given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = list(self._idle), deque()
        for connection in idle:
            connection.close()
