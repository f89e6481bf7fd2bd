"""Where the Ray engine asks for a task to be done: Ray itself is stood in for, as a cluster of several nodes is."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from transom.cluster.map import ClusterMap, Target
from transom.cluster.placement import owner
from transom.target.jobs.engines.chores import Chore, Chores, Opening
from transom.target.jobs.engines.executor import RESULT
from transom.target.jobs.engines.ray import RayEngine

HOSTS = {"t1": "10.0.0.1", "t2": "10.0.0.2", "t3": "10.0.0.2", "t4": "10.9.9.9"}  # the last is no node
TARGETS = ClusterMap(1, tuple(Target(name, host, 9000) for name, host in HOSTS.items()))


class Affinity:
    """Ray's strategy of that name: which node, whether another will do, and whether before that is free."""

    def __init__(self, node_id: str, soft: bool, _spill_on_unavailable: bool = False) -> None:
        self.asked = (node_id, soft, _spill_on_unavailable)


class Ray(ModuleType):
    """What the engine uses of Ray, on nodes "n1" and "n2"; this machine is "n1". Tasks come back as they were sent."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.asked: dict[int, Any] = {}
        self.exceptions = ModuleType("exceptions")
        for name in ("RayError", "RayTaskError", "RaySystemError"):
            setattr(self.exceptions, name, type(name, (Exception,), {}))

    def is_initialized(self) -> bool:
        return True

    def get_runtime_context(self) -> Ray:
        return self

    def get_node_id(self) -> str:
        return "n1"

    def nodes(self) -> list[dict[str, object]]:
        return [
            {"NodeID": f"n{n}", "Alive": True, "NodeManagerAddress": f"10.0.0.{n}", "NodeManagerHostname": f"n{n}"}
            | {"Resources": {"CPU": 2.0}}
            for n in (1, 2)
        ]

    def remote(self, **options: object) -> Callable[[object], Remote]:
        return lambda _: Remote(self, options)

    def put(self, value: object) -> object:
        return value

    def wait(self, refs: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return refs[:1], refs[1:]

    def get(self, ref: int) -> tuple[bytes, bytes]:
        return RESULT, pickle.dumps(ref)

    def cancel(self, ref: int, *, force: bool) -> None:
        raise AssertionError(f"{ref} was done already")


@dataclass(frozen=True)
class Remote:
    """A remote function; notes with which options it was called for each chore."""

    ray: Ray
    given: dict[str, object]

    def options(self, **options: object) -> Remote:
        return Remote(self.ray, {**self.given, **options})

    def remote(self, versions: object, shared: object, task: bytes) -> int:
        n: int = pickle.loads(task).n
        self.ray.asked[n] = self.given
        return n


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    made = Ray()
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = Affinity  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
    yield made


def test_a_task_prefers_the_node_of_its_target_but_does_not_wait_for_it(ray: Ray, tmp_path: Path) -> None:
    engine = RayEngine(Opening(tmp_path), targets=TARGETS)
    tasks = [Chore(n, place=place) for n, place in enumerate(["t1", "t2", "t3", "", "unknown"])]
    finished = list(engine.run(Chores(tmp_path), tasks, width=2))
    assert sorted(each.task.n for each in finished) == [0, 1, 2, 3, 4]
    strategies = [ray.asked[task.n].get("scheduling_strategy") for task in tasks]
    assert [each and each.asked for each in strategies] == [
        ("n1", True, True),
        ("n2", True, True),
        ("n2", True, True),
        None,
        None,
    ]
    assert {(each["num_cpus"], each["max_retries"]) for each in ray.asked.values()} == {(1, 3)}


def test_an_objects_place_is_its_owners_node(ray: Ray, tmp_path: Path) -> None:
    engine = RayEngine(Opening(tmp_path), targets=TARGETS)
    assert engine.places == ["t1", "t2"]  # t3 is on t2's node, and for t4 this machine works
    stands_for = {"t1": "t1", "t2": "t2", "t3": "t2", "t4": "t1"}
    owners = {}
    for key in map(str, range(50)):
        found = owner(TARGETS, "b", key)
        assert found is not None
        owners[key] = stands_for[found.id]
    assert {key: engine.place_of("b", key) for key in owners} == owners
    assert set(owners.values()) == {"t1", "t2"}
