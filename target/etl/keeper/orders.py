"""What a worker is told when it starts: its environment, where it listens, where it fetches objects.

It starts nothing, and opens no socket but to find a free port.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from transom.cluster.records import EtlRecord
from transom.target.etl.keeper.places import Places
from transom.target.etl.limits import Limits
from transom.target.etl.runtimes.base import MARK, Order
from transom.target.etl.spec import Spec, canonical_spec, from_json

SOCKET = "worker.sock"
PULL_SOCKET = "pull.sock"
_PULL_PORT = 51823  # inside the worker's own network namespace, where nothing else listens
_PULLS = ("hpull", "hrev")


@dataclass(frozen=True, slots=True)
class Post:
    """One worker's place: its record and spec, its own folder, and the port it is told to listen on."""

    record: EtlRecord
    spec: Spec
    folder: Path
    port: int

    @property
    def pull_socket(self) -> Path:
        """Where it finds the pull listener, if it can use a unix socket."""
        return self.folder / PULL_SOCKET

    @property
    def pull_port(self) -> int:
        """Where in its network namespace it finds the pull listener, if it can't."""
        return _PULL_PORT if self.port != _PULL_PORT else _PULL_PORT + 1

    @property
    def pulls(self) -> bool:
        """Whether it fetches the objects itself."""
        return self.spec.transport in _PULLS


def post(record: EtlRecord, folder: Path) -> Post:
    """Find a worker its place; `folder` is made for it."""
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)  # whoever the worker is: only it is shown the way there
    spec = spec_of(record)
    return Post(record, spec, folder, spec.port)


def with_free_port(place: Post) -> Post:
    """The place for one start: a worker on the host's own network can't count on the spec's port."""
    # in a container's or sandbox's network namespace it is always free
    if not place.spec.network or place.record.runtime == "container":
        return place
    return replace(place, port=_free_port())


def order(place: Post, places: Places, limits: Limits, target_url: str, log_fd: int, secret: str) -> Order:
    """Write the order for a worker at its place; `secret` is what signed URLs are to be checked with, if any."""
    record, spec = place.record, place.spec
    files = places.files(record.name, record.revision) if spec.direct_file else None
    env = {
        "PORT": str(place.port),
        **spec.runtime.env,
        "TRANSOM_ETL": record.name,
        "TRANSOM_SOCKET": str(place.folder / SOCKET),
        "TRANSOM_PORT": str(place.port),
        "TRANSOM_CONCURRENCY": str(record.concurrency or limits.concurrency),
        "AIS_TARGET_URL": target_url,
        **_direct(files),
        **_signed(secret, spec.max_output or limits.max_output),
        MARK: places.mark,
    }
    return Order(
        etl=record.name,
        revision=record.revision,
        spec=record.spec,
        folder=place.folder,
        files=files,
        env=env,
        port=place.port,
        log_fd=log_fd,
        mark=places.mark,
    )


def spec_of(record: EtlRecord) -> Spec:
    """A record's spec as a value."""
    return from_json(canonical_spec(record.spec))


def _direct(files: Path | None) -> Mapping[str, str]:
    return {} if files is None else {"TRANSOM_DIRECT_FILE": "1", "TRANSOM_DIRECT_ROOT": str(files)}


def _signed(secret: str, max_output: int) -> Mapping[str, str]:
    """For a worker that clients are sent to: what the target sees to for any other."""
    if not secret:
        return {}
    # clients come to it from anywhere, so it listens for them on every address it has
    return {
        "TRANSOM_SECRET": secret,
        "TRANSOM_REQUIRE_SIGNATURE": "1",
        "TRANSOM_HOST": "0.0.0.0",  # noqa: S104
        "TRANSOM_MAX_OUTPUT": str(max_output),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
