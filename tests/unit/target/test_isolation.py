"""What decides between a container and the sandbox: the configuration, an engine that answers, a trial."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from transom.target.etl.runtimes.base import StartError
from transom.target.etl.runtimes.engine_socket import NoEngineError
from transom.target.etl.runtimes.isolation import Isolating, Isolation

NONE = NoEngineError("no container engine: start podman")
LAX = StartError("it does not confine them: CapEff")


@dataclass
class Machine:
    """A machine with an engine or without, whose trials are told, and a clock."""

    engine: StartError | None = None
    trial: dict[bool, StartError] = field(default_factory=dict)
    tried: list[bool] = field(default_factory=list)
    now: float = 0.0

    def find(self) -> str:
        if self.engine is not None:
            raise self.engine
        return "/engine.sock"

    def check(self, *, network: bool) -> None:
        self.tried.append(network)
        if network in self.trial:
            raise self.trial[network]

    def isolating(self, isolation: Isolation) -> Isolating:
        return Isolating(isolation, self, self.find, lambda: self.now)


def test_auto_takes_the_engine_that_is_there() -> None:
    machine = Machine()
    isolating = machine.isolating("auto")
    assert isolating.by_container(network=False) and isolating.by_container(network=True)
    assert machine.tried == [False, True]


def test_auto_takes_the_sandbox_where_no_engine_answers_and_asks_none() -> None:
    machine = Machine(engine=NONE)
    assert not machine.isolating("auto").by_container(network=False)
    assert machine.tried == []


def test_auto_does_not_believe_an_engine_that_failed_the_trial() -> None:
    machine = Machine(trial={True: LAX})
    isolating = machine.isolating("auto")
    assert isolating.by_container(network=False) and not isolating.by_container(network=True)


def test_auto_looks_again_after_a_while() -> None:
    machine = Machine(engine=NONE)
    isolating = machine.isolating("auto")
    assert not isolating.by_container(network=False)
    machine.engine, machine.now = None, 59
    assert not isolating.by_container(network=False)
    machine.now = 61
    assert isolating.by_container(network=False)


def test_auto_takes_the_sandbox_after_a_start_that_failed_though_the_trial_passed() -> None:
    machine = Machine()
    isolating = machine.isolating("auto")
    assert isolating.by_container(network=False)
    isolating.failed(LAX, network=False)
    assert not isolating.by_container(network=False)
    assert isolating.by_container(network=True)
    machine.now = 61
    assert isolating.by_container(network=False)


def test_the_sandbox_is_taken_without_a_look_where_that_is_wanted() -> None:
    machine = Machine()
    assert not machine.isolating("sandbox").by_container(network=False)
    assert machine.tried == []


@pytest.mark.parametrize("machine", [Machine(engine=NONE), Machine(trial={False: LAX})], ids=["none", "lax"])
def test_a_container_that_is_a_must_is_never_replaced_by_the_sandbox(machine: Machine) -> None:
    with pytest.raises(
        StartError, match=r'isolation is "container", and can.t: .*isolation = "sandbox" under'
    ) as caught:
        machine.isolating("container").by_container(network=False)
    assert str(machine.engine or LAX) in str(caught.value)
    assert not caught.value.final  # an engine may be started
