"""The sockets that a server listens on, bound before any process starts. It serves none of them."""

from __future__ import annotations

import socket

from transom.gateway.config import Config, host_and_port

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, a free port for 0. Raises OSError that names it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


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
