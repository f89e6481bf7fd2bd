"""Real container engines of a test session's own: started by it, on a socket and folders of their own, and ended by it.

An engine that the machine may run besides is left alone: stores, locks and sockets are apart. Podman leaves the empty
chains of its network in the machine's firewall.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.containers.registry import serving
from transom.target.etl.runtimes.namespaces import can_enter_namespaces

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0


class RunningEngine:
    """A started engine: the path of its socket, and a client for what tests do beside the code under test."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self.registry = ""  # the name of one that it may pull from
        self.folder = folder
        self.socket = str(folder / "engine.sock")
        self._log = (folder / "engine.log").open("wb")
        # an engine that outlived a killed test run would keep its mounts for ever
        tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*tied, *command, f"unix://{self.socket}"],
            env={**os.environ, "PATH": _PATH, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=folder,  # Podman's monitor leaves a file there for a container out of memory
            start_new_session=True,
        )
        self.api: Any = None

    @property
    def bridges(self) -> bool:
        """Whether its containers may have a network."""
        tools = ("/usr/lib/podman/netavark", "iptables")
        return self.name == "podman" and all(shutil.which(tool, path=_PATH) for tool in tools)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def connect(self) -> bool:
        """Wait until it answers; False if it ended instead."""
        give_up = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < give_up and self._process.poll() is None:
            if self._listens():
                self.api = docker.APIClient(self.url, version="auto")
                return True
            time.sleep(0.02)
        return False

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def load(self, archive: Path) -> None:
        """Load an image."""
        with archive.open("rb") as file:
            for event in self.api.load_image(file):
                assert "error" not in event, event

    @property
    def said(self) -> str:
        """The last of what it logged."""
        return (self.folder / "engine.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Remove its containers, end it, unmount and remove its folder."""
        if self.api is not None:
            for each in self.api.containers(all=True):
                self.api.remove_container(each["Id"], force=True, v=True)
            self.api.close()
        # Podman has no process but this one and nothing to put in order; it would wait for idle connections
        self._process.send_signal(signal.SIGKILL if self.name == "podman" else signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()
        for mounted in _mounts_below(self.folder):
            subprocess.run(["umount", "--lazy", mounted], check=True)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def running(name: str) -> Iterator[RunningEngine]:
    """Run an engine; skips the test where this machine can't."""
    if os.geteuid() or not can_enter_namespaces():
        pytest.skip("only root, with the right to make namespaces, can run a container engine for the tests")
    program = {"podman": "podman", "docker": "dockerd"}[name]
    if shutil.which(program, path=_PATH) is None:
        # scripts/setup installs podman where it can: that it's missing there must not go unseen
        absent = pytest.fail if name == "podman" and Path("/etc/debian_version").exists() else pytest.skip
        absent(f"{program} is not installed (scripts/setup installs podman, as root on Debian)")
    with serving() as registry:
        engine = _podman(registry.name) if name == "podman" else _docker()
        engine.registry = registry.name
        try:
            yield engine
        finally:
            registry.closing.set()
            engine.stop()


def _podman(registry: str) -> RunningEngine:
    # overlay can't be had over another overlay, in a container without a volume: then copies will do
    for driver in ("overlay", "vfs"):
        folder = _new_folder()
        environment = _podman_files(folder, driver, registry)
        engine = RunningEngine("podman", folder, ["podman", "system", "service", "--time=0"], environment)
        if engine.connect():
            return engine
        said = engine.said
        engine.stop()
    raise AssertionError(f"podman does not start: {said}")


def _podman_files(folder: Path, driver: str, registry: str) -> dict[str, str]:
    runtime = 'runtime = "runc"' if shutil.which("runc", path=_PATH) else ""
    containers, storage, registries = (folder / f"{name}.conf" for name in ("containers", "storage", "registries"))
    containers.write_text(
        f"""
[containers]
default_ulimits = ["nofile=4096:16384", "nproc=2048:4096"]

[network]
network_config_dir = "{folder}/networks"
default_subnet = "10.{os.getpid() >> 8 & 255}.{os.getpid() & 255}.0/24"

[engine]
{runtime}
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
"""
    )
    storage.write_text(f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n')
    registries.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    return {
        "CONTAINERS_CONF": str(containers),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_REGISTRIES_CONF": str(registries),
    }


def _docker() -> RunningEngine:
    folder = _new_folder()
    command = [
        "dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid",
        "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--host",
    ]  # fmt: skip
    engine = RunningEngine("docker", folder, command, {})
    if not engine.connect():
        said = engine.said
        engine.stop()
        raise AssertionError(f"dockerd does not start: {said}")
    return engine


def _new_folder() -> Path:
    # short, for a socket's path has at most 107 bytes
    return Path(tempfile.mkdtemp(prefix="transom-engine-"))


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)
