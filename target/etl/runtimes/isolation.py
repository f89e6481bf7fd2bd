"""Decides what a program that is kept runs in, a container or the sandbox, and remembers it. It starts nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

from transom.target.etl.runtimes.base import StartError
from transom.target.etl.runtimes.engine_socket import NoEngineError

Isolation = Literal["auto", "container", "sandbox"]

_AGAIN_S = 60.0  # an engine may come to be there
_REMEDY = 'start one, or set isolation = "sandbox" under [etl] in the configuration'
_log = logging.getLogger("transom.keeper")


class Trying(Protocol):
    """What tells whether programs can be run in containers here."""

    def check(self, *, network: bool) -> None:
        """Raise StartError if they can't. Blocking."""


class Isolating:
    """The choice of one process. Callable from several threads; the first answer may take a second."""

    def __init__(
        self,
        isolation: Isolation,
        contained: Trying,
        find: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find` finds an engine's socket, or raises StartError: cheaper than to ask one."""
        self._isolation = isolation
        self._contained = contained
        self._find = find
        self._clock = clock
        self._sandboxed: dict[bool, float] = {}  # since when, with a network and without
        self._lock = threading.Lock()

    def by_container(self, *, network: bool) -> bool:
        """Whether a program, with a network or without, is to be a container.

        Raises StartError where it has to be, and can't.
        """
        if self._isolation == "sandbox":
            return False
        if self._isolation == "container":
            self._must(network=network)
            return True
        with self._lock:
            since = self._sandboxed.get(network)
            if since is not None and self._clock() - since < _AGAIN_S:
                return False
        problem = self._problem(network=network)
        with self._lock:
            if problem is None:
                self._sandboxed.pop(network, None)
                return True
            self._sandbox(problem, network=network)
        return False

    def failed(self, problem: Exception, *, network: bool) -> None:
        """Note that the engine, whose trial was passed, couldn't start a program: the next is no container."""
        with self._lock:
            self._sandbox(problem, network=network)

    def _sandbox(self, problem: Exception, *, network: bool) -> None:
        if network not in self._sandboxed:
            # who has an engine expects it to be used
            level = logging.INFO if isinstance(problem, NoEngineError) else logging.WARNING
            _log.log(level, "programs run in the sandbox: %s", problem)
        self._sandboxed[network] = self._clock()

    def _must(self, *, network: bool) -> None:
        problem = self._problem(network=network)
        if problem is not None:
            raise StartError(
                f'it must run in a container, for isolation is "container", and can\'t: {problem} ({_REMEDY})'
            ) from problem

    def _problem(self, *, network: bool) -> StartError | None:
        try:
            self._find()
            self._contained.check(network=network)
        except StartError as error:
            return error
        return None
