"""What programs of command ETLs are run with: the sandbox, their bounds, and the object's own file where that helps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transom.target.errors import EtlUnavailable
from transom.target.etl.runtimes.command_line import shown
from transom.target.etl.runtimes.command_log import CommandLog
from transom.target.etl.runtimes.environment import Environments
from transom.target.etl.runtimes.jobs import Job, shared
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.sandbox.launch import Sandbox, SandboxUnavailable
from transom.target.etl.sandbox.program import GIB, Limits, Program
from transom.target.etl.spec import Spec

_PIDS = 512  # threads are counted too


@dataclass(frozen=True, slots=True)
class Workplace:
    """Of one process.

    `data` is the data folder, of which a program sees its own object at most; what it says goes to `log`.
    """

    sandbox: Sandbox
    environments: Environments
    data: Path
    log: CommandLog
    max_output: int = 16 * GIB

    def bound(self, spec: Spec) -> int:
        """How long a result may be, in bytes."""
        return spec.max_output or self.max_output

    def limits(self, spec: Spec) -> Limits:
        """The bounds of a program."""
        return limits_of(spec, self.max_output)

    def program(
        self, spec: Spec, argv: Sequence[str], env: Mapping[str, str], read: Sequence[Path], write: Sequence[Path] = ()
    ) -> Program:
        """A program for a command ETL: beside what is given it sees our worker SDK, and the files that it names."""
        sdk = self.environments.sdk()
        path = os.pathsep.join(filter(None, (str(sdk), env.get("PYTHONPATH"))))
        return Program(
            argv=tuple(argv),
            env={**env, "PYTHONPATH": path},
            read=(*shown(spec.runtime.command or (), self.data), sdk, *read),
            write=tuple(write),
            network=spec.network,
            limits=self.limits(spec),
        )

    def start(
        self, etl: str, program: Program, *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
    ) -> Confined:
        """Start a program, with a pipe for what it says. Raises EtlUnavailable."""
        try:
            return self.sandbox.start(program, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)
        except SandboxUnavailable as error:
            raise EtlUnavailable(f"ETL '{etl}' is unavailable: {error.message}", etl=etl) from error

    def links(self) -> Path:
        """The folder of the objects that programs are shown, each under a name for the time being."""
        folder = self.data / "run" / "commands"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
        return folder

    @contextmanager
    def linked(self, job: Job, folder: Path) -> Generator[str, None, None]:
        """The path of the stored object's own file in `folder`, for a program to read; "" where that can't be had."""
        if job.reader is None:
            yield ""
            return
        with shared(job.reader, folder, self.data) as path:
            yield path if path and self.sandbox.may_read(Path(path)) else ""


def limits_of(spec: Spec, max_output: int = 0) -> Limits:
    """The bounds of a program of this spec. `max_output` is of any file that it writes.

    What the spec says of its result is no bound of the files on the way there.
    """
    given = spec.resources
    memory = given.memory or GIB
    return Limits(
        memory=memory,
        cpu=given.cpu or 0.0,
        pids=given.pids or _PIDS,
        output=max_output,
        scratch=memory,  # it is memory
    )
