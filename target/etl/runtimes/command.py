"""Runs commands that are no servers: a program for each object, or one that is kept and takes one after another.

Standard input to standard output, or files by their placeholders. What confines the programs is the sandbox's.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.target.errors import EtlFailed, EtlOutputTooLarge
from transom.target.etl.runtimes.command_end import failure
from transom.target.etl.runtimes.command_keeping import KeptPrograms
from transom.target.etl.runtimes.command_kept import KeptProgram
from transom.target.etl.runtimes.command_line import check_program, environment, filled, takes
from transom.target.etl.runtimes.jobs import Job, suffix_of
from transom.target.etl.runtimes.workplace import Workplace
from transom.target.etl.transports.io import Pipes, pump
from transom.target.etl.watch import Watch

_PIECE = 1024 * 1024
_END_S = 10.0
_KEPT_UNUSED_S = 300.0


class CommandRuntime:
    """Runs the stages of command ETLs in one process. Callable from any thread.

    Programs that are kept end once they weren't used for `unused_s`, and with a `catalog` once their ETL was stopped,
    removed, changed or restarted.
    """

    def __init__(
        self, workplace: Workplace, catalog: Catalog | None = None, *, unused_s: float = _KEPT_UNUSED_S
    ) -> None:
        self._workplace = workplace
        self._kept = KeptPrograms(lambda job, watch: KeptProgram(job, watch, workplace), catalog, unused_s=unused_s)

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one stage. Raises Skip, Reject, the Etl* errors, what `chunks` raises and what `watch` has to say."""
        if job.spec.io == "persistent":
            return self._kept.run(job, chunks, watch)
        return _Once(self._workplace, job, watch).run(chunks)

    def close(self) -> None:
        """End what still runs."""
        self.forget()
        self._workplace.sandbox.close()

    def forget(self) -> None:
        """End the programs that are kept, and keep none from now on."""
        self._kept.close()


class _Once:
    """One object through one program of its own."""

    def __init__(self, workplace: Workplace, job: Job, watch: Watch) -> None:
        self._workplace = workplace
        self._job = job
        self._watch = watch
        self._etl = job.stage.etl
        self._words = job.spec.runtime.command or ()
        self._bound = workplace.bound(job.spec)

    def run(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Yield what the program makes."""
        with ExitStack() as stack:
            files: dict[str, Path] = {}
            if takes(self._words, "input") or self._job.spec.direct_file:
                files["input"] = self._input(stack, chunks)
                chunks = iter(())
            if takes(self._words, "output"):
                files["output"] = self._folder(stack) / f"output{self._suffix()}"
            yield from self._bounded(self._ran(files, chunks))
            if "output" in files:
                yield from self._bounded(self._read(files["output"]))

    def _ran(self, files: dict[str, Path], chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Run the program to its end, and yield what it writes to its standard output."""
        spec, call = self._job.spec, self._job.call()
        env = environment(spec, call)
        given, made = files.get("input"), files.get("output")
        if given:
            env["TRANSOM_INPUT"] = str(given)
        check_program(self._etl, self._words, env)
        program = self._workplace.program(
            spec, filled(self._words, call, files), env, [given] if given else [], [made.parent] if made else []
        )
        confined = self._workplace.start(
            self._etl,
            program,
            stdin=subprocess.DEVNULL if given else subprocess.PIPE,
            stdout=subprocess.DEVNULL if made else subprocess.PIPE,
        )
        with closing(confined):
            pipes = Pipes(confined.process)
            try:
                with closing(pump(pipes, chunks, self._watch)) as pieces:
                    yield from pieces
            finally:
                self._workplace.log.write_about(self._etl, call.bucket, call.key, pipes.last_words)
            ending = confined.wait(_END_S, pipes.last_words)
            error = failure(self._etl, ending, pipes.last_words, program)
            if error is not None:
                raise error

    def _bounded(self, pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        with closing(pieces):
            total = 0
            for piece in pieces:
                total += len(piece)
                if total > self._bound:
                    raise EtlOutputTooLarge(f"ETL '{self._etl}' made more than {self._bound} bytes", etl=self._etl)
                yield piece

    def _input(self, stack: ExitStack, chunks: Iterator[bytes]) -> Path:
        """The object as a file: its own where the program can read that, else a copy."""
        own = stack.enter_context(self._workplace.linked(self._job, self._workplace.links()))
        if own:
            return Path(own)
        copy = self._folder(stack) / f"input{self._suffix(of_input=True)}"
        with copy.open("wb") as file:
            for chunk in chunks:
                self._watch.check()
                file.write(chunk)
        copy.chmod(0o444)
        return copy

    def _folder(self, stack: ExitStack) -> Path:
        folder = self._workplace.sandbox.folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _suffix(self, *, of_input: bool = False) -> str:
        """A file's extension: programs go by it."""
        if self._job.spec.extension and not of_input:
            return f".{self._job.spec.extension}"
        return suffix_of(self._job.context.key)

    def _read(self, path: Path) -> Generator[bytes, None, None]:
        """Read the output. The program made it: it may be anything but a file."""
        try:
            file = open(path, "rb", buffering=0, opener=_plainly)  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise EtlFailed(f"ETL '{self._etl}' failed: its program made no output file", etl=self._etl) from None
        except OSError as error:
            raise EtlFailed(f"ETL '{self._etl}' failed: its output is no plain file", etl=self._etl) from error
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise EtlFailed(f"ETL '{self._etl}' failed: its output is no plain file", etl=self._etl)
            while piece := file.read(_PIECE):
                self._watch.check()
                yield piece


def _plainly(path: str, flags: int) -> int:
    """Open without following a link, or waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
