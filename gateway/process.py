"""One server process: reads what it is to be from stdin, builds its app and serves the inherited socket.

Started by `transom.gateway.serve` as `python -m transom.gateway.process`; not for use by hand.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from starlette.types import ASGIApp

from transom.cluster.catalog import Catalog
from transom.cluster.grants import load_secret
from transom.cluster.health import Health
from transom.cluster.map import MapFile
from transom.gateway.admin.api import build_admin
from transom.gateway.admin.context import Admin
from transom.gateway.admin.monitor import Monitor
from transom.gateway.admin.monitoring import Exposition
from transom.gateway.app import Authenticator, S3App, build_app
from transom.gateway.config import Config
from transom.gateway.context import GatewayContext, Transforms
from transom.gateway.credentials import Credentials, Key
from transom.gateway.following import follows
from transom.gateway.parts import (
    CATALOG,
    CLUSTER_MAP,
    SECRET,
    Assignment,
    build_store,
    configure_logging,
    elsewhere_of,
    limits_of,
    places_of,
    runtimes_of,
    target_names,
)
from transom.gateway.relay import RelayedTransforms
from transom.gateway.transforms import EmbeddedTransforms, TransformReads
from transom.gateway.view_reads import Views
from transom.gateway.views import ViewStore
from transom.plugins.manager import load
from transom.target.access_log import AccessLog
from transom.target.app import TargetApp
from transom.target.etl.metrics import METRICS, share
from transom.target.etl.runtimes.assembly import build_launchers, sandbox_words
from transom.target.etl.runtimes.services import Services, pull_secret_of, secret_of
from transom.target.etl.runtimes.url_rules import UrlRules
from transom.target.etl.workers_status import LOCAL
from transom.target.handing import Handing
from transom.target.jobs.catalog import JobCatalog
from transom.target.lifeline import end_with
from transom.target.service import ResultSettings, Target
from transom.target.store.base import Store

_BACKLOG = 1024
_GC_THRESHOLD = 20_000
_SWITCH_S = 0.002  # a run's thread and the event loop hand over every chunk: Python's 5 ms is long for that


def main() -> None:
    """Serve until told to stop."""
    assignment = Assignment(**json.load(sys.stdin))
    if not end_with(assignment.supervisor):  # of one that was killed, nobody would be restarted or stopped
        return
    config = Config.model_validate(assignment.config)
    configure_logging(config.server.log_level)
    share(Path(assignment.folder) / METRICS)
    uvloop.run(_serve(assignment, config))


async def _serve(assignment: Assignment, config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if assignment.role == "keeper":
        os.close(assignment.ready_fd)
        await _keep(assignment, config, stop)
        return
    app, close = build(assignment, config)
    # what is built stays for good: collections needn't walk it, and small GETs make little garbage
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    sys.setswitchinterval(_SWITCH_S)
    serve = _serve_granian if assignment.server == "granian" else _serve_hypercorn
    os.close(assignment.ready_fd)
    try:
        await serve(app, assignment, config, stop)
    finally:
        await close()


# --- the parts ----------------------------------------------------------------------------------


def build(assignment: Assignment, config: Config) -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
    """Build the app of a role; return it and what closes its parts."""
    folder = Path(assignment.folder)
    credentials = Credentials([Key(**key) for key in assignment.keys])
    catalog = Catalog.open(folder / CATALOG)
    store = build_store(folder, config, credentials.first.owner)
    transformers = load()
    target = Target(
        store,
        transformers,
        catalog,
        folder,
        limits=limits_of(config),
        results=ResultSettings(config.results.max_bytes),
        elsewhere=None if assignment.role == "gateway" else elsewhere_of(places_of(assignment), config, catalog),
    )
    access_log = AccessLog(enabled=config.server.log_level in ("debug", "info"))
    if assignment.role == "target":
        return _build_target(target, store, assignment, config, access_log)
    transforms: Transforms
    if assignment.role == "all":
        transforms = EmbeddedTransforms(target, _handing(config))
    else:
        secret = load_secret(folder / SECRET)
        transforms = RelayedTransforms(MapFile(folder / CLUSTER_MAP), Health(), secret, config.cluster, _trust(config))
    authenticator = Authenticator(credentials, config.server.domains)
    views = Views(store, catalog, target, transforms)
    context = GatewayContext(store=ViewStore(store, catalog), region=config.server.region, view_of=views)
    s3 = S3App(context, authenticator, TransformReads(catalog, target, transforms), access_log)
    jobs = JobCatalog.open(folder)
    admin = Admin(
        registry=target.registry,
        catalog=catalog,
        store=store,
        authenticator=authenticator,
        folder=folder,
        targets=partial(target_names, folder, assignment.role),
        monitor=Monitor(folder, target.limits.queue, target.errors),
        jobs=jobs,
        url_rules=UrlRules.parse(config.etl.url_allow),
        services=Services(load_secret(folder / SECRET), config.etl.pull_listen),
        sandbox=sandbox_words(places_of(assignment), runtimes_of(folder, config)),
    )

    async def close() -> None:
        await transforms.close()
        await target.close()
        await store.close()
        jobs.close()
        catalog.close()

    return build_app(s3, build_admin(admin), Exposition(admin), {"role": assignment.role}), close


async def _keep(assignment: Assignment, config: Config, stop: asyncio.Event) -> None:
    """Keep the workers of a target until told to stop."""
    from transom.target.etl.keeper.main import KeeperSettings, keep

    folder, places = Path(assignment.folder), places_of(assignment)
    runtimes = runtimes_of(folder, config)
    catalog = Catalog.open(folder / CATALOG)
    store = build_store(folder, config, Credentials([Key(**key) for key in assignment.keys]).first.owner)
    settings = KeeperSettings(
        places=places,
        limits=limits_of(config),
        targets=target_names(folder, "all" if places.target == LOCAL else "target"),
        supervisor=assignment.supervisor,
        secret_of=partial(secret_of, runtimes.master),
        pull_secret_of=partial(pull_secret_of, runtimes.master),
        listener=socket.socket(fileno=assignment.socket_fd) if assignment.socket_fd >= 0 else None,
    )
    try:
        await keep(settings, catalog, store, build_launchers(places, runtimes), stop)
    finally:
        await store.close()
        catalog.close()


def _trust(config: Config) -> ssl.SSLContext | None:
    """What a gateway takes for a target over TLS: the server's own certificate, whatever name it is for."""
    if config.server.tls_certificate is None:
        return None
    context = ssl.create_default_context(cafile=str(config.server.tls_certificate))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf alone will do: it is the very one
    context.check_hostname = False  # targets are asked by address
    return context


