"""Real programs that take one object on standard input: all ways to read, to write and to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from transom.target.errors import EtlTimeout
from transom.target.etl.transports.io import Pipes, pump
from transom.target.etl.watch import AbandonedError, Watch

MIB = 1024 * 1024
Start = Callable[..., tuple[subprocess.Popen[bytes], Pipes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs; whatever still runs at the end is killed."""
    started: list[tuple[subprocess.Popen[bytes], Pipes]] = []

    def start(*command: str, **streams: int) -> tuple[subprocess.Popen[bytes], Pipes]:
        given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        process = subprocess.Popen(command, **given)  # type: ignore[call-overload]
        started.append((process, Pipes(process)))
        return started[-1]

    yield start
    for process, pipes in started:
        pipes.close()
        process.kill()
        process.wait()


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-I", "-S", "-c", code


def watch(timeout_s: float = 20) -> Watch:
    return Watch("e", timeout_s)


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (MIB,), (3 * MIB, 1, 5)])
def test_what_goes_in_comes_out(start: Start, sizes: tuple[int, ...]) -> None:
    process, pipes = start("cat")
    chunks = [os.urandom(size) for size in sizes]
    assert b"".join(pump(pipes, iter(chunks), watch())) == b"".join(chunks)
    assert process.wait() == 0


def test_a_large_object_is_pumped_piece_by_piece(start: Start) -> None:
    process, pipes = start("cat")
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(64):
            taken += MIB
            yield bytes(MIB)

    given = 0
    for piece in pump(pipes, chunks(), watch()):
        given += len(piece)
        assert len(piece) <= MIB
        assert taken - given <= 4 * MIB
    assert given == 64 * MIB
    assert process.wait() == 0


def test_output_may_be_larger_than_input_and_come_before_it_is_read(start: Start) -> None:
    _, pipes = start(*python("import sys; [sys.stdout.write('x' * 1000000) for _ in range(8)]; sys.stdin.read()"))
    assert len(b"".join(pump(pipes, iter([bytes(MIB)] * 8), watch()))) == 8_000_000


def test_a_program_may_stop_reading(start: Start) -> None:
    process, pipes = start("head", "-c", "5")
    assert b"".join(pump(pipes, iter([b"123456789" * 100_000] * 100), watch())) == b"12345"
    assert process.wait() == 0


def test_a_program_may_close_its_output_and_work_on(start: Start) -> None:
    code = "import os, sys; os.close(1); sys.stdin.buffer.read(); sys.stderr.write('done'); sys.exit(4)"
    process, pipes = start(*python(code))
    assert list(pump(pipes, iter([b"x" * MIB]), watch())) == []
    assert (process.wait(), pipes.last_words) == (4, "done")


def test_a_child_left_behind_is_not_waited_for(start: Start) -> None:
    process, pipes = start("sh", "-c", "sleep 30 & echo $!")
    began = time.monotonic()
    output = b"".join(pump(pipes, iter([b"x"]), watch()))
    assert time.monotonic() - began < 10
    os.kill(int(output), 9)
    assert process.wait() == 0


def test_last_words_are_the_end_of_standard_error(start: Start) -> None:
    code = "import sys; sys.stderr.write('x' * 200_000 + '\\n' + 'word ' * 500 + '\\nthe last\\n')"
    _, pipes = start(*python(code))
    assert list(pump(pipes, iter([]), watch())) == []
    assert pipes.last_words == ("word " * 500).rstrip() + " \nthe last"


def test_one_endless_line_of_last_words_is_cut(start: Start) -> None:
    _, pipes = start(*python("import sys; sys.stderr.write('x' * 200_000)"))
    assert list(pump(pipes, iter([]), watch())) == []
    assert pipes.last_words == "x" * 4096


def test_streams_may_go_elsewhere(start: Start) -> None:
    nowhere = subprocess.DEVNULL
    process, pipes = start(*python("import sys; sys.exit('why')"), stdin=nowhere, stdout=nowhere)
    assert list(pump(pipes, iter([]), watch())) == []
    assert (process.wait(), pipes.last_words) == (1, "why")


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(30)", "import sys\nwhile True: sys.stdout.write('x' * 9999)"]
)
def test_a_program_that_takes_too_long_is_given_up(start: Start, code: str) -> None:
    process, pipes = start(*python(code))
    with pytest.raises(EtlTimeout):
        for _ in pump(pipes, iter([bytes(MIB)] * 8), watch(0.4)):
            pass
    # it wasn't killed; what writes may have seen already that nobody reads: Python ends with one of these then
    assert process.poll() in (None, 1, 120)


def test_an_abandoned_run_ends_soon(start: Start) -> None:
    _, pipes = start("cat")
    bounds = watch()
    pieces = pump(pipes, iter([b"x"]), bounds)
    assert next(pieces) == b"x"
    bounds.abandon()
    with pytest.raises(AbandonedError):
        next(pieces)


def test_what_the_input_raises_comes_out(start: Start) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise LookupError("earlier")

    process, pipes = start("cat")
    with pytest.raises(LookupError, match="earlier"):
        list(pump(pipes, chunks(), watch()))
    assert process.wait(10) in (0, -signal.SIGPIPE)  # its input was closed, and its output


def test_closing_early_closes_the_pipes(start: Start) -> None:
    process, pipes = start(*python("import sys\nwhile True: sys.stdout.write('x' * 9999)"))
    pieces = pump(pipes, iter([]), watch())
    next(pieces)
    pieces.close()
    assert process.wait(10) != 0
