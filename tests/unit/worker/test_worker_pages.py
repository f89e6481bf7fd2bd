"""The programs on the documentation's pages run as they stand there."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worker_runs import InProcess, WorkerProcess

from transom.target.errors import EtlFailed
from transom.target.etl.transports.base import Call
from transom.target.etl.transports.frames import FramedProgram
from transom.target.etl.watch import Watch
from transom.worker import Worker
from transom.worker.signing import sign

DOCS = Path(__file__).parents[3] / "docs"
CONTRACT = (DOCS / "reference" / "worker-contract.md").read_text()
HOW_TO = (DOCS / "how-to" / "workers.md").read_text()


def programs(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def test_the_frames_program_is_a_worker() -> None:
    program, _ = programs(CONTRACT)
    assert len(program.splitlines()) <= 45
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdin=theirs, stdout=theirs)
    framed = FramedProgram(ours)
    framed.greet(20)
    for data in (b"", b"small", b"large" * 100_000):
        assert b"".join(framed.run(Call("e", "b", "k"), iter([data]), Watch("e", 20))) == data.upper()
    framed.close()
    assert process.wait(10) == 0


def test_the_frames_program_says_what_is_wrong() -> None:
    program, _ = programs(CONTRACT)
    broken = program.replace(".upper())", ".nothing())", 1)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", broken], stdin=theirs, stdout=theirs)
    framed = FramedProgram(ours)
    framed.greet(20)
    for data in (b"small", b"large" * 100_000):
        with pytest.raises(EtlFailed, match="ETL 'e' failed: k: 'bytes' object has no attribute 'nothing'"):
            list(framed.run(Call("e", "b", "k"), iter([data]), Watch("e", 20)))
    framed.close()
    assert process.wait(10) == 0


def test_the_http_program_is_a_worker(spawn: Callable[..., WorkerProcess]) -> None:
    _, program = programs(CONTRACT)
    worker = spawn("", python=(sys.executable, "-I", "-S", "-c", program))
    assert worker.put(b"data" * 100_000) == (200, b"DATA" * 100_000)


def test_the_signature_on_the_page_is_right() -> None:
    assert f"`{sign(b'key', 'GET', '/b/k', '', 1)}`" in CONTRACT


def test_the_sdks_page_works(serving: Callable[..., InProcess]) -> None:
    least, digest, _ = programs(HOW_TO)
    names: dict[str, Any] = {}
    exec(least + digest, names)
    assert serving(names["transform"]).put(b"data") == (200, b"DATA")
    assert issubclass(names["Digest"], Worker)
    worker = serving(names["Digest"])
    worker.service.transform.start()
    assert worker.put(b"", args="md5") == (200, b"d41d8cd98f00b204e9800998ecf8427e")
    assert worker.put(b"", args="nothing")[0] == 422
