"""The sockets that a server listens on, bound before any process starts. It serves none of them."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from transom.gateway.config import Config, host_and_port

_BACKLOG = 1024
_SO_ATTACH_REUSEPORT_CBPF = 51
# of classic BPF, see the kernel's Documentation/networking/filter.rst
_LOAD_RANDOM = (0x20, 0, 0, 0xFFFFF000 + 56)
_MODULO, _SKIP_UNLESS, _RETURN = 0x94, 0x15, 0x06


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, a free port for 0. Raises OSError that names it."""
    return listen_together(host, port, 1)[0]


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets on one address, among which the kernel spreads connections. Raises OSError that names it.

    From one socket that all processes share, whichever is awake takes all that come at once.
    """
    made = [_bound(host, port, alone=True)]
    try:
        for _ in range(1, count):
            made[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.append(_bound(host, made[0].getsockname()[1], alone=False))
    except BaseException:
        for each in made:
            each.close()
        raise
    for each in made:
        each.listen(_BACKLOG)
        each.setblocking(False)
    return made


def steer(listeners: Sequence[socket.socket], serving: Sequence[int]) -> None:
    """Have new connections go to some of the sockets of `listen_together` only, by their number.

    What has come to the others waits there. Where the kernel can't be told, or `serving` names none, all get new ones.
    """
    if not serving:
        return
    program = [_LOAD_RANDOM, (_MODULO, 0, 0, len(serving))]
    for i, number in enumerate(serving[:-1]):
        program += [(_SKIP_UNLESS, 0, 1, i), (_RETURN, 0, 0, number)]
    program.append((_RETURN, 0, 0, serving[-1]))
    code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *each) for each in program))
    with suppress(OSError):
        listeners[0].setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(program), ctypes.addressof(code))
        )


def listen_for_services(config: Config) -> tuple[socket.socket | None, Config]:
    """Where services elsewhere fetch objects, if anywhere; the configuration, with the port if it was left open."""
    etl = config.etl
    if not etl.pull_listen:
        return None, config
    host, port = host_and_port(etl.pull_listen)
    listener = listen(host, port)
    if not port:
        shown = f"{etl.pull_listen.rpartition(':')[0]}:{listener.getsockname()[1]}"
        config = config.model_copy(update={"etl": etl.model_copy(update={"pull_listen": shown})})
    return listener, config


def _bound(host: str, port: int, *, alone: bool) -> socket.socket:
    """A bound socket; `alone` finds another server there to be an error, even one of the same user's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not alone:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return made
