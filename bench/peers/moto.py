"""moto's server mode: the S3 stand-in that Python projects test against."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transom.bench.peers.process import ACCESS_KEY, SECRET_KEY, Peer, free_port, listens, server


@contextmanager
def moto(work: Path, *, cores: Sequence[int] = ()) -> Iterator[Peer]:
    """moto, keeping objects in memory. It reads signatures but doesn't check them."""
    work.mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server("moto", argv, lambda _: listens(port), log=work / "moto.log", cores=cores) as pid:
        yield Peer("moto", f"http://127.0.0.1:{port}", pid, ACCESS_KEY, SECRET_KEY)
