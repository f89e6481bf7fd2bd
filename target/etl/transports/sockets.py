"""Opens sockets to a worker's address, also inside another process's network namespace.

It knows nothing of what is spoken over them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import stat
import struct
import threading
from functools import partial

from transom.target.etl.transports.base import Address
from transom.target.etl.transports.tls import secured
from transom.target.etl.waiting import LOOK_S, Look, LoopWork, aside, on_loop, sleep

_WAIT = struct.pack("@ll", 0, int(LOOK_S * 1_000_000))
_UNDER_WAY = (errno.EAGAIN, errno.EINPROGRESS, errno.EALREADY)
_CLONE_NEWNET = 0x40000000
_BACKLOG = 128
_PAUSE_S = 0.01


def connect(address: Address, look: Look) -> socket.socket:
    """Connect to a worker. Raises OSError, PermissionError with a message that helps, and what `look` raises.

    `look` is called every quarter of a second while nothing happens. The socket is a blocking one whose `recv` and
    `send` wait that long at most and then raise BlockingIOError.
    """
    sock = _made_for(address, look)
    try:
        bound(sock)
        if not address.unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        work = on_loop()
        if work is None:
            _connect(sock, address, look)
        else:
            _connect_on_loop(sock, address, look, work)
        if not address.tls:
            return sock
        plain = aside(partial(secured, sock, address.tls, look), look)
        bound(plain)
    except BaseException:
        sock.close()
        raise
    return plain


def bound(sock: socket.socket) -> None:
    """Have its calls return every quarter of a second at least, with BlockingIOError where nothing happened."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _WAIT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _WAIT)


def listen_in_netns(pid: int, port: int, host: str = "127.0.0.1") -> socket.socket:
    """Listen on a TCP port of the network namespace that process `pid` is in. Raises OSError as `connect` does."""
    sock = _made_in_netns(pid, socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, address: Address, look: Look) -> None:
    # SO_SNDTIMEO bounds a connect too, also one that waits for room in a unix socket's queue
    while (code := _reach(sock, address)) in _UNDER_WAY or (not code and not _is_connected(sock)):
        look()
    _check(code, address)


def _connect_on_loop(sock: socket.socket, address: Address, look: Look, work: LoopWork) -> None:
    sock.setblocking(False)
    code = _reach(sock, address)
    while code == errno.EAGAIN:  # a unix socket's queue is full, and nobody tells when there is room again
        sleep(_PAUSE_S)
        look()
        code = _reach(sock, address)
    if code in _UNDER_WAY:
        while not work.ready(sock, select.POLLOUT, LOOK_S):
            look()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    _check(code, address)
    sock.setblocking(True)


def _reach(sock: socket.socket, address: Address) -> int:
    """Connect, or find out why not: an errno. A unix socket must be one itself.

    It is in a folder of the worker's own, which could put a link there to any socket that we may use and it may not.
    """
    if not address.unix:
        return sock.connect_ex((address.host, address.port))
    try:
        fd = os.open(address.unix, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.ENOENT
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return errno.ENOTSOCK
        return sock.connect_ex(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _check(code: int, address: Address) -> None:
    if code:
        raise OSError(code, os.strerror(code), str(address))


def _is_connected(sock: socket.socket) -> bool:
    """Whether it truly is: Python takes a unix socket for connected whose connect was interrupted while it waited."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _made_for(address: Address, look: Look) -> socket.socket:
    if address.unix:
        return socket.socket(socket.AF_UNIX)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    if address.netns_pid:
        return aside(partial(_made_in_netns, address.netns_pid, family), look)
    return socket.socket(family)


def _made_in_netns(pid: int, family: socket.AddressFamily) -> socket.socket:
    """Make a socket in another namespace: it stays there, whoever uses it, so only the making needs the move.

    A thread moves alone, and could fail to move back: so it is a thread of its own, which ends.
    """
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            _enter_netns(pid)
            made.append(socket.socket(family))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make, name="netns", daemon=True)
    thread.start()
    thread.join()
    if isinstance(made[0], PermissionError):
        raise PermissionError(
            "a worker without a network that listens on a TCP port can only be reached by root: run the server as"
            " root, let the worker listen on the unix socket that TRANSOM_SOCKET names, or give its ETL"
            " 'network: true'"
        ) from made[0]
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _enter_netns(pid: int) -> None:
    # os.setns is there from Python 3.12 on only
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as namespace:  # noqa: PTH123 - an open descriptor is what is needed
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
