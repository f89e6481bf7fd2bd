"""Starts a worker as a container, as a keeper orders it: its image, its bounds, its folders, where it is reached.

How an engine is spoken to is `engine`'s; it is imported when the first container is wanted, for few servers want one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from transom.target.etl.runtimes.base import Ended, Order, StartError, Usage
from transom.target.etl.runtimes.container_end import explained
from transom.target.etl.runtimes.container_plan import ContainerPlan, Mount
from transom.target.etl.runtimes.engine_socket import NoEngineError
from transom.target.etl.runtimes.namespaces import NEEDS_NETWORK, can_enter_namespaces, is_container
from transom.target.etl.sandbox.program import Limits
from transom.target.etl.spec import Spec, from_json
from transom.target.etl.transports.base import Address

if TYPE_CHECKING:
    from transom.target.etl.runtimes.container import Container
    from transom.target.etl.runtimes.engine import Engine

_LOOPBACK = "127.0.0.1"
# At every address of the machine, only for a worker that clients are to be sent to. Podman's netavark takes 0.0.0.0 for
# an address of its own, at which nobody asks.
EVERYWHERE = ""


class NoLibraryError(StartError):
    """The library that speaks with engines isn't installed."""


class Containers:
    """A launcher of containers. Callable from several threads.

    `engine` is the URL of its socket, empty to look for one; with `pull` an image that isn't there is fetched;
    `runtime` is the OCI runtime to ask for, empty for the engine's own.
    """

    def __init__(self, engine: str = "", *, pull: bool = True, runtime: str = "") -> None:
        self._url = engine
        self._pull = pull
        self.runtime = runtime
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def start(self, order: Order) -> ContainerWorker:
        """Start a container. Raises StartError."""
        spec = from_json(json.dumps(dict(order.spec), sort_keys=True, separators=(",", ":")))
        engine = self.engine()
        deadline = time.monotonic() + spec.init_timeout_s
        plan = plan_of(order, spec, self.runtime)
        image = engine.image(plan.image, pull=self._pull, deadline=deadline)
        enters = can_enter_namespaces()
        words = engine.words(self.runtime)  # asked first: what it may raise must leave no container behind
        started = engine.start(plan, image, log_of(order))
        return ContainerWorker(started, order, enters=enters, network=spec.network, confinement=words)

    def own_network(self, spec: Spec) -> bool:  # noqa: ARG002 - without a network there is still a namespace
        """Every container has a network namespace of its own."""
        return True

    def reap(self, mark: str) -> None:
        """Remove the containers of a killed keeper. Raises StartError where there is an engine that can't be asked."""
        with suppress(NoEngineError, NoLibraryError):  # without, there were none to leave
            self.engine().reap(mark)

    def close(self) -> None:
        """Let go of idle connections to the engine."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def engine(self) -> Engine:
        """The engine, looked for the first time. Raises StartError."""
        try:
            from transom.target.etl.runtimes.engine import Engine
        except ImportError as error:
            raise NoLibraryError(
                "containers need the library 'docker': pip install 'transom[containers]'", final=True
            ) from error
        with self._lock:
            if self._engine is None:
                self._engine = Engine.open(self._url)
            return self._engine


class ContainerWorker:
    """A worker that is a container. Callable from several threads."""

    def __init__(
        self,
        container: Container,
        order: Order,
        *,
        enters: bool,
        network: bool,
        confinement: str,
        limits: Limits | None = None,
    ) -> None:
        """Take over a started container; `enters` tells whether its network namespace may be entered.

        Where it may not, and it has no `network`, a worker that only speaks TCP is out of reach.
        `limits` are those of a program whose first process is ours, and tells more of its end than the engine.
        """
        self.container = container.id
        self.confinement = confinement
        self.hint = "" if enters or network else NEEDS_NETWORK
        # an engine may count processes of another machine than ours
        self.pid = container.pid if is_container(container.pid, container.id) else 0
        self._container = container
        self._limits = limits
        found = [Address(unix=order.env["TRANSOM_SOCKET"])]
        if self.pid and enters:
            found.append(Address(host=_LOOPBACK, port=order.port, netns_pid=self.pid))
        if container.port:
            found.append(Address(host=_LOOPBACK, port=container.port))
        self._addresses = tuple(found)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it may come to listen: its socket, its port from within, its port as it is published."""
        return self._addresses

    def ended(self, words: str = "") -> Ended | None:
        """How it ended, None while it runs."""
        how = self._container.ended()
        if how is None:
            return None
        return explained(how, self._limits, words)

    def usage(self) -> Usage | None:
        """What it uses; None where the engine can't tell."""
        return self._container.usage()

    def stop(self, grace_s: float) -> None:
        """Ask it to end, kill what is left after `grace_s`, remove it. Raises StartError if the engine is gone."""
        self._container.stop(grace_s)


def log_of(order: Order) -> BinaryIO:
    """Where a container's output goes."""
    return os.fdopen(os.dup(order.log_fd), "wb", buffering=0)


def plan_of(order: Order, spec: Spec, runtime: str = "") -> ContainerPlan:
    """What an order means for a container. Every path is the same inside as out, so what names one is true in both."""
    mounts = [Mount(str(order.folder), writable=True)]
    if order.files is not None:
        mounts.append(Mount(str(order.files)))
    defaults = ContainerPlan("", "", "")
    given = spec.resources
    return ContainerPlan(
        etl=order.etl,
        image=spec.runtime.image or "",
        folder=order.mark,
        revision=order.revision,
        command=spec.runtime.command or (),
        env=order.env,
        mounts=tuple(mounts),
        memory=given.memory or defaults.memory,
        cpus=given.cpu or defaults.cpus,
        pids=given.pids or defaults.pids,
        network=spec.network,
        port=order.port,
        published=EVERYWHERE if spec.redirect else _LOOPBACK,
        runtime=runtime,
    )
