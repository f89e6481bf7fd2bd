"""A worker's site on any node of a cluster: the server's data folder if the node is its machine, else S3 over HTTP.

The folder is never shared between machines: its databases don't stand that, even where a network file system has it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transom.plugins.manager import load
from transom.target.errors import EtlSkipped, NoSuchKey, PreconditionFailed, SlowDown, SourceChanged, TargetError
from transom.target.etl.limits import Limits
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Plan, identify
from transom.target.etl.watch import Watch
from transom.target.etl.workers import WorkerPool
from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.jobs.node_folder import NodeFolder
from transom.target.jobs.remote_link import S3Link, broken_off
from transom.target.jobs.remote_store import RemoteStore
from transom.target.jobs.site import Site
from transom.target.store.base import ObjectReader

_PIECE = 256 * 1024
_PAUSE_S = 0.25
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How the server is reached from other machines, and as whom."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True)
class AnywhereOpener:
    """Opens the site of a worker on whatever node it is; can be pickled.

    `here` opens it where the data folder is: on the machine whose boot is `boot_id`, if it sees `marker`, a path in
    the folder (in a container it may not). Without an `endpoint` no other node will do.
    """

    here: Callable[[], Site]
    marker: Path
    limits: Limits
    endpoint: Endpoint | None = None
    boot_id: str = field(default_factory=lambda: _BOOT.read_text().strip())

    def __call__(self) -> Site:
        """Open the site. Raises EngineUnavailable where there is no way."""
        if self.is_here():
            return self.here()
        if self.endpoint is None:
            raise EngineUnavailable(
                "a Ray node is not the server's machine: name the URL at which nodes reach the server in [jobs] "
                "ray_endpoint"
            )
        return open_remote(self.endpoint, self.limits)

    def is_here(self) -> bool:
        """Whether this process is on the server's machine, and sees its data folder."""
        return _BOOT.read_text().strip() == self.boot_id and self.marker.exists()


@dataclass(frozen=True)
class RemotePipelines(Pipelines):
    """Runs plans of plugins here; any other is run by the server, and its output read from there."""

    link: S3Link | None = None

    def produce(self, plan: Plan, reader: ObjectReader, watch: Watch, scratch: Path) -> Generator[bytes, None, None]:
        """Yield the pipeline's output. Blocking. Raises the Etl* errors."""
        if plan.in_process or self.link is None:
            return super().produce(plan, reader, watch, scratch)
        return self._fetch(self.link, plan, reader, watch)

    def begin(
        self, plan: Plan, reader: ObjectReader, watch: Watch, scratch: Path, known: bytes | None = None
    ) -> tuple[str, int | None, Generator[bytes, None, None]]:
        """What `describe` tells with what `produce` yields."""
        if plan.in_process or self.link is None:
            return super().begin(plan, reader, watch, scratch, known)
        return *self.describe(plan, reader.info), self._fetch(self.link, plan, reader, watch)

    def _fetch(self, link: S3Link, plan: Plan, reader: ObjectReader, watch: Watch) -> Generator[bytes, None, None]:
        if len(plan.stages) == 1:  # of several, only the server knows which one is at work
            watch.stage = plan.stages[0].etl
        try:
            with closing(self._ask(link, plan, reader, watch)) as body, broken_off():
                while piece := body.read(_PIECE):
                    watch.check()
                    yield piece
        except SlowDown as broken:
            self._blame(link, plan, reader, watch, broken)
            raise

    def _blame(self, link: S3Link, plan: Plan, reader: ObjectReader, watch: Watch, broken: SlowDown) -> None:
        """Raise what failed after an answer began: asked for a range, the server makes all of it before it answers."""
        try:
            self._ask(link, plan, reader, watch, Range="bytes=0-0").close()
        except TargetError as error:
            if error.etl:
                raise error from broken

    def _ask(self, link: S3Link, plan: Plan, reader: ObjectReader, watch: Watch, **more: str) -> Any:
        """The output's body; waits as long as the server wants to be asked again."""
        info = reader.info
        named = {"Bucket": info.bucket, "Key": info.key, **more}
        if plan.deterministic:  # the result of this version of the object, by these revisions, and of no other
            named["IfMatch"] = f'"{identify(plan, info).etag()}"'
        while True:
            watch.check()
            try:
                return link.get_through(query_of(plan), **named)["Body"]
            except PreconditionFailed as error:
                raise SourceChanged("the object or the ETL was changed meanwhile") from error
            except NoSuchKey as error:
                if not error.etl:
                    link.call("head_object", Bucket=info.bucket, Key=info.key)  # it is gone: raises NoSuchKey
                raise EtlSkipped(error.message, etl=error.etl) from error
            except SlowDown as error:
                time.sleep(min(error.retry_after_s or _PAUSE_S, max(0.0, watch.left_s())))


def open_remote(endpoint: Endpoint, limits: Limits) -> Site:
    """Open the site of a worker that reaches the server over HTTP only."""
    link = S3Link(endpoint.url, endpoint.access_key, endpoint.secret_key, endpoint.region)
    folder = NodeFolder()
    scratch = folder.path
    pipelines = RemotePipelines(load(), WorkerPool(scratch), limits, EtlMetrics(), link=link)
    return RemoteSite(RemoteStore(link, scratch), pipelines, scratch, folder=folder)


@dataclass
class RemoteSite(Site):
    """A site whose scratch folder is its own."""

    folder: NodeFolder = field(kw_only=True)

    def close(self) -> None:
        """Let go of everything, and remove the scratch folder."""
        super().close()
        self.folder.remove()


def query_of(plan: Plan) -> dict[str, str]:
    """The query that asks a server for a plan: what it was asked for at first, all of it as one pipeline."""
    names: list[str] = []
    args: list[Any] = []
    options: dict[str, str] = {}
    for asked in plan.asked:
        given = None if asked.args_json is None else json.loads(asked.args_json)
        several = len(asked.pipeline) > 1
        names += asked.pipeline
        args += given if several and given is not None else [None] * len(asked.pipeline) if several else [given]
        options.update({f"{etl}.{option}": value for etl, option, value in asked.options})
    query = {"etl": ">>".join(names), **options}
    if any(each is not None for each in args):
        query["etl_args"] = json.dumps(args if len(names) > 1 else args[0])
    return query
