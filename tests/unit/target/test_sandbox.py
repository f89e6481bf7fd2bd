"""Real programs in every sandbox that this machine has: what they see, what they may use, and how their end is told."""

from __future__ import annotations

import itertools
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from transom.target.etl.sandbox import bubblewrap, cgroups, landlock, look, seccomp
from transom.target.etl.sandbox.alone import Alone
from transom.target.etl.sandbox.cgroups import Group, Hits
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.sandbox.ending import Ending, explain, hint
from transom.target.etl.sandbox.launch import Sandbox, SandboxUnavailable
from transom.target.etl.sandbox.look import Found
from transom.target.etl.sandbox.program import GIB, MIB, Limits, Program, in_words
from transom.target.etl.sandbox.starting import Starter
from transom.target.etl.sandbox.ways import Bare, Way
from transom.target.etl.transports.io import Pipes, pump
from transom.target.etl.watch import Watch

# Where nobody finds the way to a Python in somebody's home, the system's.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
SMALL = Limits(memory=256 * MIB, pids=16, output=4 * MIB)
MARK = {"TRANSOM_WORKER_OF": "tests"}


@dataclass
class Ran:
    ending: Ending
    said: str
    complained: str


Run = Callable[..., Ran]


def ways(folder: Path) -> dict[str, Found]:
    """Every way that works on this machine, with control groups and without."""
    starter = Starter(folder, (), {})
    home = cgroups.find()
    binary = bubblewrap.find()
    candidates: list[Way] = [*(bubblewrap.ways(binary) if binary else ()), Alone()]
    found = {}
    for way in candidates:
        for each in [home, None] if home else [None]:
            if not look.shortcoming(starter, way, each):
                found[f"{way}{'' if each else ' without groups'}"] = Found(way, each)
    starter.close()
    return found


@pytest.fixture(scope="session")
def ways_here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return ways(tmp_path_factory.mktemp("ways"))


NAMES = ("bubblewrap", "bubblewrap in a user namespace", "Landlock")


def made(name: str, ways_here: dict[str, Found], folder: Path) -> Sandbox:
    if name not in ways_here:
        pytest.skip(f"this machine has no {name}")
    return Sandbox(folder / "scratch", hidden=[folder / "data"], marks=MARK, found=ways_here[name])


