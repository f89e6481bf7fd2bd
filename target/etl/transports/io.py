"""Pumps one object through a program: its input, its output, its last words. `frames` has the persistent kind.

It starts, ends and explains no process: whoever started the program reads its exit code, and kills what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
from collections.abc import Generator, Iterator

from transom.target.etl.watch import Watch

PIPE_SIZE = 1024 * 1024  # as much as Linux lets anybody ask for; also the largest piece that comes out
_WORDS_SIZE = 4096
_LOOK_MS = 250


class Pipes:
    """This side's ends of a started program's standard streams, which it closes. A stream may go elsewhere (None)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Take over the streams of `process`, which nobody may have waited for yet."""
        self._streams = [stream for stream in (process.stdin, process.stdout, process.stderr) if stream is not None]
        self.stdin = -1 if process.stdin is None else process.stdin.fileno()
        self.stdout = -1 if process.stdout is None else process.stdout.fileno()
        self.stderr = -1 if process.stderr is None else process.stderr.fileno()
        self.ended = os.pidfd_open(process.pid)  # readable once the program has ended, reaped or not
        self._words = bytearray()
        for stream in self._streams:
            os.set_blocking(stream.fileno(), False)
        for fd in {self.stdin, self.stdout} - {-1}:
            # Refused when this user has too much memory in pipes already: then it stays at 64 KiB.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    @property
    def last_words(self) -> str:
        """The end of what the program wrote to its standard error; a first line that was cut is left out."""
        words = bytes(self._words)
        if len(words) > _WORDS_SIZE:
            words = words[-_WORDS_SIZE:].partition(b"\n")[2] or words[-_WORDS_SIZE:]
        return words.decode(errors="replace").strip()

    def hear(self, words: bytes) -> None:
        """Remember what came from the program's standard error, the end of it."""
        self._words += words
        del self._words[: -_WORDS_SIZE - 1]

    def end_input(self) -> None:
        """Close the program's standard input."""
        for stream in self._streams:
            if not stream.closed and stream.fileno() == self.stdin:
                stream.close()
        self.stdin = -1

    def close(self) -> None:
        """Close everything; harmless when done before."""
        for stream in self._streams:
            stream.close()
        if self.ended >= 0:
            os.close(self.ended)
            self.ended = -1


def pump(pipes: Pipes, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
    """Feed `chunks` to the program and yield what it writes, in pieces of up to 1 MiB, until it has ended.

    A program may stop reading before the end of its input. What a child that it left behind might still write is not
    waited for. Closes `pipes`, and neither reaps nor kills: the caller does, after the end and after any exception.
    """
    with contextlib.closing(pipes):
        feed = _feeder(pipes.stdin, chunks)
        poller = select.poll()
        poller.register(pipes.ended, select.POLLIN)
        for fd, event in ((pipes.stdin, select.POLLOUT), (pipes.stdout, select.POLLIN), (pipes.stderr, select.POLLIN)):
            if fd >= 0:
                poller.register(fd, event)
        timeout_ms = _LOOK_MS
        while (ready := poller.poll(timeout_ms)) or timeout_ms:
            watch.check()
            for fd, _ in ready:
                if fd == pipes.ended:
                    poller.unregister(fd)
                    timeout_ms = 0  # from here on only what is in the pipes already
                elif fd == pipes.stdin:
                    if not next(feed, False):
                        poller.unregister(fd)
                        pipes.end_input()
                elif not (piece := os.read(fd, PIPE_SIZE)):
                    poller.unregister(fd)
                elif fd == pipes.stdout:
                    yield piece
                else:
                    pipes.hear(piece)


def _feeder(stdin: int, chunks: Iterator[bytes]) -> Iterator[bool]:
    """Write what fits each time it is asked; ends with the input, or when the program no longer reads."""
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(stdin, view) :]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                return
            yield True
