"""Programs of this machine as containers: what they are shown, what they are bounded by, how their end is told."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from transom.target.etl.runtimes import container_root
from transom.target.etl.runtimes.base import Ended
from transom.target.etl.runtimes.container_end import Exit, explained
from transom.target.etl.runtimes.container_plan import ContainerPlan, Image, Mount, creation
from transom.target.etl.runtimes.container_program import plan_of_program
from transom.target.etl.sandbox import system
from transom.target.etl.sandbox.ending import Bound
from transom.target.etl.sandbox.program import MIB, Limits, Program

LIMITS = Limits(memory=64 * MIB, cpu=0.5, pids=16, output=4 * MIB, scratch=8 * MIB, files=100)


def plan(program: Program, hidden: tuple[Path, ...] = ()) -> ContainerPlan:
    return plan_of_program(program, "root:1", etl="x", revision=3, mark="folder", hidden=hidden)


def mounted(made: ContainerPlan) -> dict[str, Mount]:
    return {mount.at: mount for mount in made.mounts}


def test_a_program_is_shown_the_system_and_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    script, own = tmp_path / "script", tmp_path / "own"
    script.touch()
    own.mkdir()
    seen = mounted(plan(Program((str(script),), read=(script,), write=(own,))))
    assert [at for at, mount in seen.items() if mount.writable] == [str(own)]
    assert "/usr" in seen and str(script) in seen
    allowed = (*system.FOLDERS, *system.files(network=False), *system.python(), script, own)
    assert all(Path(at) in allowed for at in seen)


def test_a_link_is_shown_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    (tmp_path / "link").symlink_to("model")
    seen = mounted(plan(Program(("x",), read=(tmp_path / "link",))))
    assert seen[str(tmp_path / "link")].source == str(tmp_path / "model")


def test_the_data_folder_is_hidden_where_it_is_in_what_is_shown(tmp_path: Path) -> None:
    assert plan(Program(("x",)), hidden=(Path("/usr/local/data"), tmp_path)).hidden[2:] == ("/usr/local/data",)


def test_names_of_the_network_are_left_to_the_engine() -> None:
    seen = mounted(plan(Program(("x",), network=True)))
    assert "/etc/resolv.conf" not in seen and "/etc/hosts" not in seen


def test_the_bounds_are_the_sandboxes() -> None:
    made = plan(Program(("x",), env={"A": "b"}, limits=LIMITS))
    body = creation(made, Image("id", "65534:65534", ()), 2)
    host = body["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 * MIB, 64 * MIB, 500_000_000)
    assert host["PidsLimit"] == 17  # with the first process, which is ours
    assert {"Name": "fsize", "Soft": 4 * MIB, "Hard": 4 * MIB} in host["Ulimits"]
    assert {"Name": "nofile", "Soft": 100, "Hard": 100} in host["Ulimits"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert (body["User"], body["WorkingDir"]) == ("65534:65534", "/tmp")
    assert {"A=b", "HOME=/tmp", "USER=nobody"} <= set(body["Env"])
    assert body["Entrypoint"][-1] == "x"


def test_nothing_that_a_spec_says_comes_before_the_filter() -> None:
    env = {"LD_PRELOAD": "/x.so", "PYTHONPATH": "/x", "A": "b"}
    made = plan(Program(("prog", "word"), env=env))
    assert "LD_PRELOAD" not in made.env and made.env["A"] == "b"
    assert made.command[:3] == (sys.executable, "-I", "-S")  # which heeds no PYTHONPATH
    assert made.command[-2:] == ("prog", "word")
    assert made.command.index("LD_PRELOAD=/x.so") > made.command.index("/usr/bin/env") > 5


def test_the_image_holds_links_and_names_only_and_is_ever_the_same() -> None:
    made = container_root.root()
    container_root.root.cache_clear()
    assert container_root.root() == made
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        with tarfile.open(fileobj=archive.extractfile("layer.tar")) as layer:
            names = {entry.name: entry for entry in layer}
    assert manifest["RepoTags"] == [made.reference]
    links = {str(folder).lstrip("/") for folder in system.FOLDERS if folder.is_symlink()}
    assert set(names) == links | {"etc", "etc/passwd", "etc/group", "etc/nsswitch.conf"}
    assert len(made.archive) < 64 * 1024


REFUSED = "transom: refused by its limits: {}\n"


@pytest.mark.parametrize(
    ("how", "words", "said", "bound"),
    [
        (Exit(7), "", "exit code 7", ""),
        (
            Exit(137),
            REFUSED.format("memory=1"),
            "signal 9 (Killed), having reached its memory limit of 64 MiB",
            "memory",
        ),
        (Exit(137, oom=True), "", "signal 9 (Killed), having reached its memory limit of 64 MiB", "memory"),
        (Exit(1), REFUSED.format("processes=12"), "exit code 1, having reached its process limit of 16", "processes"),
        (
            Exit(1),
            REFUSED.format("memory=2 processes=9"),
            "exit code 1, having reached its memory limit of 64 MiB",
            "memory",
        ),
        (Exit(153), "", "signal 25 (File size limit exceeded), having reached its output limit of 4 MiB", "output"),
        (
            Exit(1),
            "OSError: No space left on device",
            "exit code 1, having reached its scratch limit of 8 MiB",
            "scratch",
        ),
        (Exit(137, memory=64 * MIB), "", "signal 9 (killed, or out of memory: its limit is 64 MiB)", ""),
        (Exit(139), "", "signal 11", ""),
        (Exit(1), "it said transom: refused by its limits: memory=1", "exit code 1", ""),
    ],
)
def test_an_end_is_explained_as_the_sandboxes_are(how: Exit, words: str, said: str, bound: Bound) -> None:
    assert explained(how, LIMITS, words) == Ended(said, bound)


def test_the_end_of_an_images_own_server_is_the_engines_word() -> None:
    memory = 64 * MIB
    assert explained(Exit(137, oom=True, memory=memory), None, "") == Ended(
        "out of memory (its limit is 64 MiB)", "memory"
    )
    assert explained(Exit(137, memory=memory), None, "").bound == ""
    assert explained(Exit(1), None, "Cannot allocate memory") == Ended("exit code 1")


def test_this_python_is_shown(tmp_path: Path) -> None:
    seen = [Path(at) for at in mounted(plan(Program((sys.executable,))))]
    assert any(Path(sys.executable).is_relative_to(folder) for folder in seen)
