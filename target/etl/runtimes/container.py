"""A container that was started: how it ended, what it prints and uses, stopping it. It finds no image and no engine."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import docker.errors
import urllib3.exceptions

from transom.target.etl.runtimes.base import Usage
from transom.target.etl.runtimes.container_end import KILLED, Exit
from transom.target.etl.runtimes.container_plan import ContainerPlan
from transom.target.etl.runtimes.engine_socket import EngineError
from transom.target.etl.runtimes.first_process import FirstProcess

_ENDED = ("exited", "stopped", "removing", "dead")
_LAST_WORDS_S = 2.0
_PROBLEMS = (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError)  # requests' errors are OSErrors


class Container:
    """One container. Callable from several threads; `ended` and `wait` ask nobody."""

    def __init__(self, api: Any, container_id: str, plan: ContainerPlan) -> None:
        """Take over one that was created."""
        self.id = container_id
        self.pid = 0  # of its first process, as the engine's machine counts
        self.port = 0  # where its port is published
        self._api = api
        self._plan = plan
        self._exit: Exit | None = None
        self._done = threading.Event()
        self._attendant: threading.Thread | None = None

    def begin(self, log: BinaryIO) -> None:
        """Start it. Raises what the engine's library does, and EngineError for an engine that can't hold it."""
        check(self._plan, self._api.inspect_container(self.id))
        # attached before it can say anything: a log that is followed may lack the last line when the stream ends
        output = self._api.attach(self.id, stream=True)
        following = self._thread(_copy, output, log)
        try:
            self._api.start(self.id)
            now = self._api.inspect_container(self.id)
        except BaseException:
            output.close()
            following.join()
            raise
        self.pid = now["State"]["Pid"]
        for published in (now["NetworkSettings"].get("Ports") or {}).values():
            self.port = int(published[0]["HostPort"]) if published else 0
        self._attendant = self._thread(self._attend, following)

    def ended(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit

    def wait(self, timeout_s: float | None = None) -> Exit | None:
        """Wait for its end; None if it runs on."""
        self._done.wait(timeout_s)
        return self._exit

    def usage(self) -> Usage | None:
        """What it uses; None where the engine can't tell."""
        try:
            told = self._api.stats(self.id, stream=False, one_shot=True)
            cpu_s = told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            memory = told["memory_stats"]
            kinds = memory.get("stats") or {}
            reclaimable = kinds.get("total_inactive_file", kinds.get("inactive_file", 0))
            return Usage(cpu_s, max(0, memory["usage"] - reclaimable))
        except (*_PROBLEMS, KeyError):
            return None

    def stop(self, grace_s: float) -> None:
        """Ask it to end, kill what is left after `grace_s`, remove it. Raises EngineError if the engine is gone."""
        with self._asking("stopped"), contextlib.suppress(docker.errors.NotFound):
            self._api.stop(self.id, timeout=math.ceil(grace_s))
            self._done.wait(_LAST_WORDS_S)  # how it ended can't be asked once it is removed
        self.remove()

    def remove(self) -> None:
        """Kill it and remove it, with all it wrote. Raises EngineError if the engine is gone."""
        with self._asking("removed"):
            remove(self._api, self.id)
        if self._attendant is not None:
            self._attendant.join(2 * _LAST_WORDS_S)

    def _asking(self, done: str) -> contextlib.AbstractContextManager[None]:
        return asking(f"the container of ETL '{self._plan.etl}' can't be {done}")

    def _thread(self, job: Callable[..., None], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=job, args=args, name=f"container-{self.id[:12]}", daemon=True)
        thread.start()
        return thread

    def _attend(self, following: threading.Thread) -> None:
        """Wait for its end, and for its last words before it is told."""
        with contextlib.closing(FirstProcess(self.pid, self.id)) as process:
            while (how := self._look()) is None:
                process.wait()
        following.join(_LAST_WORDS_S)
        self._exit = how
        self._done.set()

    def _look(self) -> Exit | None:
        try:
            state = self._api.inspect_container(self.id)["State"]
        except docker.errors.NotFound:  # killed and removed
            return Exit(KILLED, memory=self._plan.memory)
        except _PROBLEMS:  # the engine is gone; containers may outlive it
            return None
        if state["Status"] not in _ENDED:  # Podman's "stopping" has no exit code yet
            return None
        return Exit(state["ExitCode"], state["OOMKilled"], self._plan.memory)


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn what the engine's library raises into an EngineError: `what`, and the engine's own answer."""
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineError(f"{what}: the container engine says: {error.explanation or error}") from error
    except _PROBLEMS as error:
        raise EngineError(f"{what}: the container engine does not answer ({type(error).__name__})") from error


def remove(api: Any, container_id: str) -> None:
    """Kill a container and remove it; one that is gone is well. Raises what the engine's library does."""
    with contextlib.suppress(docker.errors.APIError):  # killed first: Podman asks nicely before it removes
        api.kill(container_id)
    with contextlib.suppress(docker.errors.NotFound):
        api.remove_container(container_id, force=True, v=True)


def _copy(output: Any, log: BinaryIO) -> None:
    # what is closed is the answer below the stream: the stream's own close leaves the socket to the garbage collector
    with contextlib.suppress(*_PROBLEMS), log, contextlib.closing(output._response):
        for piece in output:
            log.write(piece)


def check(plan: ContainerPlan, made: dict[str, Any]) -> None:
    """See that the engine took the bounds: one that can't keep them warns at best, and runs the container without."""
    host = made["HostConfig"]
    wanted = {
        "NetworkMode": "bridge" if plan.network else "none",
        "ReadonlyRootfs": True,
        "Memory": plan.memory,
        "PidsLimit": plan.pids,
    }
    lost = [name for name, value in wanted.items() if host.get(name) != value]
    if lost:
        raise EngineError(f"the container engine does not keep {', '.join(lost)} of what a container must have")
