"""One keeper process: takes up what a killed one left, keeps the workers of its target, and ends them with itself."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.target.etl.keeper.desk import PullDesk
from transom.target.etl.keeper.keeper import Keeper
from transom.target.etl.keeper.places import Places
from transom.target.etl.keeper.processes import reap
from transom.target.etl.keeper.want import forget_statuses, sockets_note
from transom.target.etl.keeper.workshop import Workshop
from transom.target.etl.limits import Limits
from transom.target.etl.locks import ByteHolds
from transom.target.etl.runtimes.base import Launcher, StartError
from transom.target.etl.runtimes.namespaces import can_enter_namespaces
from transom.target.store.base import Store

_SOCKETS_IN = "/tmp"  # noqa: S108 - a socket's path has 107 characters at most, and a data folder's may be long
_THREADS = 64
_log = logging.getLogger("transom.keeper")


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """What a keeper is. `targets` are the names of all targets, `supervisor` the pid of the server's first process.

    `listener` is where services elsewhere fetch objects, of the one keeper that they come to.
    """

    places: Places
    limits: Limits
    targets: Sequence[str]
    supervisor: int
    secret_of: Callable[[str], str]
    pull_secret_of: Callable[[str], str]
    listener: socket.socket | None = None


async def keep(
    settings: KeeperSettings, catalog: Catalog, store: Store, launchers: Mapping[str, Launcher], stop: asyncio.Event
) -> None:
    """Keep workers until `stop`."""
    places = settings.places
    # workers that hang, or take long to start or to end, hold a thread each: the others' must go on meanwhile
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="keeper"))
    forget_statuses(places)
    await asyncio.to_thread(_reap, places, launchers, settings.supervisor)
    async with AsyncExitStack() as stack:
        uses, pulls = ByteHolds(places.uses), ByteHolds(places.pulls)
        stack.callback(uses.close)
        stack.callback(pulls.close)
        sockets = _sockets_folder(places)
        stack.callback(_forget_sockets, places, sockets)
        desk = await PullDesk.open(store, pulls)
        stack.push_async_callback(desk.close)
        if settings.listener is not None:
            await desk.listen_on(settings.listener)
        shop = Workshop(
            places=places,
            limits=settings.limits,
            launchers=launchers,
            uses=uses,
            desk=desk,
            sockets=sockets,
            enters=await asyncio.to_thread(can_enter_namespaces),
            secret_of=settings.secret_of,
            pull_secret_of=settings.pull_secret_of,
        )
        await Keeper(catalog, shop, settings.targets).run(stop)


def _reap(places: Places, launchers: Mapping[str, Launcher], supervisor: int) -> None:
    """End what a killed keeper left, and sweep after it."""
    left = reap(places.mark, supervisor)
    if left:
        _log.warning("ended %d processes that a killed server left behind", left)
    for launcher in dict.fromkeys(launchers.values()):
        try:
            launcher.reap(places.mark)
        except StartError as error:
            _log.warning("can't tell whether a killed server left workers behind: %s", error)
    with suppress(OSError):
        shutil.rmtree(sockets_note(places).read_text())
    shutil.rmtree(places.files_folder, ignore_errors=True)


def _sockets_folder(places: Places) -> Path:
    """A short folder that anybody may pass through who knows the way; noted down for the next keeper to remove."""
    folder = Path(tempfile.mkdtemp(prefix="transom-", dir=_SOCKETS_IN))
    os.chmod(folder, 0o711)  # noqa: PTH101, S103 - a worker is another user, and is shown the way
    places.status.mkdir(parents=True, exist_ok=True)
    sockets_note(places).write_text(str(folder))
    return folder


def _forget_sockets(places: Places, folder: Path) -> None:
    """Remove the folder, and the note with it: nothing is left behind."""
    shutil.rmtree(folder, ignore_errors=True)
    sockets_note(places).unlink(missing_ok=True)
