"""The persistent kind of io, with the SDK at one end and the target's own code at the other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_runs import SRC

from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlFailed, EtlTimeout
from transom.target.etl.transports.base import Call
from transom.target.etl.transports.frames import WHOLE_SIZE, FramedProgram
from transom.target.etl.watch import Watch

MIB = 1024 * 1024
CODE = """
import os, sys
from pathlib import Path
from transom.worker import Reject, Skip

print("printed while loading")

class Shout:
    def start(self):
        os.write(1, b"written to what was standard output")

    def transform_stream(self, chunks, context):
        print("printed for", context.key)
        sys.stdin.read()
        if context.args == "skip":
            raise Skip("not this one")
        if context.args == "reject":
            raise Reject("no good")
        if context.args == "unread":
            yield b"not looked at"
            return
        if context.args == "context":
            yield repr((context.bucket, context.key, context.etl, context.content_type, context.size)).encode()
            return
        if context.args == "sleep":
            import time
            time.sleep(60)
        for chunk in chunks:
            yield chunk.upper()
        if context.args == "late":
            raise ValueError("too late")
        if context.args == "exit":
            os._exit(3)
"""


class Program:
    """The SDK in a process of its own, and our end of its standard input and output."""

    def __init__(self, code: str, folder: Path, **env: str) -> None:
        (folder / "code.py").write_text(code)
        ours, theirs = socket.socketpair()
        with theirs, (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "transom.worker", "--io", str(folder / "code.py")],
                env={"PYTHONPATH": str(SRC), **env},
                stdin=theirs,
                stdout=theirs,
                stderr=log,
            )
        self.framed = FramedProgram(ours)
        self.framed.greet(20)

    def run(self, chunks: Iterator[bytes], args: str = "", **call: object) -> Iterator[bytes]:
        given = Call("e", "b", "k", args, **call)  # type: ignore[arg-type]
        return self.framed.run(given, chunks, Watch("e", 20))

    def end(self) -> int:
        self.framed.close()
        return self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(code: str = CODE, **env: str) -> Program:
        started.append(Program(code, tmp_path, **env))
        return started[-1]

    yield start
    for program in started:
        program.framed.close()
        program.process.kill()
        program.process.wait()


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (WHOLE_SIZE,), (WHOLE_SIZE, 1), (MIB, MIB, 5), (3 * MIB,)])
def test_objects_come_and_go_one_after_another(start: Callable[..., Program], sizes: tuple[int, ...]) -> None:
    program = start()
    for _ in range(3):
        output = b"".join(program.run(b"x" * size for size in sizes))
        assert output == b"X" * sum(sizes)
        assert program.framed.idle
    assert program.end() == 0


def test_a_large_object_is_streamed_in_constant_memory(start: Callable[..., Program]) -> None:
    program = start()
    piece = os.urandom(MIB)
    assert sum(len(out) for out in program.run(piece for _ in range(64))) == 64 * MIB
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    assert peak * 1024 < 48 * MIB


def test_context_is_the_tasks(start: Callable[..., Program]) -> None:
    output = b"".join(start().run(iter([b"abc"]), "context", content_type="a/b", size=3))
    assert output.decode() == repr(("b", "k", "e", "a/b", 3))


@pytest.mark.parametrize("size", [5, 3 * MIB])
def test_what_is_left_unread_is_not_the_next_objects(start: Callable[..., Program], size: int) -> None:
    program = start()
    assert b"".join(program.run(iter([b"x" * size]), "unread")) == b"not looked at"
    assert b"".join(program.run(iter([b"y"]))) == b"Y"


@pytest.mark.parametrize(
    ("args", "error", "message", "size", "before"),
    [
        ("skip", Skip, "not this one", 1, 0),
        ("reject", Reject, "no good", 1, 0),
        ("late", EtlFailed, "ETL 'e' failed: ValueError: too late", 1, 0),
        ("late", EtlFailed, "ETL 'e' failed: ValueError: too late", MIB, MIB),
    ],
)
def test_what_is_raised_comes_back_and_the_program_lives_on(
    start: Callable[..., Program], args: str, error: type[Exception], message: str, size: int, before: int
) -> None:
    program = start()
    output = []
    with pytest.raises(error) as raised:
        output.extend(program.run(iter([b"x" * size]), args))
    assert (str(raised.value), b"".join(output)) == (message, b"X" * before)
    assert b"".join(program.run(iter([b"y"]))) == b"Y"


def test_a_program_that_ends_is_noticed(start: Callable[..., Program]) -> None:
    program = start()
    with pytest.raises((EOFError, ConnectionError)):
        list(program.run(iter([b"x"]), "exit"))
    assert not program.framed.idle
    assert program.process.wait(10) == 3


def test_a_program_that_takes_too_long_is_given_up(start: Callable[..., Program]) -> None:
    program = start()
    with pytest.raises(EtlTimeout):
        list(program.framed.run(Call("e", "b", "k", "sleep"), iter([b"x"]), Watch("e", 0.2)))
    assert not program.framed.idle


def test_direct_file_is_read_in_place(start: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "a").write_bytes(b"stored")
    program = start(TRANSOM_DIRECT_FILE="1", TRANSOM_DIRECT_ROOT=str(tmp_path / "objects"))
    assert b"".join(program.run(iter([b"not sent"]), path=str(tmp_path / "objects" / "a"))) == b"STORED"
    with pytest.raises(EtlFailed, match="may not read"):
        list(program.run(iter(()), path=str(tmp_path / "code.py")))


def test_a_program_that_speaks_no_frames_is_noticed(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        program = FramedProgram(ours)
        theirs.sendall(b"Hello, I am a program that was not told of frames")
        with pytest.raises(ConnectionError, match="no frame"):
            program.greet(5)
        program.close()


def test_a_program_that_says_nothing_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        program = FramedProgram(ours)
        with pytest.raises(TimeoutError, match="hello"):
            program.greet(0.1)
        program.close()


def test_a_refusal_that_says_nothing_is_a_failure() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        program = FramedProgram(ours)
        theirs.sendall(b"X\0\0\0\x05wrong")
        with pytest.raises(EtlFailed, match="wrong"):
            list(program.run(Call("e", "b", "k"), iter(()), Watch("e", 5)))
        theirs.sendall(b"Q\0\0\0\0")
        with pytest.raises(ConnectionError, match="no frame: b'Q'"):
            list(program.run(Call("e", "b", "k"), iter(()), Watch("e", 5)))
        program.close()


def test_its_log_has_what_was_printed(start: Callable[..., Program], tmp_path: Path) -> None:
    program = start()
    assert b"".join(program.run(iter([b"x"]))) == b"X"
    assert program.end() == 0
    log = (tmp_path / "log").read_text()
    assert "printed while loading" in log
    assert "printed for k" in log
    assert "written to what was standard output" in log
