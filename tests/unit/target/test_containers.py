"""A launcher of containers where there is nothing to launch them with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from transom.target.etl.runtimes import engine_socket
from transom.target.etl.runtimes.base import Order, StartError
from transom.target.etl.runtimes.containers import Containers


@pytest.fixture
def order(tmp_path: Path) -> Order:
    spec = {"name": "resize", "runtime": {"image": "localhost/resize:1"}, "communication": "hpush://"}
    return Order("resize", 1, spec, tmp_path, None, {}, 8000, -1, "mark")


def test_without_its_library_it_is_said_how_to_have_it(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engine", "container"):
        monkeypatch.delitem(sys.modules, f"transom.target.etl.runtimes.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "docker", None)
    launcher = Containers()
    with pytest.raises(StartError, match=r"pip install 'transom\[containers\]'") as caught:
        launcher.start(order)
    assert caught.value.final
    launcher.reap("mark")  # nothing can have been left


def test_without_an_engine_nothing_starts_and_nothing_was_left(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_socket, "SYSTEM_SOCKETS", ())
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    launcher = Containers()
    with pytest.raises(StartError, match="no container engine: start podman") as caught:
        launcher.start(order)
    assert not caught.value.final  # one may be started
    launcher.reap("mark")
    launcher.close()


def test_a_named_engine_that_is_not_there_may_have_containers(order: Order, tmp_path: Path) -> None:
    launcher = Containers(f"unix://{tmp_path}/none.sock")
    with pytest.raises(StartError, match=r"none\.sock, which"):
        launcher.reap("mark")
