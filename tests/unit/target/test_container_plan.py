"""What an engine is asked for: the bounds are in every container, whatever the spec and the image say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from transom.target.etl.runtimes.base import Order
from transom.target.etl.runtimes.container import check
from transom.target.etl.runtimes.container_end import Exit
from transom.target.etl.runtimes.container_plan import GIB, MIB, ContainerPlan, Image, Mount, creation
from transom.target.etl.runtimes.containers import EVERYWHERE, plan_of
from transom.target.etl.runtimes.engine_socket import EngineError
from transom.target.etl.spec import Spec

PLAIN = Image("sha256:1", "", ())


def body(image: Image = PLAIN, **how: Any) -> dict[str, Any]:
    """What is asked for on a machine of four CPUs."""
    return creation(ContainerPlan("resize", "localhost/resize:1", "folder", **how), image, 4)


def test_every_container_is_bounded() -> None:
    host = body()["HostConfig"]
    assert host["NetworkMode"] == "none" and host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == GIB and host["PidsLimit"] == 512
    assert {each["Name"] for each in host["Ulimits"]} >= {"nofile", "nproc"}
    assert "mode=1777" in host["Tmpfs"]["/tmp"]
    assert "PortBindings" not in host and "Runtime" not in host


@pytest.mark.parametrize(("user", "runs_as"), [("", "65534:65534"), ("root", "65534:65534"), ("0:5", "65534:65534")])
def test_an_image_of_root_runs_as_nobody(user: str, runs_as: str) -> None:
    made = body(Image("sha256:1", user, ()))
    assert made["User"] == runs_as
    assert "HOME=/tmp" in made["Env"]


def test_an_image_with_a_user_of_its_own_keeps_it_and_its_home() -> None:
    made = body(Image("sha256:1", "app:app", ("HOME=/home/app",)))
    assert made["User"] == "app:app"
    assert not any(each.startswith("HOME=") for each in made["Env"])


def test_a_command_stands_in_for_the_images_entry_point_and_its_arguments() -> None:
    made = body(command=("python", "-m", "x"))
    assert (made["Entrypoint"], made["Cmd"]) == (["python", "-m", "x"], [])
    assert "Entrypoint" not in body() and "Cmd" not in body()


@pytest.mark.parametrize(("asked", "given"), [(0.0, 4.0), (0.5, 0.5), (64.0, 4.0)])
def test_cpus_are_never_more_than_there_are(asked: float, given: float) -> None:
    assert body(cpus=asked)["HostConfig"]["NanoCpus"] == given * 1e9


def test_mounts_are_read_only_unless_said_otherwise() -> None:
    made = body(mounts=(Mount("/data/files"), Mount("/run/w", writable=True), Mount("/x", at="/y")))
    mounts = made["HostConfig"]["Mounts"]
    assert [(each["Source"], each["Target"], each["ReadOnly"]) for each in mounts] == [
        ("/data/files", "/data/files", True),
        ("/run/w", "/run/w", False),
        ("/x", "/y", True),
    ]


def test_a_network_publishes_the_port_on_this_machine_only() -> None:
    made = body(network=True, port=8000)
    assert made["HostConfig"]["NetworkMode"] == "bridge"
    assert made["HostConfig"]["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}


def test_an_engine_that_drops_a_bound_is_refused() -> None:
    plan = ContainerPlan("resize", "i", "f")
    kept = body()["HostConfig"]
    check(plan, {"HostConfig": kept})
    with pytest.raises(EngineError, match="does not keep Memory, PidsLimit"):
        check(plan, {"HostConfig": {**kept, "Memory": 0, "PidsLimit": None}})


def test_an_order_becomes_a_plan_with_the_specs_bounds(tmp_path: Path) -> None:
    runtime = {"image": "localhost/resize:1", "command": ["serve"]}
    resources = {"cpu": "500m", "memory": "64Mi", "pids": 9}
    spec = Spec.model_validate({"name": "resize", "runtime": runtime, "resources": resources, "redirect": "worker"})
    order = Order(
        etl="resize",
        revision=3,
        spec={},
        folder=tmp_path / "w",
        files=tmp_path / "f",
        env={"A": "b"},
        port=8000,
        log_fd=-1,
        mark="folder",
    )
    plan = plan_of(order, spec, "runsc")
    assert (plan.memory, plan.cpus, plan.pids, plan.runtime) == (64 * MIB, 0.5, 9, "runsc")
    assert (plan.command, plan.folder, plan.revision) == (("serve",), "folder", 3)
    assert plan.mounts == (Mount(str(tmp_path / "w"), writable=True), Mount(str(tmp_path / "f")))
    assert not plan.network and plan.published == EVERYWHERE  # if it had one: clients are sent to it


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Exit(3), "exit code 3"),
        (Exit(139), "signal 11"),
        (Exit(137, oom=True, memory=64 * MIB), "out of memory (its limit is 64 MiB)"),
        (Exit(137, memory=64 * MIB), "signal 9 (killed, or out of memory: its limit is 64 MiB)"),
    ],
)
def test_an_end_is_told_in_words(how: Exit, words: str) -> None:
    assert str(how) == words
