"""Listens where the settings say, and gives every connection a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from pathlib import Path

from transom.worker.awaiting import release
from transom.worker.exchange import Exchange
from transom.worker.service import Line, Service
from transom.worker.settings import Settings

_BACKLOG = 1024
_PAUSE_S = 0.1
_WOKEN_S = 1.0
_BUFFER = 1024 * 1024
_READS = 64
_FULL = b"its worker can start no more threads: its limit of processes and threads is reached"
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"
) % (len(_FULL), _FULL)
_log = logging.getLogger("transom.worker")


def listeners(settings: Settings) -> list[socket.socket]:
    """Open what the settings say: a unix socket, a TCP port, or both; raises OSError."""
    opened = [_unix(settings.socket)] if settings.socket else []
    if settings.port is not None:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        opened.append(socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG))
    return opened


def _unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()  # a killed worker's
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        # The folder says who may come here; the target seldom runs as the same user as its worker.
        Path(path).chmod(0o666)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class Reception:
    """Accepts connections until told to stop."""

    def __init__(self, service: Service, listening: list[socket.socket]) -> None:
        self._service = service
        self._listening = listening
        self._lines: set[Line] = set()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._accept, args=(listener,), name="transom-accept", daemon=True)
            for listener in listening
        ]

    def start(self) -> None:
        """Begin to accept."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Accept no more, let what is under way end, let go of the rest; whether all ended in time."""
        self._service.leaving = True
        for listener in self._listening:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits in accept()
        for thread in self._threads:
            thread.join(_WOKEN_S)
        for listener in self._listening:
            listener.close()
        end = time.monotonic() + timeout_s
        with self._changed:
            for line in self._lines:
                _end_idle(line)
            while self._lines and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._lines

    def _accept(self, listener: socket.socket) -> None:
        while not self._service.leaving:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    time.sleep(_PAUSE_S)
                    continue
                if self._service.leaving or error.errno != errno.ECONNABORTED:
                    return
                continue
            self._receive(sock)

    def _receive(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        line = Line(sock)
        with self._changed:
            self._lines.add(line)
        try:
            threading.Thread(target=self._serve, args=(line,), name="transom-line", daemon=True).start()
        except RuntimeError:  # no more threads
            _log.exception("a connection was turned away")
            _turn_away(sock)
            self._forget(line)

    def _serve(self, line: Line) -> None:
        try:
            Exchange(line, self._service).run()
        except Exception:
            _log.exception("a connection ended badly")
        finally:
            release()
            self._forget(line)

    def _forget(self, line: Line) -> None:
        with self._changed:
            self._lines.discard(line)
            self._changed.notify_all()


def _end_idle(line: Line) -> None:
    if not line.busy:
        with contextlib.suppress(OSError):
            line.sock.shutdown(socket.SHUT_RD)


def place(listener: socket.socket) -> str:
    """Where a listener listens, for people."""
    if listener.family == socket.AF_UNIX:
        return os.fsdecode(listener.getsockname())
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def _turn_away(sock: socket.socket) -> None:
    """Ask the client to come again. What it sends is read, for a moment: else the end would be a reset."""
    with contextlib.suppress(OSError), sock:
        sock.settimeout(_PAUSE_S)
        sock.sendall(_TURNED_AWAY)
        sock.shutdown(socket.SHUT_WR)
        for _ in range(_READS):
            if not sock.recv(_BUFFER):
                break
