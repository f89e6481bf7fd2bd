"""Starts workers that are programs of this machine: uploaded code, served by our own SDK, and commands that serve.

What confines them is a container or the sandbox, as the configuration says; what code needs installed beside it is the
environments'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from transom.target.errors import TargetError
from transom.target.etl.keeper.processes import tree_usage
from transom.target.etl.runtimes.base import Ended, Order, Running, StartError, Usage
from transom.target.etl.runtimes.command_line import check_program
from transom.target.etl.runtimes.contained import Contained
from transom.target.etl.runtimes.engine_socket import EngineError
from transom.target.etl.runtimes.environment import Place, code_launch
from transom.target.etl.runtimes.isolation import Isolating
from transom.target.etl.runtimes.workplace import Workplace
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.sandbox.program import Program
from transom.target.etl.spec import Spec, canonical_spec, from_json
from transom.target.etl.transports.base import Address

_LOOPBACK = "127.0.0.1"
_HOLDER = re.compile(r"\{(port|socket)\}")


class Programs:
    """A launcher of sandboxed programs. Callable from several threads."""

    def __init__(self, workplace: Workplace, isolating: Isolating, contained: Contained) -> None:
        self._workplace = workplace
        self._isolating = isolating
        self._contained = contained

    def start(self, order: Order) -> Running:
        """Start a program. Raises StartError."""
        spec = from_json(canonical_spec(order.spec))
        by_container = self._isolating.by_container(network=spec.network)
        try:
            program = self._code(order, spec) if spec.kind == "code" else self._command(order, spec)
            if not by_container:
                return self._sandboxed(order, program)
        except TargetError as error:
            raise StartError(error.message, final=True) from error
        try:
            return self._contained.start(order, program, public=bool(spec.redirect))
        except EngineError as error:
            self._contained.forget()
            self._isolating.failed(error, network=spec.network)  # with "auto" the next one is in the sandbox
            raise

    def own_network(self, spec: Spec) -> bool:
        """Whether a worker gets a network namespace of its own: with a network, the sandbox has the machine's."""
        return not spec.network or self._isolating.by_container(network=True)

    def reap(self, mark: str) -> None:
        """Nothing to do: processes are found by the mark in their environment."""

    def _sandboxed(self, order: Order, program: Program) -> ProgramWorker:
        sandbox = self._workplace.sandbox
        confined = sandbox.start(replace(program, serves=True), stdout=order.log_fd, stderr=order.log_fd)
        return ProgramWorker(confined, order, network=program.network, confinement=str(sandbox.found))

    def _code(self, order: Order, spec: Spec) -> Program:
        environments = self._workplace.environments
        environment = environments.get(spec.runtime.requirements)
        place = Place(order.folder, order.files)
        return code_launch(spec, environment, environments.sdk(), place, order.env, self._workplace.limits(spec))

    def _command(self, order: Order, spec: Spec) -> Program:
        holders = {"port": str(order.port), "socket": order.env["TRANSOM_SOCKET"]}
        argv = [_filled(word, holders) for word in spec.runtime.command or ()]
        check_program(order.etl, argv, order.env)
        read = () if order.files is None else (order.files,)
        return self._workplace.program(spec, argv, order.env, read, (order.folder,))


class ProgramWorker:
    """A worker that is a program. Callable from several threads."""

    container = ""
    hint = ""

    def __init__(self, confined: Confined, order: Order, *, network: bool, confinement: str) -> None:
        self.confinement = confinement
        self._confined = confined
        self._order = order
        self._network = network

    @property
    def pid(self) -> int:
        """The outermost process."""
        return self._confined.pid

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it may come to listen: its socket, and its port, within its own network if it has one."""
        socket = Address(unix=self._order.env["TRANSOM_SOCKET"])
        if self._network:
            return socket, Address(host=_LOOPBACK, port=self._order.port)
        inside = self._confined.inside
        if inside == self._confined.pid:  # not so far yet, or nothing is around it
            return (socket,)
        return socket, Address(host=_LOOPBACK, port=self._order.port, netns_pid=inside)

    def ended(self, words: str = "") -> Ended | None:
        """How it ended, None while it runs."""
        ending = self._confined.ended(words)
        return None if ending is None else Ended(str(ending), ending.bound)

    def usage(self) -> Usage | None:
        """What it uses."""
        return tree_usage(self.pid)

    def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill what is left after `grace_s`."""
        self._confined.stop(grace_s)


def _filled(word: str, holders: Mapping[str, str]) -> str:
    return _HOLDER.sub(lambda match: holders[match[1]], word)
