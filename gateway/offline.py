"""The process of offline jobs: reads what it is to be from stdin, and runs the desk that starts them.

Started by `transom.gateway.serve` as `python -m transom.gateway.offline`; not for use by hand. Its jobs run in what it
forks, so what they need is imported here, once.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from transom.cluster.map import MapFile
from transom.gateway.config import Config
from transom.gateway.parts import (
    CATALOG,
    CLUSTER_MAP,
    Assignment,
    build_store,
    configure_logging,
    elsewhere_of,
    limits_of,
    target_names,
)
from transom.plugins.manager import Transformers, load
from transom.plugins.shapes import Folders
from transom.target.etl.keeper.places import Places
from transom.target.etl.metrics import METRICS, EtlMetrics, share_in_turn
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.workers import WorkerPool
from transom.target.jobs.catalog import FOLDERS
from transom.target.jobs.desk import Desk
from transom.target.jobs.engines.base import Engine, Opener
from transom.target.jobs.engines.local import MOST_EXECUTORS, LocalEngine
from transom.target.jobs.fairness import JobPlaces
from transom.target.jobs.records import Job
from transom.target.jobs.run import RunSettings, run_job
from transom.target.jobs.site import Site
from transom.target.lifeline import end_with

# 15 MB, mostly of files; no threads
_PRELOADED = ("prometheus_client", "transom.plugins.builtin.av_audio", "awscrt.checksums")
_INLINE = 2**62  # bytes: a job's worker does nothing else, so it runs transformers itself


def main() -> None:
    """Run jobs until told to stop."""
    assignment = Assignment(**json.load(sys.stdin))
    if not end_with(assignment.supervisor):  # of one that was killed, nobody would be restarted or stopped
        return
    config = Config.model_validate(assignment.config)
    configure_logging(config.server.log_level)
    stopping: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, _frame: stopping.append(signum))
    _transformers()
    os.close(assignment.ready_fd)
    folder = Path(assignment.folder)
    settings = RunSettings(
        folder=folder,
        catalog=folder / CATALOG,
        open_site=partial(open_counted_site, folder, assignment.config, assignment.keys[0]["owner"]),
        engines={"local": _local, "ray": partial(_ray, assignment, config)},
    )
    desk = Desk(folder, config.jobs.concurrency, partial(run_job, settings), _preload, config.jobs.keep_s)
    desk.serve(lambda: bool(stopping))


def open_site(folder: Path, config: dict[str, Any], first_owner: str, scratch: Path) -> Site:
    """Open the store and the ETLs of a data folder for one worker of a job. `config` is JSON-ready, without keys."""
    checked = Config.model_validate(config)
    limits = replace(limits_of(checked), gil_inline_size=_INLINE)
    targets = target_names(folder, "target" if checked.cluster.targets else "all")
    places = Places(folder, targets[os.getpid() % len(targets)])
    scratch.mkdir(parents=True, exist_ok=True)
    elsewhere = elsewhere_of(places, checked)(scratch)
    pipelines = Pipelines(_transformers(), WorkerPool(scratch), limits, EtlMetrics(), elsewhere, Folders(scratch))
    return Site(build_store(folder, checked, first_owner), pipelines, scratch, JobPlaces(folder, limits))


def open_counted_site(folder: Path, config: dict[str, Any], first_owner: str, scratch: Path) -> Site:
    """The same for a process of its own: what it runs is in the ETLs' metrics."""
    share_in_turn(folder / METRICS)
    return open_site(folder, config, first_owner, scratch)


@lru_cache(maxsize=1)
def _transformers() -> Transformers:
    """The installed transformers: loaded once, before any fork."""
    return load()


def _preload() -> None:
    """Import what sites and transformers import when they are first used: every job's executors would do so anew."""
    for name in _PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)


def _local(opener: Opener, job: Job) -> Engine:
    """An engine whose executors open their sites while the job's objects are listed."""
    order = job.order
    return LocalEngine(opener, ready=(order.concurrency or MOST_EXECUTORS) if order.source.is_prefix else 1)


def _ray(assignment: Assignment, config: Config, opener: Opener, job: Job) -> Engine:
    """An engine on a Ray cluster; its nodes on other machines come by S3, with a key of the job's owner."""
    from transom.target.jobs.engines.ray import RayEngine
    from transom.target.jobs.remote_site import AnywhereOpener, Endpoint

    sys.stdout = sys.stderr  # Ray prints what it does again; stdout is the server's
    folder, url = Path(assignment.folder), config.jobs.ray_endpoint
    key = next((key for key in assignment.keys if key["owner"] == job.owner), None)  # and never another's
    endpoint = Endpoint(url, key["access"], key["secret"], config.server.region) if url and key else None
    limits = replace(limits_of(config), gil_inline_size=_INLINE)
    anywhere = AnywhereOpener(opener, folder / FOLDERS / job.id, limits, endpoint)
    targets = MapFile(folder / CLUSTER_MAP).current()
    return RayEngine(anywhere, address=config.jobs.ray_address, targets=targets)


if __name__ == "__main__":
    from transom.gateway import offline  # not as __main__: what is pickled for other machines names its module

    offline.main()
