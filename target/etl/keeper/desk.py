"""Where the workers of a target fetch objects: one listener, reached in as many ways as workers can reach anything."""

from __future__ import annotations

import os
import secrets
import socket
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from transom.target.etl.keeper.places import target_path
from transom.target.etl.locks import ByteHolds
from transom.target.etl.transports.pull import PullListener
from transom.target.store.base import Store

_SHUTDOWN_S = 1.0


@dataclass(slots=True)
class PullDesk:
    """The pull listener of one keeper, and the secrets by which it knows ETLs."""

    runner: web.ServerRunner
    port: int = 0
    _secrets: ChainMap[str, str] = field(default_factory=ChainMap)  # those of services first, then of workers

    @classmethod
    async def open(cls, store: Store, holds: ByteHolds) -> PullDesk:
        """Listen on a free port of 127.0.0.1; more places to listen at may be added."""
        known: ChainMap[str, str] = ChainMap({}, {})
        listener = PullListener(store, known.get, holds.held_elsewhere)
        runner = web.ServerRunner(web.Server(listener, access_log=None), shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        return cls(runner, port, known)

    def admit(self, etl: str) -> None:
        """Give an ETL's workers its secret, the same for as long as the keeper lives."""
        self._secrets.maps[1].setdefault(etl, secrets.token_hex(16))

    def admit_services(self, known: Mapping[str, str]) -> None:
        """Know services elsewhere by the secrets of their ETLs, and no others any more."""
        self._secrets.maps[0] = dict(known)

    def url(self, etl: str, port: int = 0) -> str:
        """`AIS_TARGET_URL` for a worker that reaches the listener on a port of its own 127.0.0.1."""
        return f"http://127.0.0.1:{port or self.port}{target_path(etl, self._secrets.maps[1][etl])}"

    def unix_url(self, etl: str, path: Path) -> str:
        """`AIS_TARGET_URL` for a worker that reaches it at a unix socket, and knows what to make of that."""
        return f"http+unix://{quote(str(path), safe='')}{target_path(etl, self._secrets.maps[1][etl])}"

    async def listen_at(self, path: Path) -> web.BaseSite:
        """Listen on a unix socket too, whoever comes there; stop the site when it isn't needed any more."""
        site = web.UnixSite(self.runner, str(path))
        await site.start()
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - its folder says who gets there; pathlib is taken to block
        return site

    async def listen_on(self, sock: socket.socket) -> web.BaseSite:
        """Listen on a socket too, in whatever network namespace it is."""
        sock.setblocking(False)
        site = web.SockSite(self.runner, sock)
        await site.start()
        return site

    async def close(self) -> None:
        """Listen no more."""
        await self.runner.cleanup()
