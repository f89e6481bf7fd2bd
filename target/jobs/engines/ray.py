"""The Ray engine: a job's tasks as Ray tasks, near the targets that own their objects where those are Ray nodes.

Ray does again what was lost with a node or a worker. It knows nothing of what a task does.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import secrets
import signal
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from transom.cluster.map import ClusterMap
from transom.cluster.placement import owner
from transom.target.etl.workers_status import LOCAL
from transom.target.jobs.engines.base import Engine, EngineUnavailable, Finished, Opener, R, T, Work
from transom.target.jobs.engines.executor import RESULT, load_error
from transom.target.jobs.engines.ray_worker import our_versions, perform

RETRIES = 3  # how often Ray begins a task again whose worker or node was lost
RESOURCE = "target:"  # a node started with the resource "target:NAME" is that target's
_OWN_MEMORY = 256 * 1024**2  # bytes, for results under way on a cluster of the job's own
_LOOK_S = 0.25
_ANSWER_S = 5.0
_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # our process is no `uv run` project to be packed and sent to the nodes
    "RAY_task_oom_retries": str(RETRIES),  # else without end
}
_INSTALL = "pip install 'transom[ray]' in the server's environment and on every node"
_START = "make this machine a node with 'ray start', of the cluster that [jobs] ray_address names"


class RayEngine(Engine):
    """Performs tasks on the Ray cluster at `address`: "auto", HOST:PORT of its head, or "local" for one of its own.

    This machine must be a node of the cluster. A target is where a node has the resource "target:NAME", else where
    the node has the target's address in `targets`, else on this machine.
    """

    def __init__(self, opener: Opener, *, address: str = "auto", targets: ClusterMap | None = None) -> None:
        """Connect. Raises EngineUnavailable."""
        self._ray, self._ours = connect(address)
        self._opener = pickle.dumps(opener)
        self._map = targets or ClusterMap()
        here = self._ray.get_runtime_context().get_node_id()
        self._nodes = nodes_of_targets(self._ray.nodes(), self._map, here)
        self._first = {node: target for target, node in sorted(self._nodes.items(), reverse=True)}
        self._perform = self._ray.remote(num_cpus=1, max_retries=RETRIES)(perform)

    @property
    def places(self) -> Sequence[str]:
        """The targets that are nodes of the cluster; of those on one node, the first stands for all."""
        return sorted(self._first.values())

    def place_of(self, bucket: str, key: str) -> str:
        """The place of the target that owns the object."""
        if len(self._first) == 1:
            return next(iter(self._first.values()))
        target = owner(self._map, bucket, key)
        return self._first[self._nodes[target.id]] if target is not None and target.id in self._nodes else ""

    @property
    def cores(self) -> int:
        """The cluster's CPUs, as Ray counts them."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)))

    def run(
        self, work: Work[T, R], tasks: Iterable[T], *, width: int, look: Callable[[], None] | None = None
    ) -> Generator[Finished[T, R], None, None]:
        """Perform every task; one that takes its worker along again and again comes back as lost."""
        shared = self._ray.put((self._opener, pickle.dumps(work)))
        run: _Run[T, R] = _Run(self._ray, lambda task: self._submit(shared, task), iter(tasks), width, look)
        try:
            yield from run.finished()
        finally:
            run.cancel()

    def close(self) -> None:
        """Leave the cluster, which ends the workers that it gave."""
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _submit(self, shared: object, task: T) -> Any:
        call = self._perform
        if task.place in self._nodes:
            call = call.options(scheduling_strategy=self._near(self._nodes[task.place]))
        return call.remote(our_versions(), shared, pickle.dumps(task, pickle.HIGHEST_PROTOCOL))

    def _near(self, node: str) -> object:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        # without the last, a task would wait for a busy node while others idle
        return strategies.NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)


