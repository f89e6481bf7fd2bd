"""Transom itself, as `transom serve` runs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transom.bench.peers.process import ACCESS_KEY, SECRET_KEY, Peer, PeerError, server

COMMAND = "from transom.cli.main import main; main()"  # the script of this very environment, installed or not
LISTENING = re.compile(r"^transom: listening on (http\S+)", re.MULTILINE)


@contextmanager
def transom(
    work: Path,
    *,
    cores: Sequence[int] = (),
    http_server: str = "granian",
    processes: int = 1,
    options: Sequence[str] = (),
) -> Iterator[Peer]:
    """`transom serve` over `work`/data; `options` are further ones of that command."""
    work.mkdir(parents=True, exist_ok=True)
    log = work / "transom.log"
    argv = [sys.executable, "-c", COMMAND, "serve", str(work / "data"), "--port", "0"]
    argv += ["--server", http_server, "--processes", str(processes), *options]
    env = {"TRANSOM_ACCESS_KEY": ACCESS_KEY, "TRANSOM_SECRET_KEY": SECRET_KEY, "PYTHONUNBUFFERED": "1"}
    name = f"transom-{http_server}"
    with server(name, argv, lambda text: bool(LISTENING.search(text)), log=log, env=env, cores=cores) as pid:
        found = LISTENING.search(log.read_text(errors="replace"))
        if not found:
            raise PeerError(f"{name}: its log lost the address")
        yield Peer(name, found[1].rstrip("/"), pid, ACCESS_KEY, SECRET_KEY)
