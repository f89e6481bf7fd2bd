"""Finds the container engine of this machine: the unix socket on which Docker or Podman answers. Asks it nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from transom.target.etl.runtimes.base import StartError

SYSTEM_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
_SCHEME = "unix://"
_CONNECT_TIMEOUT_S = 2.0
_NONE = (
    "no container engine: start podman with `podman system service --time=0`, or docker, or set engine under [etl] "
    "in the configuration"
)


class EngineError(StartError):
    """The engine is not there, or refused. The message is public: it has the engine's own answer."""


class NoEngineError(EngineError):
    """Nothing listens in any of the usual places."""


def find_engine(configured: str = "", environ: Mapping[str, str] | None = None) -> str:
    """The path of the engine's socket: the configured one, DOCKER_HOST's, or a usual one that answers.

    Raises EngineError; where one was named, no other is tried.
    """
    environ = os.environ if environ is None else environ
    for name, url in (("[etl] engine", configured), ("DOCKER_HOST", environ.get("DOCKER_HOST", ""))):
        if url:
            return _named(name, url)
    refused: list[str] = []
    for path in _usual(environ):
        problem = _problem(path)
        if problem is None:
            return path
        if isinstance(problem, PermissionError):
            refused.append(path)
    if refused:
        raise EngineError(f"no container engine: this user may not use {', '.join(refused)}")
    raise NoEngineError(_NONE)


def _named(name: str, url: str) -> str:
    path = url.removeprefix(_SCHEME)
    if not path.startswith("/"):
        raise EngineError(
            f"{name} is {url!r}: a container engine is needed that runs on this machine, by its socket: unix:///PATH",
            final=True,
        )
    problem = _problem(path)
    if problem is not None:
        raise EngineError(f"no container engine at {path}, which {name} names: {problem.strerror or problem}")
    return path


def _usual(environ: Mapping[str, str]) -> list[str]:
    found = [*SYSTEM_SOCKETS]
    own = environ.get("XDG_RUNTIME_DIR", "")
    if own:
        found += [str(Path(own, "podman/podman.sock")), str(Path(own, "docker.sock"))]
    return found


def _problem(path: str) -> OSError | None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except OSError as error:
            return error
    return None
