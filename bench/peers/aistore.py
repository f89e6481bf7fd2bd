"""An AIStore ETL server: the `aistore[etl]` package's own FastAPI class, in the environment that has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transom.bench.peers.process import Peer, PeerError, free_port, listens, server

PYTHON = "TRANSOM_AISTORE_PYTHON"  # names the interpreter of an environment with aistore[etl]
_ECHO = """
from aistore.sdk.etl.webserver.fastapi_server import FastAPIServer


class Echo(FastAPIServer):
    def transform(self, data, path, etl_args):
        return data


app = Echo().app
"""


def interpreter() -> str:
    """The Python that has aistore[etl]. Raises PeerError."""
    named = os.environ.get(PYTHON, "")
    found = Path(named) if named else Path(".venv-ais/bin/python").absolute()
    if not found.exists():
        raise PeerError(f"aistore: there is no {found}; install aistore[etl] somewhere and name its python in {PYTHON}")
    return str(found)


@contextmanager
def aistore(work: Path, *, cores: Sequence[int] = ()) -> Iterator[Peer]:
    """One uvicorn process that echoes what is PUT to it; it keeps nothing."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "echo_worker.py").write_text(_ECHO)
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    argv = [interpreter(), "-m", "uvicorn", "--app-dir", str(work), "echo_worker:app", *options]
    env = {"AIS_TARGET_URL": "http://127.0.0.1:1"}  # it is pushed to only
    with server("aistore", argv, lambda _: listens(port), log=work / "aistore.log", env=env, cores=cores) as pid:
        yield Peer("aistore worker", f"http://127.0.0.1:{port}", pid, keeps=False)
