"""A real server with an ETL for every way to run one, and what may be known of its processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transom_test_transformers.probe_worker as probe

from tests.processes import children, marked
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminClient
from transom.target.etl.keeper.health import is_well
from transom.target.etl.transports.base import Address

BUCKET = "conformance"
SERVICE = "http://service"  # stands for the service's URL in a combo
PROGRAM = Path(probe.__file__)
SOURCE = PROGRAM.read_text()
SHELL = Path(__file__).with_name("probe_worker.sh").read_text()
DEFAULTS = {"do": "upper", "base": 1, "over": 2}
BRIEF_S = 3.0  # what sleeps has passed it; one that only starts anew, among all others, has not
_LOOK_S = 2.0


@dataclass(frozen=True)
class Combo:
    """A way to run an ETL: `rest` is what else its spec says. A `thorough` one's heavy checks aren't for the soak."""

    name: str
    runtime: Mapping[str, Any]
    communication: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)
    thorough: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def brief(self) -> str:
        """The same with little time for each object, and arguments of its own."""
        return f"{self.name}-brief"

    @property
    def installed(self) -> bool:
        """Whether it is a transformer that takes arguments by name."""
        return not {"plugin", "process"}.isdisjoint(self.runtime)

    @property
    def kept(self) -> bool:
        """Whether a keeper keeps a worker of it, and starts another where that died."""
        return self.communication in ("hpush", "hpull", "hrev", "ws") and "url" not in self.runtime

    @property
    def failure(self) -> str:
        """The code of an object that it fails on."""
        once = self.communication == "io" and self.rest.get("io") != "persistent"
        return "EtlExited" if once else "EtlFailed"

    @property
    def death(self) -> tuple[tuple[int, str], ...]:
        """The status and code of an object that its worker dies of; a keeper may see that too late to tell."""
        crashed, disconnected = (500, "EtlCrashed"), (502, "EtlDisconnected")
        if "url" in self.runtime:
            return (disconnected,)
        return (crashed, disconnected) if self.kept else (crashed,)

    @property
    def mortal(self) -> bool:
        """Whether its end isn't the server's."""
        return "plugin" not in self.runtime

    def specs(self, service: str) -> list[dict[str, Any]]:
        """Its specs: as it is, and the brief one."""
        runtime = {name: service if value == SERVICE else value for name, value in self.runtime.items()}
        spec = {"runtime": runtime, "communication": self.communication, **self.rest}
        brief = {**spec, "name": self.brief, "obj_timeout": BRIEF_S, "args": DEFAULTS}
        return [{**spec, "name": self.name}, brief]


@dataclass
class Site:
    """A server with the ETLs of `combos`, each as it is and brief; `services` are those at URLs, by combo."""

    server: RunningServer
    admin: AdminClient
    combos: Sequence[Combo]
    services: Mapping[str, Service]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def get(self, etl: str, key: str, args: object = None) -> Raw:
        """Get an object through an ETL, or a pipeline, with arguments: a text as it is."""
        given = {} if args is None else {"etl_args": args if isinstance(args, str) else json.dumps(args)}
        return self.wire.get(at(BUCKET, key, etl=etl, **given))

    def put(self, data: bytes, key: str = "", content_type: str = "text/plain") -> str:
        """Store an object; under a key of its own, if none is given."""
        key = key or f"object-{next(self._numbers)}"
        self.wire.put(at(BUCKET, key), data, {"Content-Type": content_type})
        return key

    @property
    def wire(self) -> Wire:
        """Raw requests, from any thread."""
        return Wire(self.server)

    def workers(self, etl: str) -> list[int]:
        """The pids of the workers that are kept for an ETL."""
        return [worker.pid for worker in self.admin.etl(etl).workers if worker.state == "running"]

    def pids(self, combo: Combo) -> set[int]:
        """All processes that may have a part in a run, as far as this machine's."""
        found = {self.server.pid, *marked(self.server), *(filter(None, self.workers(combo.name)))}
        found.update(service.pid for service in self.services.values())
        left = list(found)
        while left:
            left = [child for pid in left for child in children(pid) if child not in found]
            found.update(left)
        return found

    def ready(self) -> None:
        """Wait for what nobody else waits for: services that were killed and are started again."""
        for service in self.services.values():
            service.ready()


@contextlib.contextmanager
def running_site(
    folder: Path,
    combos: Sequence[Combo],
    *options: str,
    engine: str = "",
    isolation: str = "sandbox",
    services: Mapping[str, Service] | None = None,
    beside: Sequence[Combo] = (),
) -> Iterator[Site]:
    """Run a server with the ETLs of `combos`, and plain ones of those `beside`; afterwards nothing may be left."""
    config = folder / "transom.toml"
    config.write_text(f'[etl]\nurl_allow = ["127.0.0.1"]\nengine = "{engine}"\nisolation = "{isolation}"\n')
    server = RunningServer(folder / "data", (*options, "--config", str(config))).start()
    try:
        with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
            site = Site(server, admin, combos, services or {})
            site.wire.put(f"/{BUCKET}")
            urls = {name: service.url for name, service in site.services.items()}
            specs = [spec for combo in combos for spec in combo.specs(urls.get(combo.name, ""))]
            specs += [combo.specs("")[0] for combo in beside]
            admin.init_spec("\n---\n".join(map(json.dumps, specs)))
            yield site
    finally:
        status = server.stop()
    assert status == 0, "".join(server.log)
    assert marked(server) == []


class Service:
    """The probe worker as somebody else's service: it is started again, at once, whenever it ends."""

    def __init__(self) -> None:
        # bound for as long as it is started again and again, so that nobody else is given the port meanwhile
        self._bound = socket.socket()
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.bind(("127.0.0.1", 0))
        self._port = self._bound.getsockname()[1]
        self._closing = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        """Wait until it listens."""
        eventually(lambda: is_well(Address(host="127.0.0.1", port=self._port), _LOOK_S))

    def close(self) -> None:
        self._closing.set()
        while self._thread.is_alive():  # it may be starting another just now
            self._process.kill()
            self._thread.join(0.05)
        self._bound.close()

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "TRANSOM_PORT": str(self._port)}
        command = [sys.executable, "-m", "transom.worker", str(PROGRAM)]
        return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._closing.is_set():
                return
            self._process = self._start()


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    """Run a service."""
    service = Service()
    try:
        service.ready()
        yield service
    finally:
        service.close()
