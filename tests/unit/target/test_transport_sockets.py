"""Sockets to a worker's address: waiting is watched, and another network namespace can be reached by root."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.etl.transports import sockets
from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import connect, listen_in_netns

pytestmark = pytest.mark.usefixtures("either_way")

# Enters a network namespace of its own, brings its loopback up, answers one line with the other
CHILD = """
import ctypes, fcntl, socket, struct, sys
assert ctypes.CDLL(None).unshare(0x40000000) == 0
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"from inside: " + peer.recv(100))
port = int(sys.stdin.readline())
with socket.create_connection(("127.0.0.1", port)) as peer:
    peer.sendall(b"from inside")
"""


class _Seen(Exception):
    pass


def seen() -> None:
    raise _Seen


def nothing() -> None:
    pass


def may_enter_namespaces() -> bool:
    if os.geteuid():
        return False
    child = os.fork()
    if not child:
        os._exit(ctypes.CDLL(None).unshare(0x40000000) != 0)
    return os.waitpid(child, 0)[1] == 0


@pytest.fixture
def inside() -> Iterator[subprocess.Popen[str]]:
    """A process in a network namespace of its own."""
    if not may_enter_namespaces():
        pytest.skip("entering a network namespace needs root")
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_tcp_address_is_connected_without_delays(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener, connect(Address(host=host, port=listener.getsockname()[1]), nothing) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(BlockingIOError):
            sock.recv(1)  # waits, but not for ever


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect(Address(host="127.0.0.1", port=port), nothing)
    with pytest.raises(FileNotFoundError):
        connect(Address(unix=str(tmp_path / "no.sock")), nothing)
    with pytest.raises(FileNotFoundError):
        connect(Address(host="127.0.0.1", port=80, netns_pid=2**30), nothing)


def test_a_link_to_a_socket_is_none(tmp_path: Path) -> None:
    """A worker could make one, in the folder it has, to a socket that it can't use itself: an engine's, say."""
    path, link, file = tmp_path / "engine.sock", tmp_path / "worker.sock", tmp_path / "no.sock"
    link.symlink_to(path)
    file.touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        connect(Address(unix=str(path)), nothing).close()
        for refused in (link, file):
            with pytest.raises(OSError, match="Socket operation on non-socket"):
                connect(Address(unix=str(refused)), nothing)
        listener.settimeout(5)
        listener.accept()[0].close()  # of the first
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_waiting_for_a_busy_worker_is_watched(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with connect(Address(unix=path), nothing), pytest.raises(_Seen):
            connect(Address(unix=path), seen)


def test_a_worker_in_its_own_network_namespace_is_reached(inside: subprocess.Popen[str]) -> None:
    assert inside.stdin is not None
    assert inside.stdout is not None
    own = Path("/proc/self/ns/net").readlink()
    port = int(inside.stdout.readline())
    with pytest.raises(ConnectionRefusedError):
        connect(Address(host="127.0.0.1", port=port), nothing)
    with connect(Address(host="127.0.0.1", port=port, netns_pid=inside.pid), nothing) as sock:
        sock.sendall(b"hello")
        sock.settimeout(10)
        assert sock.recv(100) == b"from inside: hello"
    with listen_in_netns(inside.pid, 0) as listener:
        listener.settimeout(10)
        inside.stdin.write(f"{listener.getsockname()[1]}\n")
        inside.stdin.flush()
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(100) == b"from inside"
    assert Path("/proc/self/ns/net").readlink() == own


def test_a_namespace_that_may_not_be_entered_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError

    monkeypatch.setattr(sockets, "_enter_netns", refuse)
    with pytest.raises(PermissionError, match="root"):
        listen_in_netns(os.getpid(), 0)
    with pytest.raises(PermissionError, match="network: true"):
        connect(Address(host="127.0.0.1", port=80, netns_pid=os.getpid()), nothing)


def test_a_port_that_is_taken_is_an_error() -> None:
    if not may_enter_namespaces():
        pytest.skip("entering a network namespace needs root")
    with listen_in_netns(os.getpid(), 0) as listener, pytest.raises(OSError, match="in use"):
        listen_in_netns(os.getpid(), listener.getsockname()[1])