@pytest.fixture(params=[NAMES[0], NAMES[1], "Landlock without groups"])
def sandbox(request: pytest.FixtureRequest, ways_here: dict[str, Found], tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox of each way."""
    with closing(made(request.param, ways_here, tmp_path)) as each:
        yield each


@pytest.fixture(params=[f"{name}{groups}" for name in NAMES for groups in ("", " without groups")])
def limited(request: pytest.FixtureRequest, ways_here: dict[str, Found], tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox of each way, its limits kept by control groups or without."""
    with closing(made(request.param, ways_here, tmp_path)) as each:
        yield each


@pytest.fixture
def best(ways_here: dict[str, Found], tmp_path: Path) -> Iterator[Sandbox]:
    """The best sandbox only."""
    with closing(made(next(iter(ways_here), "sandbox"), ways_here, tmp_path)) as first:
        yield first


def run(sandbox: Sandbox, *argv: str, given: bytes = b"", **program: Any) -> Ran:
    confined = start(sandbox, *argv, **program)
    with closing(confined):
        pipes = Pipes(confined.process)
        said = b"".join(pump(pipes, iter([given]), Watch("tests", 60))).decode()
        return Ran(confined.wait(5, pipes.last_words), said, pipes.last_words)


def start(sandbox: Sandbox, *argv: str, **program: Any) -> Confined:
    wanted = Program(argv, **program)
    return sandbox.start(wanted, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def python(sandbox: Sandbox, code: str, **program: Any) -> Ran:
    return run(sandbox, PYTHON, "-c", code, **program)


# --- what it sees -----------------------------------------------------------------------------------


def test_a_program_runs_as_nobody_and_its_bytes_pass(sandbox: Sandbox) -> None:
    ran = run(sandbox, "cat", "-", "/proc/self/status", given=b"x\n")
    assert ran.ending == Ending() and ran.ending.good
    assert ran.said.startswith("x\n")
    status = dict(line.split(":\t") for line in ran.said.splitlines()[1:])
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    nobody = os.getuid() == 0 or "bubblewrap" in str(sandbox.found)
    assert set(status["Uid"].split()) == {"65534" if nobody else str(os.getuid())}


def test_only_one_that_serves_lets_others_finish_before_it_is_woken(sandbox: Sandbox) -> None:
    ask = ("python3", "-c", "import os; print(os.sched_getscheduler(0))")
    told = [int(run(sandbox, *ask, serves=serves).said) for serves in (False, True, False)]
    assert told == [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_OTHER]


def test_it_sees_neither_the_data_folder_nor_other_objects(sandbox: Sandbox, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "catalog.sqlite").write_text("secret")
    (data / "object").write_text("other")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for path in (data / "catalog.sqlite", data / "object", Path(__file__), Path("/etc/shadow")):
        ran = run(sandbox, "cat", str(path))
        assert ran.ending.code == 1 and not ran.said, path
    assert "its sandbox shows it the object" in hint(ran.complained, Limits(), network=False)
    assert run(sandbox, "ls", str(data)).ending.code == 2
    if sandbox.may_read(mine):
        assert run(sandbox, "cat", str(mine), read=(mine,)).said == "mine"


def test_it_writes_nowhere_but_in_its_scratch(sandbox: Sandbox, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text("as it was")
    shown.chmod(0o666)
    for path in ("/usr/x", "/etc/x", "/x", "/var/tmp/x", str(shown)):
        assert run(sandbox, "/bin/sh", "-c", f"echo changed >{path}", read=(shown,)).ending.code, path
        assert not Path(path).exists() or path == str(shown)
    run(sandbox, "/bin/sh", "-c", f"echo new >{tmp_path}/x", read=(shown,))
    assert not (tmp_path / "x").exists()
    assert shown.read_text() == "as it was"
    assert run(sandbox, "/bin/sh", "-c", 'cd "$TMPDIR" && echo fine >x && cat x && pwd').said.startswith("fine\n")


def test_it_changes_nothing_about_files_that_it_may_read(sandbox: Sandbox, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text("x")
    before = shown.stat()
    run(sandbox, "/bin/sh", "-c", f"chmod 0 {shown}; touch -d 1999-01-01 {shown}; chmod 0 {tmp_path}", read=(shown,))
    after = shown.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_a_folder_to_write_to_is_shared(sandbox: Sandbox) -> None:
    folder = sandbox.folder()
    try:
        assert run(sandbox, "/bin/sh", "-c", f"echo made >{folder}/x", write=(folder,)).ending.good
        assert (folder / "x").read_text() == "made\n"
    finally:
        (folder / "x").unlink()
        folder.rmdir()


def test_no_scratch_is_left(sandbox: Sandbox, tmp_path: Path) -> None:
    run(sandbox, "/bin/sh", "-c", 'echo x >"$TMPDIR/x"')
    assert not list((tmp_path / "scratch").glob("*"))


def test_the_environment_is_what_it_is_given_and_the_mark(sandbox: Sandbox) -> None:
    os.environ["TRANSOM_TEST_SECRET"] = "x"
    try:
        said = run(sandbox, "env", env={"A": "1", "LD_LIBRARY_PATH": "/nowhere"}).said
    finally:
        del os.environ["TRANSOM_TEST_SECRET"]
    env = dict(line.split("=", 1) for line in said.splitlines())
    assert env["A"] == "1" and env["LD_LIBRARY_PATH"] == "/nowhere" and env["TRANSOM_WORKER_OF"] == "tests"
    assert "TRANSOM_TEST_SECRET" not in env


@pytest.mark.parametrize(
    "given", [{"env": {"A": "x\0--bind\0/\0/all"}}, {"env": {"A\0": "x"}}, {"argv": ("echo", "\0")}]
)
def test_a_nul_character_begins_no_word_of_the_sandboxes_own(sandbox: Sandbox, given: Mapping[str, Any]) -> None:
    with pytest.raises(SandboxUnavailable, match="NUL"):
        sandbox.start(Program(**{"argv": ("echo",), **given}))


def test_the_environment_is_on_no_command_line(sandbox: Sandbox) -> None:
    confined = start(sandbox, "cat", env={"PASSWORD": "sesame"})
    try:
        confined.process.stdin.write(b"x")  # type: ignore[union-attr]
        assert confined.process.stdout.read(1) == b"x"  # type: ignore[union-attr]
        for pid in {confined.pid, confined.inside}:
            assert b"sesame" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        confined.close()


def test_what_is_hidden_in_a_shown_folder_stays_hidden(best: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "secret").write_text("x")
    way = best.found.way
    assert way is not None
    if way.shares_files:
        pytest.skip("Landlock takes no part back: such a server does not start a program")
    hidden = Sandbox(tmp_path / "scratch", hidden=[Path("/usr/share")], found=best.found)
    try:
        assert run(hidden, "ls", "/usr/share").said == ""
    finally:
        hidden.close()


def test_landlock_refuses_what_it_can_not_hide(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, hidden=[Path("/usr/share/transom")], found=Found(Alone(), None))
    try:
        with pytest.raises(SandboxUnavailable, match=r"/usr/share/transom is in /usr"):
            sandbox.start(Program(("true",)))
    finally:
        sandbox.close()


# --- the network ------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


CONNECT = "import socket; socket.create_connection(('127.0.0.1', {port}), 5).sendall(b'x'); print('connected')"


def test_there_is_no_network_unless_asked_for(sandbox: Sandbox, listener: int) -> None:
    assert python(sandbox, CONNECT.format(port=listener)).ending.code == 1
    outside = python(sandbox, "import socket; socket.create_connection(('192.0.2.1', 80), 5)")
    assert outside.ending.code == 1 and "Network is unreachable" in outside.complained
    assert "its sandbox has no network" in hint(outside.complained, Limits(), network=False)
    assert python(sandbox, CONNECT.format(port=listener), network=True).said == "connected\n"


def test_a_loopback_of_its_own_is_up(best: Sandbox) -> None:
    if best.found.way is not None and best.found.way.shares_files:
        pytest.skip("only a network namespace has one")
    code = "s = socket.create_server(('localhost', 8000)); socket.create_connection(('127.0.0.1', 8000)); print('up')"
    assert python(best, f"import socket; {code}").said == "up\n"


HELLO = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print(flush=True)
server.accept()[0].sendall(b"hello")
"""


def test_a_server_in_it_is_reached_through_a_socket_in_its_folder(sandbox: Sandbox) -> None:
    folder = sandbox.folder()
    path = folder / "s"
    confined = start(sandbox, PYTHON, "-c", HELLO, str(path), write=(folder,))
    try:
        assert confined.process.stdout.readline() == b"\n", confined.process.stderr.read()  # type: ignore[union-attr]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert client.recv(9) == b"hello"
        assert confined.wait(5).good
    finally:
        confined.close()
        path.unlink(missing_ok=True)
        folder.rmdir()


def test_no_socket_of_a_strange_family(sandbox: Sandbox) -> None:
    for family in (socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG):
        assert python(sandbox, f"import socket; socket.socket({int(family)}, 2)", network=True).ending.code == 1


def test_without_namespaces_no_unix_socket_of_others_is_reached(tmp_path: Path, ways_here: dict[str, Found]) -> None:
    if "Landlock without groups" not in ways_here:
        pytest.skip("this machine has no Landlock")
    sandbox = Sandbox(tmp_path, found=ways_here["Landlock without groups"])
    folder = sandbox.folder()
    folder.chmod(0o777)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "s"))
            (folder / "s").chmod(0o777)
            server.listen()
            code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(folder / 's')!r})"
            assert python(sandbox, code, write=(folder,)).ending.code == 1
            assert python(sandbox, "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)").ending.code == 1
            assert python(sandbox, "import socket; socket.socketpair(); print('pairs')").said == "pairs\n"
    finally:
        (folder / "s").unlink()
        folder.rmdir()
        sandbox.close()


# --- what it may use --------------------------------------------------------------------------------

FOUR_GIB = "data = bytearray(4 << 30)\nfor i in range(0, len(data), 4096): data[i] = 1"
FORK_10000 = """
import os, time
for i in range(10000):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
"""


def test_four_gibibytes_are_not_had_and_the_limit_is_named(limited: Sandbox) -> None:
    ran = python(limited, FOUR_GIB, limits=SMALL)
    assert ran.ending.bound == "memory"
    assert str(ran.ending).endswith("having reached its memory limit of 256 MiB")
    if limited.found.home:
        assert ran.ending.signal == signal.SIGKILL


def test_ten_thousand_forks_are_not_had_and_the_limit_is_named(limited: Sandbox) -> None:
    confined = start(limited, PYTHON, "-c", FORK_10000, limits=SMALL)
    try:
        ending = confined.wait(30, "" if confined.hits() else "Resource temporarily unavailable")
        assert confined.process.stderr.read().endswith(b"Resource temporarily unavailable\n")  # type: ignore[union-attr]
    finally:
        confined.close()
    assert (ending.code, ending.bound, ending.limit) == (1, "processes", "its process limit of 16")


def test_a_file_has_a_bound(sandbox: Sandbox) -> None:
    code = "import os\nf = open(os.environ['TMPDIR'] + '/x', 'wb')\nfor i in range(9): f.write(bytes(1 << 20))"
    ran = python(sandbox, code, limits=SMALL)
    assert (ran.ending.bound, ran.ending.limit) == ("output", "its output limit of 4 MiB")
    dd = run(sandbox, "/bin/sh", "-c", 'exec dd if=/dev/zero of="$TMPDIR/x" bs=1M count=9', limits=SMALL)
    assert dd.ending.bound == "output" and dd.ending.signal == signal.SIGXFSZ


def test_a_scratch_folder_has_a_bound(best: Sandbox) -> None:
    if best.found.way is not None and best.found.way.shares_files:
        pytest.skip("it is on the disk")
    ran = run(best, "dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=9", limits=Limits(scratch=4 * MIB))
    assert ran.ending.limit == "its scratch limit of 4 MiB"


def test_time_has_a_bound(sandbox: Sandbox) -> None:
    began = time.monotonic()
    ran = run(sandbox, "sleep", "60", limits=Limits(wall_s=0.3))
    assert time.monotonic() - began < 10
    assert (ran.ending.bound, ran.ending.limit) == ("time", "its time limit of 0.3 s")


def test_cores_have_a_bound(best: Sandbox) -> None:
    home = best.found.home
    if home is None or "cpu" not in home.folders:
        pytest.skip("no control group for it")
    burn = (
        "import time, os\nend = time.monotonic() + 0.6\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    )
    assert float(python(best, burn, limits=Limits(cpu=0.2)).said) < 0.45


def test_a_signal_is_told_from_an_exit_code(best: Sandbox) -> None:
    if best.found.way == Alone() and landlock.abi() < landlock.SCOPES_ABI:
        pytest.skip("here it may not even signal itself")
    ran = run(best, "/bin/sh", "-c", "kill -9 $$", limits=SMALL)
    assert ran.ending == Ending(signal=9) and str(ran.ending) == "signal 9 (Killed)"
    assert run(best, "/bin/sh", "-c", "exit 7").ending == Ending(code=7)


# --- what it may do ---------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
def test_system_calls_that_open_sandboxes_are_refused(sandbox: Sandbox) -> None:
    code = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
numbers = dict(ptrace=101, mount=165, bpf=321, keyctl=250, io_uring_setup=425, userfaultfd=323, perf_event_open=298,
               kexec_load=246, init_module=175, unshare=272, setns=308, open_by_handle_at=304, pidfd_getfd=438)
for name, number in numbers.items():
    assert libc.syscall(number, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM, name
assert libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM, 'clone'
assert libc.syscall(435, 0, 0) == -1 and ctypes.get_errno() == errno.ENOSYS, 'clone3'
print('refused')
"""
    assert python(sandbox, code).said == "refused\n"


def test_it_can_not_kill_others(sandbox: Sandbox) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            assert run(sandbox, "/bin/sh", "-c", f"kill -9 {other.pid}").ending.code == 1
            assert run(sandbox, "/bin/sh", "-c", "kill -9 -1; true").ending.signal in (0, 9)
            assert other.poll() is None
        finally:
            other.kill()


def test_what_it_starts_ends_with_it(sandbox: Sandbox) -> None:
    ran = run(sandbox, "/bin/sh", "-c", "sleep 987654 >/dev/null 2>&1 & echo started")
    assert ran.said == "started\n"
    until(lambda: not processes_with("987654"))


def test_all_of_it_can_be_killed(sandbox: Sandbox) -> None:
    confined = start(sandbox, "/bin/sh", "-c", "sleep 876543 & sleep 876543 & echo; wait")
    assert confined.process.stdout.readline() == b"\n"  # type: ignore[union-attr]
    assert confined.ended() is None
    with pytest.raises(TimeoutError):
        confined.wait(0.01)
    confined.close()
    assert not processes_with("876543")
    assert confined.wait(1).signal == signal.SIGKILL
    confined.close()


def test_it_can_be_killed_at_any_moment_of_its_start(limited: Sandbox) -> None:
    for moment in range(8):
        confined = start(limited, "sleep", "654321")
        time.sleep(0.002 * moment)
        confined.close()
    assert not processes_with("654321")


def test_it_is_asked_to_end_before_it_is_killed(sandbox: Sandbox) -> None:
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(3))\nprint(flush=True)\ntime.sleep(60)"
    confined = start(sandbox, PYTHON, "-c", code)
    assert confined.process.stdout.readline() == b"\n"  # type: ignore[union-attr]
    confined.stop(10)
    assert confined.ended() == Ending(code=3)


def test_it_outlives_the_thread_that_asked_for_it(sandbox: Sandbox) -> None:
    started: list[Confined] = []
    thread = threading.Thread(target=lambda: started.append(start(sandbox, "cat")))
    thread.start()
    thread.join()
    (confined,) = started
    try:
        assert confined.process.communicate(b"still here", timeout=10)[0] == b"still here"
    finally:
        confined.close()


SERVER = """
import sys
from pathlib import Path
from transom.target.etl.sandbox.launch import Sandbox
from transom.target.etl.sandbox.program import Program
sandbox = Sandbox(Path(sys.argv[1]))
confined = sandbox.start(Program(("/bin/sh", "-c", "sleep 0.3; echo; exec sleep 765432")), stdout=1)
sys.stdin.read()
"""


def test_it_dies_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.kill()
    until(lambda: not processes_with("765432"))


# --- finding a way ----------------------------------------------------------------------------------


def test_the_best_way_is_found_and_said(tmp_path: Path, ways_here: dict[str, Found]) -> None:
    sandbox = Sandbox(tmp_path)
    try:
        if not ways_here:
            assert sandbox.found.way is None
            return
        assert str(sandbox.found) == str(next(iter(ways_here.values())))
        assert run(sandbox, "true").ending.good
    finally:
        sandbox.close()


def test_without_any_way_nothing_is_started_unless_that_is_wanted(tmp_path: Path) -> None:
    none = Found(missing=("bubblewrap: no program 'bwrap' was found", "Landlock: the kernel has none"))
    refusing = Sandbox(tmp_path, found=none)
    with pytest.raises(SandboxUnavailable, match=r"bwrap.*Landlock.*allow_unsandboxed = true"):
        refusing.start(Program(("true",)))
    allowing = Sandbox(tmp_path, found=none, allow_unsandboxed=True)
    ran = run(allowing, "/bin/sh", "-c", 'echo $A; pwd; test "$PWD" = "$TMPDIR"', env={"A": "fine"})
    assert ran.ending.good and ran.said.startswith("fine\n")
    assert python(allowing, FOUR_GIB, limits=SMALL).ending.bound == "memory"
    refusing.close()
    allowing.close()


def test_a_way_that_confines_nothing_is_not_believed(tmp_path: Path) -> None:
    starter = Starter(tmp_path, (), {})
    try:
        assert look.shortcoming(starter, Bare(), cgroups.find())
    finally:
        starter.close()


def test_a_bubblewrap_that_fails_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    starter = Starter(tmp_path, (), {})
    try:
        for way in bubblewrap.ways(broken):
            assert "No permissions" in look.shortcoming(starter, way, None) or os.getuid() == 0
    finally:
        starter.close()


# --- control groups ---------------------------------------------------------------------------------


def test_groups_are_removed(best: Sandbox) -> None:
    home = best.found.home
    if home is None:
        pytest.skip("no control groups here")
    before = {path for folder in home.folders.values() for path in folder.glob("transom.*")}
    run(best, "/bin/sh", "-c", "sleep 60 & true")
    after = {path for folder in home.folders.values() for path in folder.glob("transom.*")}
    assert after <= before


def test_groups_of_dead_processes_are_swept(best: Sandbox) -> None:
    home = best.found.home
    if home is None:
        pytest.skip("no control groups here")
    with subprocess.Popen(["true"]) as gone:
        pass
    left = home.folders["memory"] / f"transom.{gone.pid}.7"
    left.mkdir()
    assert cgroups.find() is not None
    assert not left.exists()


def test_a_second_version_group_is_written_as_the_kernel_wants_it(tmp_path: Path) -> None:
    """Its files are plain ones here: version 1 is what most test machines of ours have."""
    folder = tmp_path / "g"
    folder.mkdir()
    for name in ("memory.swap.max", "memory.max"):
        (folder / name).write_text("max")
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\n")
    (folder / "pids.events").write_text("max 3\n")
    group = Group(2, dict.fromkeys(("memory", "pids", "cpu"), folder))
    written = {path.name: value for path, value in cgroups.settings(group, Limits(memory=5, cpu=0.5, pids=7), 2)}
    assert written == {"memory.max": "5", "memory.swap.max": "0", "pids.max": "9", "cpu.max": "50000 100000"}
    assert group.hits() == Hits(oom=2, pids=3)
    assert group.all == (folder,) and group.doors == (folder / "cgroup.procs",)


# --- what an end is called --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returncode", "hits", "words", "said"),
    [
        (0, None, "", "exit code 0"),
        (0, Hits(pids=3), "Out of memory", "exit code 0"),
        (3, None, "", "exit code 3"),
        (-11, None, "", "signal 11 (Segmentation fault)"),
        (139, None, "", "signal 11 (Segmentation fault)"),
        (200, None, "", "exit code 200"),
        (137, Hits(), "", "signal 9 (Killed)"),
        (137, Hits(oom=1), "", "signal 9 (Killed), having reached its memory limit of 1 GiB"),
        (1, None, "MemoryError", "exit code 1, having reached its memory limit of 1 GiB"),
        (1, Hits(pids=1), "", "exit code 1, having reached its process limit of 64"),
        (1, Hits(), "Resource temporarily unavailable", "exit code 1"),
        (1, None, "can't start new thread", "exit code 1, having reached its process limit of 64"),
        (153, None, "", "signal 25 (File size limit exceeded), having reached its output limit of 8 MiB"),
        (1, None, "x: No space left on device", "exit code 1, having reached its scratch limit of 256 MiB"),
    ],
)
def test_an_end_is_explained(returncode: int, hits: Hits | None, words: str, said: str) -> None:
    ending = explain(returncode, Limits(output=8 * MIB), hits, words=words)
    assert str(ending) == said
    assert ending.good == (returncode == 0)


def test_complaints_that_have_nothing_to_do_with_the_sandbox_get_no_hint() -> None:
    for words in ("", "ValueError: x", "No such file or directory: '/tmp/x/y'", "cat: x: No such file or directory"):
        assert hint(words, Limits(), network=False) == ""
    assert hint("Network is unreachable", Limits(), network=True) == ""
    assert "sandbox" in hint(
        "FileNotFoundError: [Errno 2] No such file or directory: '/srv/data/x'", Limits(), network=True
    )


def test_sizes_are_said_as_people_say_them() -> None:
    assert [in_words(size) for size in (5, 2048, 256 * MIB, GIB + GIB // 2)] == [
        "5 bytes",
        "2 KiB",
        "256 MiB",
        "1.5 GiB",
    ]


def test_the_filter_is_whole_instructions_and_differs_by_what_is_around() -> None:
    if not seccomp.supported():
        pytest.skip("no filter for this machine")
    choices = itertools.product((True, False), repeat=3)
    filters = [seccomp.namespaced()]
    filters += [seccomp.alone(network=network, signals=signals, owner=owner) for network, signals, owner in choices]
    assert len(set(filters)) == len(filters)
    assert all(len(each) % 8 == 0 and len(each) // 8 < 4096 for each in filters)


def processes_with(word: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if word.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
