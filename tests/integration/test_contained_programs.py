"""Programs of this machine by a real engine: what they see and may use, how their end is told, what is left of them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.containers.engines import RunningEngine
from tests.wire import eventually
from transom.target.etl.runtimes import contained as contained_module
from transom.target.etl.runtimes.base import Order, StartError
from transom.target.etl.runtimes.contained import Contained
from transom.target.etl.runtimes.containers import Containers, ContainerWorker
from transom.target.etl.sandbox.program import MIB, Limits, Program
from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import connect

SMALL = Limits(memory=256 * MIB, pids=16, output=4 * MIB, scratch=16 * MIB)
WAIT_S = 30.0
FOUR_GIB = "data = bytearray(4 << 30)\nfor i in range(0, len(data), 4096): data[i] = 1"
FORK_10000 = "import os, time\nfor i in range(10000):\n    if os.fork() == 0:\n        time.sleep(60)"
HELLO = """
import socket, sys
server = socket.create_server(("127.0.0.1", 8000)) if sys.argv[1:] == ["tcp"] else socket.socket(socket.AF_UNIX)
if server.family == socket.AF_UNIX:
    server.bind(sys.argv[1])
    server.listen()
print("listens", flush=True)
server.accept()[0].sendall(b"hello")
"""
ENDS_WHEN_ASKED = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(60)
"""


@dataclass
class Bench:
    """Starts programs for one test, and stops them after it."""

    contained: Contained
    folder: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    started: list[ContainerWorker] = field(default_factory=list)
    _said: bytes = b""

    def __post_init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)

    def start(
        self, *argv: str, limits: Limits = SMALL, env: dict[str, str] | None = None, **how: Any
    ) -> ContainerWorker:
        told = {"TRANSOM_SOCKET": str(self.folder / "worker.sock"), **(env or {})}
        order = Order("x", 1, {}, self.folder, None, told, 8000, self._writer, self.mark)
        program = Program(argv, env=told, write=(self.folder,), limits=limits, **how)
        self.started.append(self.contained.start(order, program))
        return self.started[-1]

    def run(self, code: str, **how: Any) -> tuple[str, str]:
        """Run Python code to its end: how it ended, and what it said."""
        before = len(self.said)
        worker = self.start(sys.executable, "-c", code, **how)
        eventually(lambda: worker.ended() is not None, within_s=WAIT_S)
        said = self.said[before:]
        return str(worker.ended(said)), said

    @property
    def said(self) -> str:
        """What programs have printed so far."""
        while True:
            try:
                piece = os.read(self._reader, 65536)
            except BlockingIOError:
                return self._said.decode()
            self._said += piece

    def close(self) -> None:
        for worker in self.started:
            worker.stop(0.0)
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture(scope="module")
def containers(container_engine: RunningEngine) -> Iterator[Containers]:
    opened = Containers(container_engine.url, pull=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data folder with an object that anybody could read."""
    with tempfile.TemporaryDirectory(prefix="transom-data-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "object").write_text("secret")
        yield folder


@pytest.fixture(scope="module")
def contained(containers: Containers, data: Path) -> Contained:
    return Contained(containers, [data])


@pytest.fixture
def bench(contained: Contained, socket_folder: Path) -> Iterator[Bench]:
    made = Bench(contained, socket_folder)
    yield made
    made.close()


# --- what it sees, and may do ---------------------------------------------------------------------


def test_a_program_sees_neither_the_data_folder_nor_anything_else(bench: Bench, data: Path) -> None:
    code = f"""
import os
for path in ({str(data / "object")!r}, {str(data)!r}, {__file__!r}, "/etc/shadow", "/var/lib", "/run/podman"):
    try:
        os.stat(path)
    except OSError:
        continue
    print("sees", path, os.listdir(path) if os.path.isdir(path) else "")
print(os.getuid(), os.getgid(), os.getcwd(), os.environ["HOME"])
"""
    assert bench.run(code) == ("exit code 0", "65534 65534 /tmp /tmp\n")


def test_a_program_writes_nowhere_but_in_its_own(bench: Bench) -> None:
    code = f"""
import os
for folder in ("/", "/usr", "/etc", "/usr/local/lib", {str(Path(sys.prefix))!r}, "/proc/sys/kernel", "/sys", "/dev",
               "/run", "/var/tmp"):
    try:
        open(folder + "/mine", "w")
    except OSError:
        continue
    print("wrote in", folder)
for folder in ("/tmp", "/dev/shm", {str(bench.folder)!r}):
    open(folder + "/mine", "w").write("x")
"""
    assert bench.run(code) == ("exit code 0", "")
    assert (bench.folder / "mine").read_text() == "x"


def test_a_program_has_no_network(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = f"""
import socket
print([name for _, name in socket.if_nameindex()])
try:
    socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}), 5)
except ConnectionRefusedError:
    socket.create_connection(("192.0.2.1", 80), 5)
