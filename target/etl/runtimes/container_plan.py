"""What a container is to be, and the Engine API's words for it: no network, nothing writable, nothing privileged.

It asks no engine and knows no ETL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transom.target.etl.runtimes.base import LABEL

LABEL_ETL = "transom.etl"
LABEL_REVISION = "transom.revision"
NOBODY = "65534:65534"
MIB = 1024**2
GIB = 1024**3
_ROOT = ("", "0", "root")
# Of all processes of one user on the machine, so it is no bound on one container: `pids` is. It is named because
# Podman's own default is more than a small machine lets anybody have.
_USER_PROCESSES = 8192
_HIDING = "rw,noexec,nosuid,nodev,mode=0755,size=64k"  # root's, so nobody writes there: it may hold what is shown below


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine, seen in the container at the same path, or at `at`."""

    source: str
    writable: bool = False
    at: str = ""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """One container. Sizes in bytes; `cpus` 0 is all there are. `command` stands in for the image's entry point, and
    `start_in` for its folder. `output` bounds each file that is written, 0 does not; nothing is seen of `hidden`.

    `folder` is the id that `Engine.reap` knows it by. With `network` it is on the engine's bridge and `port`, if any,
    is published on a free port of this machine's address `published`; without, it has a loopback of its own only.
    """

    etl: str
    image: str
    folder: str
    revision: int = 0
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    memory: int = GIB
    cpus: float = 0.0
    pids: int = 512
    files: int = 4096
    scratch: int = 256 * MIB
    output: int = 0
    hidden: tuple[str, ...] = ()
    start_in: str = ""
    network: bool = False
    port: int = 0
    published: str = "127.0.0.1"
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image says of itself: its id, whom it runs as, its environment."""

    id: str
    user: str
    env: tuple[str, ...]

    @property
    def runs_as_root(self) -> bool:
        """Whether it would run as root if nobody said otherwise."""
        return self.user.partition(":")[0] in _ROOT


def creation(plan: ContainerPlan, image: Image, cpus: int) -> dict[str, Any]:
    """The body of `POST /containers/create`, on a machine of `cpus` CPUs."""
    body: dict[str, Any] = {
        "Image": plan.image,
        "Env": _environment(plan, image),
        "User": NOBODY if image.runs_as_root else image.user,
        "Labels": {LABEL: plan.folder, LABEL_ETL: plan.etl, LABEL_REVISION: str(plan.revision)},
        "HostConfig": _host(plan, cpus),
    }
    if plan.command:
        body["Entrypoint"] = list(plan.command)
        body["Cmd"] = []
    if plan.start_in:
        body["WorkingDir"] = plan.start_in
    if plan.network and plan.port:
        body["ExposedPorts"] = {f"{plan.port}/tcp": {}}
    return body


def _environment(plan: ContainerPlan, image: Image) -> list[str]:
    env = dict(plan.env)
    if image.runs_as_root and not any(each.startswith("HOME=") for each in image.env):
        env.setdefault("HOME", "/tmp")  # noqa: S108 - the container's own, and all that nobody can write there
    return [f"{name}={value}" for name, value in env.items()]


def _host(plan: ContainerPlan, cpus: int) -> dict[str, Any]:
    host: dict[str, Any] = {
        "NetworkMode": "bridge" if plan.network else "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": plan.memory,
        "MemorySwap": plan.memory,
        "NanoCpus": int(min(plan.cpus or cpus, cpus) * 1e9),  # engines refuse more than there are
        "PidsLimit": plan.pids,
        "Ulimits": _ulimits(plan),
        "ShmSize": plan.scratch,
        "Tmpfs": {
            "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={plan.scratch}",  # noqa: S108
            **dict.fromkeys(plan.hidden, _HIDING),
        },
        "Mounts": [_mount(mount) for mount in plan.mounts],
        "LogConfig": {"Type": "none", "Config": {}},  # it would grow without end; what is printed is followed live
        "RestartPolicy": {"Name": "no"},
    }
    if plan.runtime:
        host["Runtime"] = plan.runtime
    if plan.network and plan.port:
        host["PortBindings"] = {f"{plan.port}/tcp": [{"HostIp": plan.published, "HostPort": ""}]}
    return host


def _ulimits(plan: ContainerPlan) -> list[dict[str, Any]]:
    bounds = {"nofile": plan.files, "nproc": _USER_PROCESSES, "core": 0}
    if plan.output:
        bounds["fsize"] = plan.output
    return [{"Name": name, "Soft": bound, "Hard": bound} for name, bound in bounds.items()]


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.at or mount.source,
        "ReadOnly": not mount.writable,
    }
