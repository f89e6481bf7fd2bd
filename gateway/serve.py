"""`transom serve`: settles what is to run, binds the sockets, keeps the processes running and stops them again.

The composition root of the server: only the command line imports it.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from transom.cluster.catalog import Catalog
from transom.cluster.grants import SecretError, load_secret
from transom.cluster.map import ClusterMap, MapFile, State
from transom.cluster.map import Target as Node
from transom.cluster.records import CatalogError
from transom.gateway.config import Config, ConfigError, load_config
from transom.gateway.credentials import Credentials, load_credentials
from transom.gateway.hold import FolderHold
from transom.gateway.listening import listen, listen_for_services, listen_together, steer
from transom.gateway.parts import CATALOG, CLUSTER_MAP, SECRET, STORE, Assignment, Role, configure_logging
from transom.plugins.errors import LoadError
from transom.plugins.manager import load
from transom.s3compat.errors import S3Error
from transom.s3compat.names import check_bucket_name
from transom.target.etl.keeper.places import Places
from transom.target.etl.keeper.want import forget_statuses, has_remains, wants_keeper
from transom.target.etl.metrics import METRICS
from transom.target.etl.results import sweep, sweep_after
from transom.target.etl.workers_status import LOCAL
from transom.target.jobs.catalog import FOLDERS
from transom.target.store.local.folder_lock import FolderLock

_READY_TIMEOUT_S = 60.0
_RESTART_PAUSE_S = (0.1, 5.0)
_STEADY_S = 10.0
_KEEPER_GRACE_S = 4.0  # for workers to end, whatever the server processes took of the time to stop
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
_log = structlog.get_logger("transom.serve")
_SECTIONS = {
    **dict.fromkeys(("host", "port", "processes", "server", "domains", "log_level", "directory"), "server"),
    **dict.fromkeys(("targets", "gateways", "advertise"), "cluster"),
}


def run(directory: Path | None, config_file: Path | None, overrides: Mapping[str, Any]) -> int:
    """Serve until a signal says stop; return the exit status. Prints the address, and keys just made, to stdout."""
    try:
        config = load_config(config_file, _sections(directory, overrides))
        folder = _data_folder(config)
        _check(config)
        ours = FolderHold(folder / "serve.lock")
        credentials, made = load_credentials(config, folder, os.environ)
        load_secret(folder / SECRET)
    except (ConfigError, SecretError, LoadError) as error:
        print(f"transom: {error}", file=sys.stderr)  # noqa: T201 - before there is a log
        return 2
    configure_logging(config.server.log_level)
    # the first one in sweeps what a crash left; holding it open keeps later processes from sweeping again
    hold = FolderLock(folder / STORE)
    sweep(folder / "results")
    shutil.rmtree(folder / METRICS, ignore_errors=True)  # counts begin anew
    try:
        catalog = Catalog.open(folder / CATALOG)
        supervisor = Supervisor(config, folder, credentials, catalog, ours.fd)
        try:
            supervisor.start()
        except OSError as error:
            where = error.filename or f"{config.server.host}:{config.server.port}"
            print(f"transom: can't listen on {where}: {error.strerror}", file=sys.stderr)  # noqa: T201
            return 1
        _announce(supervisor, credentials, made=made)
        return supervisor.watch()
    except CatalogError as error:
        print(f"transom: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        hold.release()
        ours.release()


@dataclass(slots=True)
class _Process:
    """One process to keep running; of keepers the first alone serves a socket, if services elsewhere fetch there."""

    name: str
    role: Role
    server: str
    socket: socket.socket | None
    child: subprocess.Popen[bytes] | None = None
    starting: int = -1  # the pipe end that closes once the child can serve, or has died
    started: float = 0.0
    pause_s: float = _RESTART_PAUSE_S[0]
    restart_at: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Keeps the processes of one `transom serve` running."""

    config: Config
    folder: Path
    credentials: Credentials
    catalog: Catalog
    hold_fd: int
    address: tuple[str, int] = ("", 0)
    _processes: list[_Process] = field(default_factory=list)
    _front: list[_Process] = field(default_factory=list)  # those of them that clients come to
    _keepers: list[_Process] = field(default_factory=list)  # those that nothing needed yet
    _stopping: bool = False

    def start(self) -> None:
        """Bind the sockets, start every process and wait until each can serve. Raises OSError."""
        server, cluster = self.config.server, self.config.cluster
        count = cluster.gateways if cluster.targets else server.processes or os.cpu_count() or 1
        role: Role = "gateway" if cluster.targets else "all"
        listeners = listen_together(server.host, server.port, count)
        self.address = listeners[0].getsockname()[:2]
        if cluster.targets:
            self._plan_targets(cluster.targets)
        self._front = [
            _Process(f"{role}-{i}", role, self._server(role), listener) for i, listener in enumerate(listeners)
        ]
        self._processes += self._front
        targets = [process.name for process in self._processes if process.role == "target"] or [LOCAL]
        self._keepers = [_Process(target, "keeper", "granian", None) for target in targets]
        self._keepers[0].socket, self.config = listen_for_services(self.config)
        for keeper in self._keepers:
            forget_statuses(Places(self.folder, keeper.name))  # of workers of a server before this one
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        for process in self._processes:
            self._spawn(process)
        serving = [process.starting for process in self._processes]
        self._processes.append(_Process("jobs", "jobs", "granian", None))  # started when the others can serve
        self._call_keepers(first=True)
        _await_closed(serving, _READY_TIMEOUT_S)

    def watch(self) -> int:
        """Restart what dies, until told to stop; then let requests under way end, and stop everything."""
        while not self._stopping:
            self._call_keepers()
            self._tend()
            time.sleep(0.05)
        return self._shut_down()

    def _call_keepers(self, *, first: bool = False) -> None:
        """Start the keepers once an ETL needs them; at first also where a killed server may have left workers."""
        if not self._keepers:
            return
        try:
            needed = wants_keeper(self.catalog.snapshot())
        except CatalogError as error:
            _log.error("the catalog can't be read", reason=str(error))
            return
        for keeper in list(self._keepers):
            if needed or (first and has_remains(Places(self.folder, keeper.name))):
                self._keepers.remove(keeper)
                self._processes.append(keeper)
                self._spawn(keeper)

    def _plan_targets(self, count: int) -> None:
        nodes = []
        for i in range(count):
            listener = listen(self.config.server.host, 0)
            name = f"target-{i}"
            self._processes.append(_Process(name, "target", self._server("target"), listener))
            reachable = _LOOPBACK.get(self.config.server.host, self.config.server.host)
            nodes.append(Node(name, reachable, listener.getsockname()[1]))
        map_file = MapFile(self.folder / CLUSTER_MAP)
        map_file.save(ClusterMap(map_file.current().version + 1, tuple(nodes)))

    def _server(self, role: Role) -> str:
        chosen = self.config.server.server
        if chosen != "auto":
            return chosen
        return "hypercorn" if self.config.server.tls_certificate or role == "gateway" else "granian"

    def _spawn(self, process: _Process) -> None:
        process.starting, told = os.pipe()
        fds = [told, self.hold_fd, *([process.socket.fileno()] if process.socket is not None else [])]
        assignment = Assignment(
            role=process.role,
            name=process.name,
            folder=str(self.folder),
            server="granian" if process.server == "granian" else "hypercorn",
            socket_fd=process.socket.fileno() if process.socket is not None else -1,
            ready_fd=told,
            supervisor=os.getpid(),
            config=_exposed(self.config),
            keys=self.credentials.exposed(),
        )
        module = "transom.gateway.offline" if process.role == "jobs" else "transom.gateway.process"
        env = self._env_of_jobs() if process.role == "jobs" else None
        process.child = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, pass_fds=fds, env=env)  # noqa: S603 - one of ours
        os.close(told)
        process.started = time.monotonic()
        if process.child.stdin is not None:
            with suppress(BrokenPipeError):  # it died at once: tended to like any that dies
                process.child.stdin.write(assignment.to_json().encode())
                process.child.stdin.close()

    def _env_of_jobs(self) -> dict[str, str]:
        """Have SQLite put what a sort doesn't hold in memory beside the jobs: /tmp may be small, or memory too.

        SQLite looks once, when it is loaded: nothing that a job sets later would count.
        """
        jobs = self.folder / FOLDERS
        jobs.mkdir(exist_ok=True)
        return {**os.environ, "SQLITE_TMPDIR": str(jobs)}

    def _tend(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            if process.child is not None and process.child.poll() is not None:
                sweep_after(self.folder / "results", process.child.pid)
                self._lost(process, process.child.returncode, now)
            if process.child is None and now >= process.restart_at:
                self._spawn(process)
            elif process.child is not None and process.starting >= 0 and _is_closed(process.starting):
                _forget_pipe(process)
                self._mark(process, "up")

    def _lost(self, process: _Process, code: int, now: float) -> None:
        if now - process.started > _STEADY_S:
            process.pause_s = _RESTART_PAUSE_S[0]
        process.restart_at = now + process.pause_s
        process.pause_s = min(process.pause_s * 2, _RESTART_PAUSE_S[1])
        process.child = None
        _forget_pipe(process)
        if process.role == "keeper":
            forget_statuses(Places(self.folder, process.name))  # its workers went with it
        self._mark(process, "down")
        _log.warning("a process ended and is restarted", process=process.name, status=code)

    def _mark(self, process: _Process, state: State) -> None:
        """Tell clients' connections, or the gateways: until a target is back, its keys go to the next in rank."""
        if process in self._front:
            serving = [i for i, each in enumerate(self._front) if each.child is not None and each.starting < 0]
            steer([each.socket for each in self._front if each.socket is not None], serving)
        if process.role != "target":
            return
        map_file = MapFile(self.folder / CLUSTER_MAP)
        try:
            map_file.save(map_file.current().with_state(process.name, state))
        except OSError as error:  # a full disk: gateways find out for themselves
            _log.error("can't write the cluster map", reason=str(error))

    def _stop(self, _signum: int, _frame: object) -> None:
        self._stopping = True

    def _shut_down(self) -> int:
        give_up = time.monotonic() + self.config.server.shutdown_s
        # gateways first: what they relay ends only while the targets still serve, and those only while workers do
        for roles in (("all", "gateway", "jobs"), ("target",), ("keeper",)):
            ending = [each.child for each in self._processes if each.role in roles and each.child is not None]
            _end(ending, max(give_up, time.monotonic() + _KEEPER_GRACE_S) if "keeper" in roles else give_up)
        self.catalog.close()
        return 0


def _end(children: list[subprocess.Popen[bytes]], give_up: float) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(max(0.0, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _sections(directory: Path | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name, value in {**overrides, **({"directory": directory} if directory else {})}.items():
        if name == "folders":
            sections["folder"] = [{"name": bucket, "path": str(path)} for bucket, path in value.items()]
        else:
            sections.setdefault(_SECTIONS[name], {})[name] = value
    return sections


def _data_folder(config: Config) -> Path:
    folder = config.server.directory.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make the data folder {folder}: {error.strerror}") from error
    return folder


def _check(config: Config) -> None:
    """What can be known to be wrong before any process starts."""
    load()
    _check_tls(config)
    for each in config.folder:
        try:
            check_bucket_name(each.name)
        except S3Error as error:
            raise ConfigError(f"folder {each.name!r}: {error.message}") from error
        if not each.path.is_dir():
            raise ConfigError(f"folder {each.name!r}: {each.path} is no directory")


def _check_tls(config: Config) -> None:
    server = config.server
    if server.tls_certificate is None or server.tls_key is None:
        return
    if server.server == "granian":
        raise ConfigError("server.server: TLS is served by hypercorn; leave it out or say hypercorn")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(server.tls_certificate, server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"server.tls_certificate, server.tls_key: can't use {server.tls_certificate} and {server.tls_key}: {error}"
        ) from error


def _exposed(config: Config) -> dict[str, Any]:
    """The configuration for a child: JSON-ready, and without the keys, which travel with their owners."""
    return config.model_dump(mode="json", exclude={"key"})


def _await_closed(pipes: list[int], timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    left = set(pipes)
    while left and time.monotonic() < give_up:
        readable, _, _ = select.select(list(left), [], [], max(0.0, give_up - time.monotonic()))
        left -= set(readable)


def _is_closed(pipe: int) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def _forget_pipe(process: _Process) -> None:
    if process.starting >= 0:
        os.close(process.starting)
        process.starting = -1


def _announce(supervisor: Supervisor, credentials: Credentials, *, made: bool) -> None:
    host, port = supervisor.address
    scheme = "https" if supervisor.config.server.tls_certificate else "http"
    shown = f"[{host}]" if ":" in host else host
    if made:
        path = supervisor.folder / "credentials.json"
        print(f"transom: generated keys, kept in {path}")  # noqa: T201
        print(f"export TRANSOM_ACCESS_KEY={credentials.first.access}")  # noqa: T201
        print(f"export TRANSOM_SECRET_KEY={credentials.first.secret}")  # noqa: T201
    print(f"transom: listening on {scheme}://{shown}:{port}", flush=True)  # noqa: T201
