"""Containers by a real engine: what they may do, how they are reached, how they end, and that nothing is left."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers import images
from tests.containers.engines import RunningEngine
from tests.containers.speaking import ask, serve_once
from transom.target.etl.runtimes.base import StartError
from transom.target.etl.runtimes.container import Container
from transom.target.etl.runtimes.container_plan import ContainerPlan, Mount
from transom.target.etl.runtimes.engine import Engine
from transom.target.etl.runtimes.namespaces import is_container
from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import listen_in_netns

MIB = 1024**2
HERE = Path(images.__file__).parent
WORKER = Mount(str(HERE / "worker.py"), at="/app/worker.py")
PYTHON = "/usr/bin/python3"
PULL_PORT = 18080
WAIT_S = 20.0
SLEEPS = "import time; print('ready', flush=True); time.sleep(60)"
TALKS = """
import sys
print('out', flush=True)
print('err', file=sys.stderr)
print('x' * 20000)
sys.exit(3)
"""
ENDS_WHEN_ASKED = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print('ready', flush=True)
time.sleep(60)
"""
FORKS = """
import os, time
for made in range(99):
    try:
        os.fork() or time.sleep(60)
    except BlockingIOError:
        break
print(made)
"""


class Log(io.BytesIO):
    """What a container prints, kept after it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.text = b""
        self.said_something = threading.Event()

    def write(self, piece: bytes) -> int:  # type: ignore[override]
        self.text += piece
        self.said_something.set()
        return len(piece)


class Containers:
    """Starts containers for one test, and removes them after it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.folder = secrets.token_hex(8)
        self._started: list[Container] = []

    def start(self, *command: str, log: Log | None = None, **how: Any) -> Container:
        plan = ContainerPlan(**{"etl": "test", "image": images.WORKER, "folder": self.folder, "command": command} | how)
        started = self.engine.start(plan, self.engine.image(plan.image, pull=False), log or Log())
        self._started.append(started)
        return started

    def run(self, code: str, **how: Any) -> tuple[str, str]:
        """Run Python code to its end; what it printed, and how it ended."""
        log = Log()
        ended = self.start(PYTHON, "-c", code, log=log, **how).wait(WAIT_S)
        assert log.closed
        return log.text.decode(), str(ended)

    def close(self) -> None:
        for each in self._started:
            each.remove()


@pytest.fixture(scope="module")
def engine(container_engine: RunningEngine) -> Iterator[Engine]:
    opened = Engine.open(container_engine.url)
    yield opened
    opened.close()


@pytest.fixture
def containers(engine: Engine) -> Iterator[Containers]:
    made = Containers(engine)
    yield made
    made.close()


# --- what it may do -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program finds inside of a container."""
    code = tmp_path_factory.mktemp("code")
    (code / "given.txt").write_text("given")
    code.chmod(0o777)  # else it would be the folder that says no
    containers = Containers(engine)
    mounts = (Mount(str(HERE / "probe.py"), at="/app/probe.py"), Mount(str(code), at="/code"))
    log = Log()
    try:
        container = containers.start(
            PYTHON, "/app/probe.py", log=log, mounts=mounts, env={"GREETING": "hello = world"}, files=999
        )
        assert str(container.wait(WAIT_S)) == "exit code 0", log.text
    finally:
        containers.close()
    return dict(json.loads(log.text))


def test_a_container_has_no_network(told: dict[str, Any]) -> None:
    assert told["interfaces"] == ["lo"]
    assert told["calling_out"] == "Network is unreachable"


def test_a_container_can_write_nothing_but_its_scratch(told: dict[str, Any]) -> None:
    for where in ("writing_root", "writing_app", "writing_code"):
        assert told[where] == "Read-only file system", where
    assert told["writing_tmp"] == ""
    assert told["code"] == "given"


def test_a_container_runs_as_nobody_with_no_privileges(told: dict[str, Any]) -> None:
    assert (told["uid"], told["capabilities"], told["no_new_privileges"]) == (65534, 0, "1")
    assert told["seccomp"] == "2"
    assert told["files"] == [999, 999]
    assert told["greeting"] == "hello = world"


def test_a_container_that_takes_too_much_memory_is_told_so(containers: Containers) -> None:
    printed, ended = containers.run("print(len(bytearray(256 << 20)))", memory=64 * MIB)
    assert printed == ""
    assert "out of memory" in ended and "64 MiB" in ended


def test_a_container_has_a_bounded_number_of_processes(containers: Containers) -> None:
    printed, ended = containers.run(FORKS, pids=16)
    assert (int(printed), ended) == (15, "exit code 0")


# --- how it is reached --------------------------------------------------------------------------


def started_worker(containers: Containers, where: str, **how: Any) -> Container:
    log = Log()
    container = containers.start(PYTHON, "/app/worker.py", where, log=log, **how)
    assert log.said_something.wait(WAIT_S), str(container.ended())
    return container


def test_a_socket_in_a_shared_folder_is_reached_from_outside(containers: Containers, socket_folder: Path) -> None:
    path = str(socket_folder / "s")
    started_worker(containers, path, mounts=(WORKER, Mount(str(socket_folder), writable=True)))
    assert Path(path).stat().st_uid == 65534 != os.getuid()
    assert ask(Address(unix=path), "PUT", "/b/k", b"over a socket") == b"over a socket"


