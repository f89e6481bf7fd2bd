"""Speaks the Docker Engine API, as Docker and Podman both serve it, over a unix socket: images, containers, reaping.

It knows nothing of specs, of health or of restarts. It needs the `docker` library: `pip install 'transom[containers]'`.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

import docker
import docker.errors

from transom.target.etl.runtimes.base import LABEL
from transom.target.etl.runtimes.container import Container, asking, remove
from transom.target.etl.runtimes.container_plan import ContainerPlan, Image, creation
from transom.target.etl.runtimes.engine_socket import EngineError, find_engine

_ANSWER_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which engine it is, and what runs its containers: the usual runtime, and the others it may be asked for."""

    name: str
    version: str
    runtime: str
    others: tuple[str, ...]


class Engine:
    """A container engine. Callable from several threads; every call may block until the engine answers."""

    def __init__(self, socket: str) -> None:
        """Connect to the engine at a socket's path. Raises EngineError."""
        with asking(f"no container engine at {socket}"):
            self.api: Any = docker.APIClient(f"unix://{socket}", version="auto", timeout=_ANSWER_TIMEOUT_S)
        self._words = ""

    @classmethod
    def open(cls, configured: str = "") -> Engine:
        """Connect to the configured engine, or to the one that is found."""
        return cls(find_engine(configured))

    def close(self) -> None:
        """Let go of idle connections."""
        self.api.close()

    def info(self) -> EngineInfo:
        """Ask the engine what it is; Podman takes half a second to tell. Raises EngineError."""
        with asking("the container engine can't be asked what it is"):
            version, info = self.api.version(), self.api.info()
        podman = _is_podman(version)
        return EngineInfo(
            name="podman" if podman else "docker",
            version=version["Version"],
            runtime=info.get("DefaultRuntime") or "",
            others=() if podman else tuple(info["Runtimes"]),  # Podman tells of many, and takes none from its API
        )

    def words(self, runtime: str = "") -> str:
        """What confines its containers, for an administrator: "container (podman 4.3.1)". Raises EngineError."""
        if not self._words:
            with asking("the container engine can't be asked what it is"):
                version = self.api.version()  # `info` would tell of the runtime too, and takes long
            self._words = f"{'podman' if _is_podman(version) else 'docker'} {version['Version']}"
        return f"container ({self._words}{f', {runtime}' if runtime else ''})"

    def image(self, reference: str, *, pull: bool = True, deadline: float = math.inf) -> Image:
        """What the engine knows of an image, pulled if it isn't there. Raises EngineError.

        `deadline` is of `time.monotonic`.
        """
        found = self._image(reference)
        if found is None and pull:
            self._pull(reference, deadline)
            found = self._image(reference)
        if found is None:
            raise EngineError(f"image '{reference}' is not on this machine, and is not to be pulled", final=True)
        return found

    def load(self, reference: str, archive: bytes) -> Image:
        """What the engine knows of an image of ours, loaded from its archive if it isn't there. Raises EngineError.

        `archive` is what `docker save` writes.
        """
        found = self._image(reference)
        if found is None:
            with asking(f"image '{reference}' can't be loaded"):
                for event in self.api.load_image(archive):
                    if "error" in event:
                        raise EngineError(f"image '{reference}' can't be loaded: {event['error']}")
            found = self._image(reference)
        if found is None:
            raise EngineError(f"image '{reference}' is not there, though the container engine loaded it", final=True)
        return found

    def start(self, plan: ContainerPlan, image: Image, log: BinaryIO) -> Container:
        """Create a container and start it; nothing is left of one that does not start. Raises EngineError.

        What it prints is written to `log`, by a thread of its own, which closes it after the last of it.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(log.close)
            if plan.runtime:
                self._check_runtime(plan.runtime)
            container = self._create(plan, image)
            undo.callback(container.remove)
            with asking(f"image '{plan.image}' does not start"):
                container.begin(log)
            undo.pop_all()
        return container

    def reap(self, folder: str) -> int:
        """Remove every container of a folder id, whoever started it; return how many there were."""
        with asking("the containers of before can't be removed"):
            left = self.api.containers(all=True, filters={"label": f"{LABEL}={folder}"})
            for each in left:
                remove(self.api, each["Id"])
        return len(left)

    def _create(self, plan: ContainerPlan, image: Image) -> Container:
        body = creation(plan, image, os.cpu_count() or 1)
        with asking(f"image '{plan.image}' can't be made a container"):
            made = self.api.create_container_from_config(body, name=f"transom-{plan.etl}-{secrets.token_hex(4)}")
        return Container(self.api, made["Id"], plan)

    def _check_runtime(self, runtime: str) -> None:
        info = self.info()
        if runtime == info.runtime or runtime in info.others:
            return
        remedy = "set it in its containers.conf" if info.name == "podman" else "it has " + ", ".join(info.others)
        raise EngineError(f"{info.name} can't be asked for the runtime '{runtime}': {remedy}", final=True)

    def _image(self, reference: str) -> Image | None:
        with asking(f"image '{reference}' can't be looked at"):
            try:
                found = self.api.inspect_image(reference)
            except docker.errors.NotFound:
                return None
        config = found["Config"] or {}
        return Image(found["Id"], config.get("User") or "", tuple(config.get("Env") or ()))

    def _pull(self, reference: str, deadline: float) -> None:
        """Pull in a thread of its own: the library waits for ever, and an engine stops when nobody waits any more.

        So what isn't there by the deadline may be there when it is asked for again.
        """
        problems: list[str] = []

        def pull() -> None:
            try:
                with asking("it can't be pulled"):
                    # errors come after the answer has begun
                    problems.extend(
                        f"it can't be pulled: the container engine says: {event['error']}"
                        for event in self.api.pull(reference, stream=True, decode=True)
                        if "error" in event
                    )
            except EngineError as error:
                problems.append(str(error))

        thread = threading.Thread(target=pull, name="pull", daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()) if deadline < math.inf else None)
        if thread.is_alive():
            problems.append("it is still being pulled")
        if problems:
            raise EngineError(f"image '{reference}' is not on this machine, and {problems[0]}")


def _is_podman(version: dict[str, Any]) -> bool:
    return any("podman" in each["Name"].lower() for each in version.get("Components") or ())