"""
        ended, said = bench.run(code)
    assert ended == "exit code 1"
    assert "['lo']\n" in said and "Network is unreachable" in said


def test_a_program_has_no_privileges(bench: Bench) -> None:
    ended, said = bench.run("print(open('/proc/self/status').read())")
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert ended == "exit code 0"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_ways_out_that_engines_leave_open_are_shut(bench: Bench) -> None:
    code = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000) == -1 and ctypes.get_errno() == errno.EPERM, "user namespaces"
for number in (101, 165, 250, 425, 323, 438):  # ptrace, mount, keyctl, io_uring_setup, userfaultfd, pidfd_getfd
    assert libc.syscall(number, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS), number
for family in (socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == socket.AF_ALG else socket.SOCK_STREAM)
    except OSError:
        continue
    print("made", family)
"""
    assert bench.run(code) == ("exit code 0", "")


# --- what it may use ------------------------------------------------------------------------------


def test_four_gibibytes_are_not_had_and_the_limit_is_named(bench: Bench) -> None:
    ended, _ = bench.run(FOUR_GIB)
    assert ended == "signal 9 (Killed), having reached its memory limit of 256 MiB"


def test_ten_thousand_forks_are_not_had_and_the_limit_is_named(bench: Bench) -> None:
    ended, said = bench.run(FORK_10000)
    assert ended == "exit code 1, having reached its process limit of 16"
    assert "Resource temporarily unavailable" in said


def test_files_and_scratch_have_bounds(bench: Bench) -> None:
    ended, _ = bench.run("f = open('/tmp/x', 'wb')\nfor i in range(9): f.write(bytes(1 << 20))")
    assert ended == "exit code 1, having reached its output limit of 4 MiB"
    fill = "for n in range(9):\n    with open(f'/tmp/{n}', 'wb') as f: f.write(bytes(3 << 20))"
    ended, _ = bench.run(fill)
    assert ended == "exit code 1, having reached its scratch limit of 16 MiB"


# --- how it is reached, and ends ------------------------------------------------------------------


def received(address: Address) -> bytes:
    with connect(address, lambda: None) as sock:
        sock.settimeout(WAIT_S)
        return sock.recv(9)


def test_a_program_is_reached_at_its_socket_or_its_own_port(bench: Bench) -> None:
    path = bench.folder / "worker.sock"
    unix = bench.start(sys.executable, "-c", HELLO, str(path))
    eventually(lambda: "listens" in bench.said, within_s=WAIT_S)
    assert received(unix.addresses[0]) == b"hello"
    tcp = bench.start(sys.executable, "-c", HELLO, "tcp")
    eventually(lambda: bench.said.count("listens") == 2, within_s=WAIT_S)
    (inside,) = [address for address in tcp.addresses if address.netns_pid]
    assert received(inside) == b"hello"
    eventually(lambda: str(unix.ended()) == str(tcp.ended()) == "exit code 0", within_s=WAIT_S)


def test_a_program_is_asked_to_end_before_it_is_killed(bench: Bench, gone: Callable[[str], bool]) -> None:
    worker = bench.start(sys.executable, "-c", ENDS_WHEN_ASKED)
    eventually(lambda: "ready" in bench.said, within_s=WAIT_S)
    worker.stop(10.0)
    assert str(worker.ended()) == "exit code 7" and gone(worker.container)


def test_a_program_that_kills_itself_is_told_from_one_out_of_memory(bench: Bench) -> None:
    ended, _ = bench.run(f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    assert ended == "signal 11"


def test_it_is_said_what_confines_a_program(bench: Bench, container_engine: RunningEngine) -> None:
    worker = bench.start("/bin/true")
    version = container_engine.api.version()["Version"]
    assert worker.confinement == f"container ({container_engine.name} {version})"


def test_programs_of_a_killed_keeper_are_reaped(
    bench: Bench, containers: Containers, gone: Callable[[str], bool]
) -> None:
    worker = bench.start("/bin/sleep", "600")
    containers.reap("another")
    assert worker.ended() is None
    containers.reap(bench.mark)
    assert gone(worker.container)


def test_a_program_may_have_a_network(bench: Bench, container_engine: RunningEngine) -> None:
    if not container_engine.bridges:
        pytest.skip("this machine's engine makes no networks")
    ended, said = bench.run("import socket; print(len(socket.if_nameindex()) > 1)", network=True)
    assert (ended, said) == ("exit code 0", "True\n")


def test_a_trial_that_fails_is_told_with_its_last_words(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trial, why in (
        ("raise SystemExit('no luck')", "no luck"),
        ("raise SystemExit(7)", "a trial ended with exit code 7"),
    ):
        monkeypatch.setattr(contained_module, "_TRIAL", trial)
        with pytest.raises(StartError, match=f"does not do for programs: {why}"):
            Contained(containers).check(network=False)


def test_a_trial_that_does_not_convince_is_told(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contained_module.CONFINED, "Seccomp", "3")
    with pytest.raises(StartError, match="does not do for programs: it does not confine them: Seccomp"):
        Contained(containers).check(network=False)