def test_a_container_without_network_is_reached_and_reaches_through_its_namespace(containers: Containers) -> None:
    env = {"AIS_TARGET_URL": f"http://127.0.0.1:{PULL_PORT}/v1"}
    container = started_worker(containers, "127.0.0.1:8000", mounts=(WORKER,), env=env)
    assert is_container(container.pid, container.id) and not is_container(os.getpid(), container.id)
    address = Address(host="127.0.0.1", port=8000, netns_pid=container.pid)
    body = os.urandom(3 * MIB)
    assert ask(address, "PUT", "/b/k", body) == body
    asked: list[bytes] = []
    with listen_in_netns(container.pid, PULL_PORT) as listener:
        thread = threading.Thread(target=serve_once, args=(listener, b"pulled", asked))
        thread.start()
        assert ask(address, "GET", "/b/k") == b"pulled"
        thread.join(WAIT_S)
    assert asked[0].startswith(b"GET /v1/b/k HTTP/1.1")


def test_a_container_with_network_is_reached_by_a_published_port(
    containers: Containers, container_engine: RunningEngine
) -> None:
    if not container_engine.bridges:
        pytest.skip("Docker for the tests has no bridge, to leave the firewall alone; Podman needs netavark, iptables")
    container = started_worker(containers, "0.0.0.0:8000", mounts=(WORKER,), network=True, port=8000)
    assert ask(Address(host="127.0.0.1", port=container.port), "PUT", "/b/k", b"by port") == b"by port"


# --- how it ends --------------------------------------------------------------------------------


def test_all_that_a_container_printed_is_there_when_its_end_is_told(containers: Containers) -> None:
    printed, ended = containers.run(TALKS)
    assert ended == "exit code 3"
    assert "out\n" in printed and "err\n" in printed and printed.count("x") == 20000


def test_a_container_may_end_by_itself_when_asked(containers: Containers, gone: Callable[[str], bool]) -> None:
    log = Log()
    container = containers.start(PYTHON, "-c", ENDS_WHEN_ASKED, log=log)
    assert log.said_something.wait(WAIT_S) and container.ended() is None
    container.stop(grace_s=10)
    assert str(container.ended()) == "exit code 7"
    assert gone(container.id)


def test_a_container_that_does_not_end_when_asked_is_killed(
    containers: Containers, gone: Callable[[str], bool]
) -> None:
    log = Log()
    container = containers.start(PYTHON, "-c", SLEEPS, log=log)  # as a first process it hears no SIGTERM
    assert log.said_something.wait(WAIT_S)
    container.stop(grace_s=1)
    assert str(container.ended()).startswith("signal 9")
    assert gone(container.id)
    container.stop(grace_s=1)  # once more does no harm


def test_a_killed_process_is_seen_as_the_containers_end(containers: Containers) -> None:
    container = containers.start(PYTHON, "-c", SLEEPS)
    usage = container.usage()
    assert usage is not None and usage.cpu_s > 0 and usage.memory > 100_000
    os.kill(container.pid, signal.SIGKILL)
    assert str(container.wait(WAIT_S)).startswith("signal 9")
    assert container.usage() is None or container.ended() is not None


def test_a_container_that_somebody_removes_has_ended(containers: Containers, container_engine: RunningEngine) -> None:
    container = containers.start(PYTHON, "-c", SLEEPS)
    container_engine.api.remove_container(container.id, force=True)
    ended = container.wait(WAIT_S)
    assert ended is not None and ended.code == 137


# --- what can't be started ----------------------------------------------------------------------


def test_a_missing_image_is_named(engine: Engine, container_engine: RunningEngine) -> None:
    with pytest.raises(StartError, match="image 'localhost/no-such:1' is not on this machine") as caught:
        engine.image("localhost/no-such:1", pull=False)
    assert caught.value.final
    missing = f"{container_engine.registry}/no-such:1"
    with pytest.raises(StartError, match=rf"'{missing}' .* it can't be pulled: the container engine says: .+"):
        engine.image(missing)


def test_an_image_is_pulled_once(engine: Engine, container_engine: RunningEngine) -> None:
    reference = f"{container_engine.registry}/small:1"
    pulled = engine.image(reference)
    assert pulled.runs_as_root
    assert engine.image(reference, pull=False) == pulled


def test_a_pull_that_takes_too_long_is_not_waited_for(engine: Engine, container_engine: RunningEngine) -> None:
    with pytest.raises(StartError, match="still being pulled"):
        engine.image(f"{container_engine.registry}/slow:1", deadline=time.monotonic() + 0.5)


def test_a_command_that_is_not_in_the_image_leaves_nothing(
    containers: Containers, container_engine: RunningEngine
) -> None:
    with pytest.raises(StartError, match=r"does not start: the container engine says: .*no-such-program"):
        containers.start("no-such-program")
    left = {"label": f"transom.folder={containers.folder}"}
    assert container_engine.api.containers(all=True, filters=left) == []


def test_a_runtime_that_the_engine_has_not_is_refused(containers: Containers) -> None:
    with pytest.raises(StartError, match="no-such-runtime"):
        containers.start(PYTHON, "-c", "pass", runtime="no-such-runtime")
