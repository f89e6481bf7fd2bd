"""What the management REST answers with, as values. Unknown fields are passed over: a newer server may send more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A transformer that an installed plugin brings."""

    name: str
    version: str = ""
    distribution: str = ""
    deterministic: bool = True
    releases_gil: bool = False
    extension: str | None = None
    args_schema: JsonObject = field(default_factory=dict)
    doc: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> Plugin:
        """Parse one item of `GET /plugins`."""
        return cls(
            name=data["name"],
            version=data.get("version") or "",
            distribution=data.get("distribution") or "",
            deterministic=data.get("deterministic", True),
            releases_gil=data.get("releases_gil", False),
            extension=data.get("extension"),
            args_schema=data.get("args_schema") or {},
            doc=data.get("doc") or "",
        )


@dataclass(frozen=True, slots=True)
class Plugins:
    """All transformers there are, and those that could not be loaded, with the reason."""

    available: tuple[Plugin, ...]
    missing: Mapping[str, str]

    @classmethod
    def from_json(cls, data: JsonObject) -> Plugins:
        """Parse `GET /plugins`."""
        return cls(tuple(map(Plugin.from_json, data["plugins"])), dict(data.get("missing") or {}))


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker of an ETL on one target; `message` is its last words, where it failed or was restarted.

    `confinement` is what it runs in: "container (podman 4.3.1)", or the sandbox.
    """

    target: str
    revision: int
    state: str
    message: str = ""
    restarts: int = 0
    since: float = 0.0
    pid: int = 0
    container: str = ""
    confinement: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> Worker:
        """Parse one worker of an ETL record."""
        return cls(
            target=data["target"],
            revision=data["revision"],
            state=data["state"],
            message=data.get("message") or "",
            restarts=data.get("restarts", 0),
            since=data.get("since", 0.0),
            pid=data.get("pid", 0),
            container=data.get("container") or "",
            confinement=data.get("confinement") or "",
        )


@dataclass(frozen=True, slots=True)
class Service:
    """What whoever runs the service of a `url` ETL needs: what it verifies requests with, and its AIS_TARGET_URL."""

    secret: str = field(default="", repr=False)
    target_url: str = field(default="", repr=False)

    @classmethod
    def from_json(cls, data: JsonObject) -> Service:
        """Parse the `service` of an ETL record."""
        return cls(secret=data.get("secret") or "", target_url=data.get("target_url") or "")


@dataclass(frozen=True, slots=True)
class Etl:
    """An ETL; `deterministic`, `concurrency` and `timeout_s` None are the transformer's or the server's default.

    `plugin` is empty for one that no installed transformer runs; `spec` is the normalised spec, with a digest in the
    place of source code. `pending` is the revision that is being started beside this one, 0 for none. `numbers` are
    what it did since the server started: objects, bytes, errors by code, seconds of runs, requests that wait.
    `service` is what an ETL of runtime `url` has in the place of workers, `confinement` what confines the programs of
    one that starts them as objects come.
    """

    name: str
    plugin: str
    kind: str = "explicit"
    state: str = "running"
    revision: int = 0
    args: JsonObject = field(default_factory=dict)
    cache: bool = True
    deterministic: bool | None = None
    concurrency: int | None = None
    timeout_s: float | None = None
    owner: str = ""
    runtime: str = "plugin"
    spec: JsonObject = field(default_factory=dict)
    message: str = ""
    pending: int = 0
    workers: tuple[Worker, ...] = ()
    numbers: JsonObject = field(default_factory=dict)
    service: Service | None = None
    confinement: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> Etl:
        """Parse one ETL record."""
        return cls(
            name=data["name"],
            plugin=data.get("plugin") or "",
            kind=data.get("kind", "explicit"),
            state=data.get("state", "running"),
            revision=data.get("revision", 0),
            args=data.get("args") or {},
            cache=data.get("cache", True),
            deterministic=data.get("deterministic"),
            concurrency=data.get("concurrency"),
            timeout_s=data.get("timeout_s"),
            owner=data.get("owner") or "",
            runtime=data.get("runtime", "plugin"),
            spec=data.get("spec") or {},
            message=data.get("message") or "",
            pending=(data.get("pending") or {}).get("revision", 0),
            workers=tuple(map(Worker.from_json, data.get("workers") or ())),
            numbers=data.get("numbers") or {},
            service=Service.from_json(data["service"]) if data.get("service") else None,
            confinement=data.get("confinement") or "",
        )


@dataclass(frozen=True, slots=True)
class EtlError:
    """One object that an ETL failed on; `time` is in epoch seconds, `stage` the ETL whose doing it was."""

    time: float
    bucket: str
    key: str
    code: str
    message: str
    stage: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> EtlError:
        """Parse one item of `GET /etls/NAME/errors`."""
        return cls(
            time=data["time"],
            bucket=data["bucket"],
            key=data["key"],
            code=data["code"],
            message=data.get("message") or "",
            stage=data.get("stage") or "",
        )


@dataclass(frozen=True, slots=True)
class LogPiece:
    """What one target's workers of an ETL printed; what follows it is asked for with `offset`."""

    target: str
    offset: int
    text: str

    @classmethod
    def from_json(cls, data: JsonObject) -> LogPiece:
        """Parse one item of `GET /etls/NAME/logs`."""
        return cls(target=data["target"], offset=data["offset"], text=data["text"])


