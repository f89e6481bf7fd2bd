"""Which container engine is taken: the one that was named, or a usual one that answers; and what is said of none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.etl.runtimes import engine_socket
from transom.target.etl.runtimes.base import StartError
from transom.target.etl.runtimes.engine_socket import NoEngineError, find_engine


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """A socket that somebody listens on, where a user's Podman has it."""
    path = tmp_path / "podman" / "podman.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


@pytest.fixture(autouse=True)
def no_engine_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_socket, "SYSTEM_SOCKETS", ())


def test_a_named_engine_is_taken_and_the_configuration_comes_first(listening: Path) -> None:
    assert find_engine(f"unix://{listening}", {"DOCKER_HOST": "unix:///none"}) == str(listening)
    assert find_engine("", {"DOCKER_HOST": f"unix://{listening}"}) == str(listening)
    assert find_engine(str(listening), {}) == str(listening)


def test_a_usual_engine_is_found_where_none_is_named(listening: Path) -> None:
    assert find_engine("", {"XDG_RUNTIME_DIR": str(listening.parents[1])}) == str(listening)


def test_a_named_engine_that_does_not_answer_is_not_replaced_by_another(listening: Path, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(listening.parents[1]), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with pytest.raises(StartError, match=r"none\.sock, which DOCKER_HOST names: No such file") as caught:
        find_engine("", environ)
    assert not caught.value.final  # it may come
    with pytest.raises(StartError, match=r"other\.sock, which \[etl\] engine names"):
        find_engine(f"unix://{tmp_path}/other.sock", environ)


def test_an_engine_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match=r"DOCKER_HOST is 'tcp://far:2375'.* unix:///PATH") as caught:
        find_engine("", {"DOCKER_HOST": "tcp://far:2375"})
    assert caught.value.final


def test_without_any_engine_it_is_said_how_to_have_one() -> None:
    with pytest.raises(NoEngineError, match=r"podman system service.* set engine under \[etl\]"):
        find_engine("", {})


def test_an_engine_that_this_user_may_not_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_socket, "SYSTEM_SOCKETS", ("/run/somebodys.sock",))
    monkeypatch.setattr(engine_socket, "_problem", lambda path: PermissionError(13, "Permission denied"))
    with pytest.raises(StartError, match=r"this user may not use /run/somebodys\.sock"):
        find_engine("", {})
