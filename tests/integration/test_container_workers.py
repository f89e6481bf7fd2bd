"""Workers as containers, started as a keeper does: our SDK's over a socket, AIStore's own over TCP with no network."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers import images
from tests.containers.engines import RunningEngine
from tests.containers.speaking import ask, serve_once
from tests.wire import eventually
from transom.target.etl.keeper.health import first_well
from transom.target.etl.runtimes import containers
from transom.target.etl.runtimes.base import Order, StartError
from transom.target.etl.runtimes.containers import Containers, ContainerWorker
from transom.target.etl.runtimes.namespaces import is_container
from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import listen_in_netns

PORT = 8000
PULL_PORT = 18080
WAIT_S = 20.0
LOOK_S = 2.0
MIB = 1024 * 1024


class Keeper:
    """What a keeper does with a launcher, by hand."""

    def __init__(self, launcher: Containers, folder: Path) -> None:
        self.launcher = launcher
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self._reader, self._writer = os.pipe()
        self._started: list[ContainerWorker] = []

    def order(self, image: str, files: Path | None = None, **spec: Any) -> Order:
        spec = {"name": "swap", "runtime": {"image": image}, "communication": "hpush://"} | spec
        env = {"TRANSOM_SOCKET": str(self.folder / "worker.sock"), "AIS_TARGET_URL": f"http://127.0.0.1:{PULL_PORT}"}
        return Order(
            etl="swap",
            revision=1,
            spec=spec,
            folder=self.folder,
            files=files,
            env=env,
            port=PORT,
            log_fd=self._writer,
            mark=self.mark,
        )

    def start(self, order: Order) -> ContainerWorker:
        worker = self.launcher.start(order)
        self._started.append(worker)
        return worker

    def said(self) -> str:
        """What the worker printed, once it has ended."""
        os.close(self._writer)
        self._writer = -1
        with os.fdopen(self._reader, "rb") as reader:
            self._reader = -1
            return reader.read().decode()

    def close(self) -> None:
        for worker in self._started:
            worker.stop(0.0)
        for fd in (self._reader, self._writer):
            if fd >= 0:
                os.close(fd)


def well(worker: ContainerWorker) -> Address:
    """Where a worker has come to listen."""
    found = eventually(lambda: first_well(worker.addresses, LOOK_S), within_s=WAIT_S)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def launcher(container_engine: RunningEngine) -> Iterator[Containers]:
    opened = Containers(container_engine.url, pull=False)
    yield opened
    opened.close()


@pytest.fixture
def keeper(launcher: Containers, socket_folder: Path) -> Iterator[Keeper]:
    made = Keeper(launcher, socket_folder)
    yield made
    made.close()


def test_a_worker_with_our_sdk_is_reached_at_its_socket(keeper: Keeper, gone: Callable[[str], bool]) -> None:
    worker = keeper.start(keeper.order(images.WORKER))
    address = well(worker)
    assert address.unix == str(keeper.folder / "worker.sock")
    body = os.urandom(2 * MIB)
    assert ask(address, "PUT", "/b/k?etl_args=!", body) == body.swapcase() + b"!"
    usage = worker.usage()
    assert worker.pid and worker.ended() is None and usage is not None and usage.cpu_s > 0
    worker.stop(5.0)
    assert worker.ended() is not None and gone(worker.container)


def test_containers_of_a_killed_keeper_are_reaped_by_the_next(
    keeper: Keeper, container_engine: RunningEngine, gone: Callable[[str], bool]
) -> None:
    worker = keeper.start(keeper.order(images.WORKER))
    labels = container_engine.api.inspect_container(worker.container)["Config"]["Labels"]
    assert labels["transom.folder"] == keeper.mark
    assert (labels["transom.etl"], labels["transom.revision"]) == ("swap", "1")
    other = Containers(container_engine.url)
    other.reap("somebody-else")
    assert not gone(worker.container)
    other.reap(keeper.mark)
    other.close()
    assert gone(worker.container) and not is_container(worker.pid, worker.container)
    assert str(eventually(worker.ended)).startswith("signal 9")


def test_a_worker_with_aistores_own_library_runs_unchanged_without_network(keeper: Keeper, aistore_image: str) -> None:
    worker = keeper.start(keeper.order(aistore_image))
    address = well(worker)
    assert (address.unix, address.port, address.netns_pid) == ("", PORT, worker.pid)
    assert ask(address, "PUT", "/b/k?etl_args=!", b"Pushed") == b"pUSHED!"
    with listen_in_netns(worker.pid, PULL_PORT) as listener:
        asked: list[bytes] = []
        thread = threading.Thread(target=serve_once, args=(listener, b"Pulled", asked))
        thread.start()
        assert ask(address, "GET", "/b/k") == b"pULLED"
        thread.join(WAIT_S)
    assert asked[0].startswith(b"GET /b%2Fk HTTP/1.1")  # as AIStore names objects


def test_direct_files_are_seen_at_their_own_path_and_nothing_beside(keeper: Keeper, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    code = f"import os, time\nwhile not os.listdir({str(files)!r}): time.sleep(0.01)\n"
    code += f"print(open({str(files / 'late')!r}).read(), os.listdir({str(tmp_path)!r}))"
    command = ["/usr/bin/python3", "-c", code]
    worker = keeper.start(keeper.order("", files, runtime={"image": images.WORKER, "command": command}))
    (files / "late").write_text("appeared")  # after its start
    assert str(eventually(worker.ended, within_s=WAIT_S)) == "exit code 0"
    assert keeper.said() == "appeared ['files']\n"


def test_a_worker_that_may_be_out_of_reach_is_told_what_its_spec_must_say(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "can_enter_namespaces", lambda: False)  # as for a server that is not root's
    ends = {"image": images.WORKER, "command": ["/usr/bin/python3", "-c", ""]}
    worker = keeper.start(keeper.order("", runtime=ends))
    assert [bool(address.unix) for address in worker.addresses] == [True]
    assert str(eventually(worker.ended, within_s=WAIT_S)) == "exit code 0"
    assert "'network: true'" in worker.hint


def test_an_image_that_is_not_there_is_the_specs_fault(keeper: Keeper) -> None:
    with pytest.raises(StartError, match="localhost/no-such:1") as caught:
        keeper.launcher.start(keeper.order("localhost/no-such:1"))
    assert caught.value.final