@dataclass(frozen=True, slots=True)
class View:
    """A view; `etl` is its pipeline as a client writes it, `ext` maps a source extension to the listed one."""

    name: str
    bucket: str
    etl: str
    args: Any = None
    ext: Mapping[str, str] = field(default_factory=dict)
    sizes: str = "materialise"
    owner: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> View:
        """Parse one view record."""
        return cls(
            name=data["name"],
            bucket=data.get("bucket") or "",
            etl=data.get("etl") or "",
            args=data.get("args"),
            ext=data.get("ext") or {},
            sizes=data["sizes"],
            owner=data.get("owner") or "",
        )


@dataclass(frozen=True, slots=True)
class Job:
    """An offline job, as it was when asked for; times are epoch seconds, 0.0 for not yet.

    `order` is what it was asked to do; of keys named one by one only how many is told (`keys`). `total` objects are to
    be decided, 0 until the source was listed. `unchanged` were up to date already, `skipped` were left out by a
    transformer or a predicate, `deleted` are gone from the source. In a dry run `written` would have been; of a job
    that inspects, those that are good are `unchanged`.
    """

    id: str
    state: str
    order: JsonObject = field(default_factory=dict)
    keys: int = 0
    owner: str = ""
    phase: str = ""
    message: str = ""
    total: int = 0
    written: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    deleted: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    runs: int = 0
    created_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0

    @property
    def kind(self) -> str:
        """What it does: "transform", "inspect" or "sort"."""
        return str(self.order.get("kind") or "transform")

    @property
    def done(self) -> int:
        """How many of `total` are decided."""
        return self.written + self.unchanged + self.skipped + self.failed

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.state in ("done", "failed", "aborted")

    @property
    def well(self) -> bool:
        """Whether it is over and nothing failed."""
        return self.state == "done" and not self.failed

    @classmethod
    def from_json(cls, data: JsonObject) -> Job:
        """Parse one job record."""
        numbers = ("total", "written", "unchanged", "skipped", "failed", "deleted", "bytes_in", "bytes_out", "runs")
        return cls(
            id=data["id"],
            state=data["state"],
            order=data.get("order") or {},
            keys=data.get("keys") or 0,
            owner=data.get("owner") or "",
            phase=data.get("phase") or "",
            message=data.get("message") or "",
            **{name: int(data.get(name) or 0) for name in numbers},
            created_s=data.get("created_s") or 0.0,
            started_s=data.get("started_s") or 0.0,
            ended_s=data.get("ended_s") or 0.0,
        )


@dataclass(frozen=True, slots=True)
class JobError:
    """An object that a job failed on; `stage` is the ETL whose doing it was, "" where it was none's."""

    key: str
    code: str
    message: str
    stage: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> JobError:
        """Parse one item of `GET /jobs/ID/errors`."""
        return cls(key=data["key"], code=data["code"], message=data.get("message") or "", stage=data.get("stage") or "")
