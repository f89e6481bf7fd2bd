"""Everything a stage may run on that is no plugin: programs, kept workers, somebody else's service. Chooses by spec."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from transom.target.etl.plan import Stage
from transom.target.etl.runtimes.handover import Handover
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.runtimes.served import ServedRuntime, is_served
from transom.target.etl.runtimes.url import UrlRuntime
from transom.target.etl.spec import from_json
from transom.target.etl.watch import Watch


class Runtime(Protocol):
    """Runs stages. Callable from any thread."""

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one stage; see `Transport`."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The runtimes of one process; `commands` has the programs that are started here, for an object or for many."""

    served: ServedRuntime
    commands: Runtime
    urls: UrlRuntime
    handover: Handover | None = None

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one stage where its spec says; see `Transport`."""
        if job.stage.runtime == "url":
            return self.urls.run(job, chunks, watch)
        if is_served(job.stage):
            return self.served.run(job, chunks, watch)
        return self.commands.run(job, chunks, watch)

    def only_waits(self, stage: Stage) -> bool:
        """Whether to run the stage is to exchange messages over a socket, and no more."""
        return stage.runtime == "url" or (is_served(stage) and not from_json(stage.spec).direct_file)

    def close(self) -> None:
        """Let go of everything."""
        self.served.close()
        self.commands.close()
        self.urls.close()
