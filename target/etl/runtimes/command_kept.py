"""A program that is kept and takes one object after another, in frames on its standard input and output."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from transom.target.errors import EtlFailed
from transom.target.etl.runtimes.command_end import crash, ended, with_hint
from transom.target.etl.runtimes.command_line import check_program
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.runtimes.workplace import Workplace
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.transports.frames import FramedProgram
from transom.target.etl.watch import Watch

_WORDS = 4096
_END_S = 5.0


class KeptProgram:
    """One such program of one ETL's revision. Not for two threads at once."""

    def __init__(self, job: Job, watch: Watch, workplace: Workplace) -> None:
        """Start it and wait until it says hello. Raises EtlFailed, EtlCrashed, EtlUnavailable, and as `watch` says."""
        self._workplace = workplace
        self._etl = job.stage.etl
        # Where it is shown objects' own files, if it wants them: it can't be shown more once it runs.
        self._files = Path(tempfile.mkdtemp(dir=workplace.links()))
        self._files.chmod(0o755)
        ours, theirs = socket.socketpair()
        self._program = FramedProgram(ours)
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(shutil.rmtree, self._files, ignore_errors=True)
            undo.callback(self._program.close)
            self._confined = self._start(job, theirs)
            self._words = _Words(self._confined.process, lambda words: workplace.log.write(self._etl, words))
            undo.pop_all()
        try:
            self._program.greet(job.spec.init_timeout_s, watch.check)
        except (TimeoutError, EOFError, ConnectionError) as error:
            end = self._crash(error)
            self.kill()
            raise end from error
        except BaseException:
            self.kill()
            raise

    @property
    def idle(self) -> bool:
        """Whether it waits for an object: only then can it be used again."""
        return self._program.idle

    @property
    def alive(self) -> bool:
        """Whether it still runs: what is around it may outlive it for a moment."""
        return self._confined.ended() is None and self._program.is_quiet()

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one object; raises as `FramedProgram.run` does, and EtlCrashed for a program that is gone."""
        linked = self._workplace.linked(job, self._files) if job.spec.direct_file else contextlib.nullcontext("")
        with linked as path:
            try:
                yield from self._program.run(job.call(path), chunks, watch)
            except (EOFError, ConnectionError) as error:
                raise self._crash(error) from error
            except EtlFailed as error:
                program = self._confined.program
                raise with_hint(error, program.limits, network=program.network) from error

    def kill(self) -> None:
        """End it now and remove what it left."""
        self._program.close()
        self._confined.close()
        self._words.close()
        shutil.rmtree(self._files, ignore_errors=True)

    def _start(self, job: Job, end: socket.socket) -> Confined:
        spec, etl = job.spec, self._etl
        words = spec.runtime.command or ()
        env = {**spec.runtime.env, "TRANSOM_ETL": etl, "TRANSOM_MAX_OUTPUT": str(self._workplace.bound(spec))}
        if spec.direct_file:
            env |= {"TRANSOM_DIRECT_FILE": "1", "TRANSOM_DIRECT_ROOT": str(self._files)}
        check_program(etl, words, env)
        program = self._workplace.program(spec, words, env, [self._files])
        return self._workplace.start(etl, program, stdin=end.fileno(), stdout=end.fileno())

    def _crash(self, error: Exception) -> Exception:
        """What to say of a program that hung up, or talks no frames."""
        with contextlib.suppress(TimeoutError):
            self._confined.wait(_END_S if isinstance(error, EOFError) else 0.0)
        if self._confined.ended() is None:
            said = str(error) or "it closed its standard output"
            return crash(self._etl, said)
        self._words.close()  # its last words may still be on their way
        words = self._words.last
        ending = self._confined.ended(words)
        assert ending is not None
        return crash(self._etl, ended(ending, words, self._confined.program), ending.bound)


class _Words:
    """Reads what a program says on its standard error, for it would wait else: into the log, and remembers the last."""

    def __init__(self, process: subprocess.Popen[bytes], log: Callable[[bytes], None]) -> None:
        assert process.stderr is not None
        self._log = log
        self._fd = os.dup(process.stderr.fileno())  # the thread's own to close
        self._end = b""
        self._thread = threading.Thread(target=self._read, name="etl-words", daemon=True)
        self._thread.start()

    @property
    def last(self) -> str:
        """The end of what it said."""
        return self._end.decode(errors="replace")

    def close(self) -> None:
        """Wait for the rest; the program has ended."""
        self._thread.join(_END_S)

    def _read(self) -> None:
        with contextlib.closing(os.fdopen(self._fd, "rb", buffering=0)) as said:
            while piece := said.read(_WORDS):
                self._end = (self._end + piece)[-_WORDS:]
                self._log(piece)
