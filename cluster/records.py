"""What the catalog keeps: ETLs, views and circuits as values, their name rules, and the ways to refuse a change.

No I/O. It doesn't know which plugins are installed, nor which buckets exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

EtlState = Literal["initializing", "running", "stopped", "failed"]
RuntimeName = Literal["plugin", "process", "code", "command", "container", "url"]
Sizes = Literal["source", "materialise"]

_ETL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_VIEW_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_STATES: tuple[str, ...] = get_args(EtlState)
_RUNTIMES: tuple[str, ...] = get_args(RuntimeName)
MAX_MESSAGE_CHARS = 2000
IMPLICIT_VIEW_MARK = "--etl--"


class CatalogError(Exception):
    """The catalog can't do what was asked; the message is public."""


class Exists(CatalogError):
    """Something of that name is there already."""


class Missing(CatalogError):
    """Nothing of that name is there."""


class InUse(CatalogError):
    """Something else refers to it."""


class BadRecord(CatalogError):
    """A name or a value that the catalog doesn't keep."""


@dataclass(frozen=True, slots=True)
class EtlRecord:
    """An ETL's configuration and state.

    `plugin` names the transformer of the runtimes "plugin" and "process", and is empty for others. `spec` is the
    normalised spec as a JSON object; empty for a plain plugin ETL. `message` says why it failed, or why its newest
    revision did.
    `kind` is "explicit" for one made by `init`, "implicit" for the state of a plugin transformer under its own name.
    `deterministic` None leaves it to the transformer; `concurrency` and `timeout_s` None to the server's default.
    `revision` grows with every change of configuration and is never used twice for a name; an implicit one has 0.
    `launch_ns` changes with every start and restart: a worker or program that was started for another is to be
    replaced.
    The catalog sets `kind`, `revision`, `launch_ns` and `changed_ns` (of the last change of configuration) itself.
    """

    name: str
    plugin: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    deterministic: bool | None = None
    cache: bool = True
    concurrency: int | None = None
    timeout_s: float | None = None
    state: EtlState = "running"
    owner: str = ""
    kind: Literal["explicit", "implicit"] = "explicit"
    revision: int = 0
    changed_ns: int = 0
    runtime: RuntimeName = "plugin"
    spec: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    launch_ns: int = 0

    def configuration(self) -> tuple[object, ...]:
        """What a revision is a version of: all that can change a result, or how it is run."""
        bounds = (self.deterministic, self.cache, self.concurrency, self.timeout_s)
        return (self.runtime, self.plugin, self.args, self.spec, *bounds)

    @property
    def served(self) -> bool:
        """Whether a long-lived worker on every target serves it, so that it takes time to start."""
        if self.runtime == "command":
            return bool(self.spec.get("communication", "io://") != "io://")
        return self.runtime in ("code", "container")

    @property
    def keeps_programs(self) -> bool:
        """Whether serving processes keep programs of it, which start with the first objects."""
        return self.runtime == "command" and self.spec.get("io") == "persistent"

    def failure_of(self, revision: int) -> str | None:
        """Why a revision that was to take this one's place failed, if it did and nothing was tried since."""
        start = failed_revision(revision, "")
        return self.message.removeprefix(start) if self.message.startswith(start) else None

    @property
    def wants_worker(self) -> bool:
        """Whether its worker should be up."""
        return self.served and self.state in ("initializing", "running")


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """A read-only virtual bucket over `bucket`; `args` has one JSON value a stage, None where a stage has none.

    `extensions` renames keys: ("jpg", "webp") lists cat.jpg as cat.webp. `sizes` says what LIST shows for a result
    not yet made: the source's size, or the true one after making it.
    """

    name: str
    bucket: str
    pipeline: tuple[str, ...]
    args: tuple[Any, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()
    sizes: Sizes = "materialise"
    owner: str = ""
    created_ns: int = 0


@dataclass(frozen=True, slots=True)
class Circuit:
    """An ETL's failures in a row, and until when it refuses work (ns since the epoch; 0 is closed)."""

    failures: int = 0
    opened_until_ns: int = 0

    def is_open(self, now_ns: int) -> bool:
        """Whether work is refused at `now_ns`."""
        return now_ns < self.opened_until_ns


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole catalog at one moment; `version` grows with every change of an ETL or view.

    `pending` has the revisions that are being started beside the one that serves, by the ETL's name.
    """

    version: int
    etls: Mapping[str, EtlRecord]
    views: Mapping[str, ViewRecord]
    circuits: Mapping[str, Circuit]
    pending: Mapping[str, EtlRecord] = field(default_factory=dict)


def failed_revision(revision: int, reason: str) -> str:
    """The message of an ETL that runs on while a newer revision of it failed."""
    return f"revision {revision} failed: {reason}"


def check_etl_name(name: str) -> None:
    """Raises BadRecord unless `name` can be an ETL's."""
    if not _ETL_NAME.fullmatch(name) or "--" in name:
        raise BadRecord(
            f"{name!r} can't be an ETL's name: 1 to 32 of a-z, 0-9, '_' and '-', not starting with '_' or '-', no '--'"
        )


def check_etl(record: EtlRecord) -> None:
    """Raises BadRecord for a record with values outside their range."""
    check_etl_name(record.name)
    if record.runtime not in _RUNTIMES:
        raise BadRecord(f"a runtime is one of {', '.join(_RUNTIMES)}, not {record.runtime!r}")
    if not record.plugin and record.runtime in ("plugin", "process"):
        raise BadRecord("an ETL names a plugin's transformer")
    if record.concurrency is not None and record.concurrency < 1:
        raise BadRecord("concurrency is at least 1")
    if record.timeout_s is not None and not 0 < record.timeout_s < float("inf"):
        raise BadRecord("timeout_s is above 0")
    check_state(record.state)


def check_state(state: str) -> None:
    """Raises BadRecord for anything but a state of an ETL."""
    if state not in _STATES:
        raise BadRecord(f"an ETL is {', '.join(_STATES[:-1])} or {_STATES[-1]}, not {state!r}")


def check_view(record: ViewRecord) -> None:
    """Raises BadRecord for a view that no client could use."""
    if not _VIEW_NAME.fullmatch(record.name) or IMPLICIT_VIEW_MARK in record.name:
        raise BadRecord(f"{record.name!r} can't be a view's name: it is a bucket's name without {IMPLICIT_VIEW_MARK!r}")
    if not record.bucket or record.bucket == record.name:
        raise BadRecord("a view is of another bucket")
    if not record.pipeline:
        raise BadRecord("a view has a pipeline of at least one ETL")
    for stage in record.pipeline:
        check_etl_name(stage)
    if record.args and len(record.args) != len(record.pipeline):
        raise BadRecord(f"{len(record.args)} args for {len(record.pipeline)} stages; give one each, null for none")
    if record.sizes not in ("source", "materialise"):
        raise BadRecord(f"sizes is source or materialise, not {record.sizes!r}")
    _check_extensions(record.extensions)


def _check_extensions(extensions: tuple[tuple[str, str], ...]) -> None:
    for side in zip(*extensions, strict=True):
        # Twice on either side, and a listed key would no longer name one source key.
        if len(set(side)) != len(side):
            raise BadRecord("an extension is named twice")
        # An extension is what follows the last dot: one with a dot would match nothing, or be found under no name.
        if any(not extension or "/" in extension or "." in extension for extension in side):
            raise BadRecord("an extension is not empty and has no '/' and no '.'")