def _handing(config: Config) -> Handing:
    return Handing(partial(follows, config.cluster), config.cluster.advertise)


def _build_target(
    target: Target, store: Store, assignment: Assignment, config: Config, access_log: AccessLog
) -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
    async def close() -> None:
        await target.close()
        await store.close()

    secret = load_secret(Path(assignment.folder) / SECRET)
    return TargetApp(target, secret, assignment.name, access_log, _handing(config)), close


# --- the servers --------------------------------------------------------------------------------


async def _serve_granian(app: ASGIApp, assignment: Assignment, config: Config, stop: asyncio.Event) -> None:
    from granian._granian import SocketHolder
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    class Inherited(Server):
        """Granian on a socket that its parent bound."""

        def _init_shared_socket(self) -> None:
            # Granian's stub knows no arguments, and its base class declares both as None
            self._shd = SocketHolder(assignment.socket_fd, False, _BACKLOG)  # type: ignore[call-arg, assignment]
            self._sfd = assignment.socket_fd  # type: ignore[assignment]

    server = Inherited(
        app,
        address=config.server.host,
        port=config.server.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=1024 * 1024),
        websockets=False,
        log_enabled=False,
        backpressure=1024,
    )
    serving = asyncio.ensure_future(server.serve())
    await asyncio.wait([serving, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait([serving], timeout=config.server.shutdown_s)


async def _serve_hypercorn(app: Any, assignment: Assignment, config: Config, stop: asyncio.Event) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config as HypercornConfig

    from transom.gateway import http2

    http2.install()
    settings = HypercornConfig()
    settings.bind = [f"fd://{assignment.socket_fd}"]
    settings.graceful_timeout = config.server.shutdown_s
    settings.keep_alive_timeout = 75
    settings.keep_alive_max_requests = 1_000_000
    settings.h11_max_incomplete_size = 64 * 1024
    settings.loglevel = "WARNING"
    settings.errorlog = logging.getLogger("hypercorn.error")  # ours, in JSON
    settings.include_server_header = False
    if config.server.tls_certificate is not None:
        settings.certfile = str(config.server.tls_certificate)
        settings.keyfile = str(config.server.tls_key)

    async def stopped() -> None:
        await stop.wait()

    await serve(app, settings, shutdown_trigger=stopped)


if __name__ == "__main__":
    main()
