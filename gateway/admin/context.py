"""What the management REST works on, and one of its verbs as a value. It answers nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from transom.cluster.catalog import Catalog
from transom.gateway.admin.monitor import Monitor
from transom.gateway.app import Authenticator
from transom.gateway.context import Principal
from transom.gateway.handlers.bodies import MAX_DOCUMENT
from transom.target.etl.registry import Registry
from transom.target.etl.runtimes.services import Services
from transom.target.etl.runtimes.url_rules import UrlRules
from transom.target.jobs.catalog import JobCatalog
from transom.target.store.base import Store


@dataclass(frozen=True, slots=True)
class Admin:
    """What every call is given. `folder` is the data folder; `targets` names those on which an ETL is to run.

    `sandbox` says what confines programs here, in words; the first time it may block.
    """

    registry: Registry
    catalog: Catalog
    store: Store
    authenticator: Authenticator
    folder: Path
    targets: Callable[[], Sequence[str]]
    monitor: Monitor
    jobs: JobCatalog
    url_rules: UrlRules = field(default_factory=UrlRules)
    services: Services = field(default_factory=Services)
    sandbox: Callable[[], str] = str


Answer = Callable[[Admin, Request, Principal, Any], Awaitable[tuple[int, Any]]]


@dataclass(frozen=True, slots=True)
class Verb:
    """One method of one path: what it takes and gives, and who answers.

    `takes` is the schema of its body; without one the answer gets the body as it is. `limit` bounds it. `query` are the
    parameters it knows; `text` says that a body of text is expected.
    """

    method: str
    path: str
    summary: str
    answer: Answer
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    limit: int = MAX_DOCUMENT
    query: tuple[str, ...] = ()
    text: bool = False
