"""Puts together the runtimes of a server process, and the launchers of a keeper. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.target.etl.keeper.places import Places
from transom.target.etl.locks import ByteHolds
from transom.target.etl.runtimes.base import MARK, Launcher
from transom.target.etl.runtimes.command import CommandRuntime
from transom.target.etl.runtimes.command_log import CommandLog
from transom.target.etl.runtimes.contained import Contained
from transom.target.etl.runtimes.containers import Containers
from transom.target.etl.runtimes.elsewhere import Elsewhere
from transom.target.etl.runtimes.engine_socket import find_engine
from transom.target.etl.runtimes.environment import Environments
from transom.target.etl.runtimes.handover import Handover
from transom.target.etl.runtimes.isolation import Isolating, Isolation
from transom.target.etl.runtimes.programs import Programs
from transom.target.etl.runtimes.served import ServedRuntime
from transom.target.etl.runtimes.url import UrlRuntime
from transom.target.etl.runtimes.url_rules import UrlRules
from transom.target.etl.runtimes.workplace import Workplace
from transom.target.etl.sandbox.launch import Sandbox
from transom.target.etl.sandbox.program import GIB


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the configuration says of runtimes; `master` is the secret that those of ETLs are derived from."""

    master: bytes = field(repr=False)
    url_allow: tuple[str, ...] = ()
    allow_unsandboxed: bool = False
    isolation: Isolation = "auto"
    engine: str = ""
    engine_runtime: str = ""
    engine_pulls: bool = True
    max_output: int = 16 * GIB


def build_elsewhere(
    places: Places, settings: RuntimeSettings, scratch: Path, catalog: Catalog | None = None
) -> Elsewhere:
    """The runtimes of one process; `scratch` is the folder for what runs write meanwhile.

    By the `catalog` it learns that programs are wanted no more; a job, which goes on as it was planned, has none.
    """
    served = ServedRuntime(places, scratch)
    urls = UrlRuntime(UrlRules.parse(settings.url_allow), settings.master, ByteHolds(places.pulls), scratch)
    commands = CommandRuntime(_workplace(places, settings, scratch), catalog)
    return Elsewhere(served, commands, urls, Handover(served, settings.master))


def build_launchers(places: Places, settings: RuntimeSettings) -> dict[str, Launcher]:
    """What a keeper starts workers with, by runtime."""
    places.scratch.mkdir(parents=True, exist_ok=True)
    containers = Containers(settings.engine, pull=settings.engine_pulls, runtime=settings.engine_runtime)
    contained = Contained(containers, [places.folder], places.mark)
    isolating = Isolating(settings.isolation, contained, lambda: find_engine(settings.engine))
    programs = Programs(_workplace(places, settings, places.scratch), isolating, contained)
    return {"code": programs, "command": programs, "container": containers}


def sandbox_words(places: Places, settings: RuntimeSettings) -> Callable[[], str]:
    """What says how programs are confined that are started for an object or for many. Looks when it is first asked."""
    sandbox = _workplace(places, settings, places.scratch).sandbox
    return lambda: str(sandbox.found)


def _workplace(places: Places, settings: RuntimeSettings, scratch: Path) -> Workplace:
    sandbox = Sandbox(
        scratch,
        hidden=[places.folder],
        marks={MARK: places.mark},
        allow_unsandboxed=settings.allow_unsandboxed,
    )
    environments = Environments(places.environments, sandbox)
    return Workplace(sandbox, environments, places.folder, CommandLog(places.logs), settings.max_output)