@dataclass(slots=True)
class _Run(Generic[T, R]):
    """One run: what is under way, by Ray's reference to its result."""

    ray: Any
    submit: Callable[[T], Any]
    tasks: Iterator[T]
    width: int
    look: Callable[[], None] | None
    pending: dict[Any, T] = field(default_factory=dict)

    def finished(self) -> Iterator[Finished[T, R]]:
        """Submit and take back until nothing is left."""
        while True:
            self._fill()
            if not self.pending:
                return
            ready, _ = self.ray.wait(list(self.pending), timeout=_LOOK_S)
            if not ready and self.look is not None:
                self.look()
            for ref in ready:
                came = self._take(ref)
                self._fill()  # before the caller looks at it: no worker waits for that
                yield came

    def cancel(self) -> None:
        """Stop what is under way, workers and all."""
        for ref in self.pending:
            self.ray.cancel(ref, force=True)
        self.pending.clear()

    def _fill(self) -> None:
        while len(self.pending) < self.width:
            for task in self.tasks:
                self.pending[self.submit(task)] = task
                break
            else:
                return

    def _take(self, ref: Any) -> Finished[T, R]:
        task = self.pending.pop(ref)
        errors = self.ray.exceptions
        try:
            kind, data = self.ray.get(ref)
        except (errors.RayTaskError, errors.RaySystemError) as error:  # ours never raises: it is not there
            raise EngineUnavailable(
                f"a node of the Ray cluster can't do the job's tasks: {error}\n{_INSTALL}"
            ) from error
        except errors.RayError as error:
            return Finished(task, None, lost=f"{type(error).__name__} after {RETRIES} retries")
        if kind != RESULT:
            raise load_error(data)
        return Finished(task, pickle.loads(data))  # noqa: S301 - of our own worker


def connect(address: str) -> tuple[Any, bool]:
    """Ray, connected to the cluster at `address`, and whether that was done here. Raises EngineUnavailable."""
    for name, value in (_SETTINGS | (_own_secret() if address == "local" else {})).items():
        os.environ.setdefault(name, value)
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise EngineUnavailable(f"the Ray engine needs the package 'ray': {_INSTALL}") from error
    if ray.is_initialized():
        return ray, False
    _check_answers(address)
    logging.getLogger("ray").setLevel(logging.ERROR)
    handler = signal.getsignal(signal.SIGTERM)  # Ray takes it
    own = {} if address != "local" else {"include_dashboard": False, "object_store_memory": _OWN_MEMORY}
    try:
        ray.init(
            address=address,
            configure_logging=False,
            log_to_driver=False,
            namespace="transom",
            runtime_env={},
            **own,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        cause = error.__cause__ or error.__context__ or error
        raise EngineUnavailable(f"there is no usable Ray cluster at {address}: {error}: {cause}; {_START}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray, True


def _own_secret() -> dict[str, str]:
    """The settings by which only this process can use the cluster that it starts; Ray itself would keep a file."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _check_answers(address: str) -> None:
    """Refuse a head that doesn't answer at once: Ray itself would try for two minutes."""
    if address.startswith("ray://"):
        raise EngineUnavailable(f"Ray's client protocol can't run jobs: name the head's HOST:PORT instead of {address}")
    address = _last_address() if address == "auto" else address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as error:
        raise EngineUnavailable(f"no Ray cluster answers at {address}: {error}; {_START}") from error


def _last_address() -> str:
    """What "auto" means to Ray where somebody said it, or a cluster was started here: it may be gone since."""
    said = os.environ.get("RAY_ADDRESS", "")
    if said:
        return said
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - Ray's own choice
    try:
        return Path(folder, "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


def nodes_of_targets(nodes: Iterable[Mapping[str, Any]], targets: ClusterMap, here: str) -> dict[str, str]:
    """The node of each target; a server without a map is one target."""
    alive = [node for node in nodes if node["Alive"]]
    hosts = {
        host: node["NodeID"] for node in alive for host in (node["NodeManagerAddress"], node["NodeManagerHostname"])
    }
    found = {target.id: hosts.get(target.host, here) for target in targets.targets} or {LOCAL: here}
    for node in alive:
        names = [name.removeprefix(RESOURCE) for name in node["Resources"] if name.startswith(RESOURCE)]
        found.update({name: node["NodeID"] for name in names if name in found})
    return found
