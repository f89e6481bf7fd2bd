"""What a process of the server is told to be, and the parts that several kinds of them build alike.

It is light: nothing of HTTP is imported here.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog

from transom.cluster.catalog import Catalog
from transom.cluster.grants import load_secret
from transom.cluster.map import MapFile
from transom.gateway.config import Config
from transom.target.access_log import timestamp
from transom.target.etl.keeper.places import Places
from transom.target.etl.limits import Limits
from transom.target.etl.runtimes.assembly import RuntimeSettings, build_elsewhere
from transom.target.etl.runtimes.elsewhere import Elsewhere
from transom.target.etl.workers_status import LOCAL
from transom.target.store.base import Store
from transom.target.store.folder import FolderStore
from transom.target.store.local.store import LocalStore
from transom.target.store.router import StoreRouter

Role = Literal["all", "gateway", "target", "keeper", "jobs"]
CATALOG, CLUSTER_MAP, SECRET, STORE = "catalog.sqlite", "cluster.json", "redirect.secret", "store"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a process is told to be. `config` and `keys` are JSON-ready; `ready_fd` is closed once it can serve.

    A target and its keeper have one name; a keeper has a socket only if services elsewhere come there.
    """

    role: Role
    name: str
    folder: str
    server: Literal["granian", "hypercorn"]
    socket_fd: int
    ready_fd: int
    supervisor: int
    config: dict[str, Any]
    keys: list[dict[str, Any]]

    def to_json(self) -> str:
        """Encode for the process's stdin."""
        return json.dumps(asdict(self))


def limits_of(config: Config) -> Limits:
    """The bounds of transforms."""
    return Limits(**config.etl.model_dump(include={field.name for field in fields(Limits)}))


def elsewhere_of(places: Places, config: Config, catalog: Catalog | None = None) -> Callable[[Path], Elsewhere]:
    """What makes the runtimes that are no plugin's, with the workers in `places`; see `build_elsewhere`."""
    return partial(build_elsewhere, places, runtimes_of(places.folder, config), catalog=catalog)


def runtimes_of(folder: Path, config: Config) -> RuntimeSettings:
    """The settings of runtimes, with the data folder's secret."""
    chosen = config.etl.model_dump(include={field.name for field in fields(RuntimeSettings)})
    return RuntimeSettings(master=load_secret(folder / SECRET), **chosen)


def places_of(assignment: Assignment) -> Places:
    """Where the workers of a process's target have their things."""
    return Places(Path(assignment.folder), LOCAL if assignment.role == "all" else assignment.name)


def target_names(folder: Path, role: Role) -> tuple[str, ...]:
    """The targets on which an ETL is to run."""
    if role == "all":
        return (LOCAL,)
    return tuple(target.id for target in MapFile(folder / CLUSTER_MAP).current().targets)


def build_store(folder: Path, config: Config, first_owner: str) -> Store:
    """The local store of a data folder, with the configured folders beside it."""
    local = LocalStore.at(folder / STORE)
    folders = {each.name: FolderStore(each.name, each.path, each.owner or first_owner) for each in config.folder}
    return StoreRouter(local, folders)


def configure_logging(level: str) -> None:
    """One JSON object a line on stderr, ours and the libraries'."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _timestamp,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(),
            foreign_pre_chain=[structlog.stdlib.add_log_level, _timestamp, structlog.processors.format_exc_info],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


def _timestamp(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = timestamp()
    return event
