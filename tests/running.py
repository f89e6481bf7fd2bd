"""Starts real servers for tests: `transom serve` in a process of its own, on an ephemeral port, stopped by pid."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from transom.gateway.parts import STORE
from transom.target.store.base import Attributes, ObjectInfo, Whole
from transom.target.store.local.store import LocalStore

ACCESS, SECRET = "TESTACCESSKEY", "test-secret-key-0123456789"
START_TIMEOUT_S = 40.0
_LISTENING = re.compile(r"transom: listening on (https?)://(\S+):(\d+)")


@dataclass
class RunningServer:
    """A `transom serve` that answers. `args` are its options; `log` holds the last lines of its stderr."""

    folder: Path
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    log: deque[str] = field(default_factory=lambda: deque(maxlen=400))
    printed: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> RunningServer:
        """Start it and wait until it says where it listens; on the same port again after a stop."""
        command = [str(Path(sys.executable).with_name("transom")), "serve", str(self.folder), "--port", str(self.port)]
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TRANSOM_"))},
            "TRANSOM_ACCESS_KEY": ACCESS,
            "TRANSOM_SECRET_KEY": SECRET,
            **self.env,
        }
        self.process = subprocess.Popen(
            [*command, *self.args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._keep_log, args=(self.process,), daemon=True).start()
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self.process.kill)
        watchdog.start()
        self.printed.clear()
        try:
            for line in self.process.stdout:
                self.printed.append(line)
                match = _LISTENING.search(line)
                if match:
                    self.port = int(match.group(3))
                    return self
        finally:
            watchdog.cancel()
        raise AssertionError(f"the server did not start: {self.process.wait()}\n" + "".join(self.log))

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line)

    def stop(self) -> int:
        """Ask it to stop and wait; return its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=15)
        finally:
            self._forget()

    def kill(self) -> None:
        """Kill -9 the supervisor; its processes die with it. Returns once all are gone."""
        children = self.everything()
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        give_up = time.monotonic() + 10
        while any(_runs(pid) for pid in children) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert not any(_runs(pid) for pid in children)
        self._forget()

    def children(self) -> list[int]:
        """The pids of the server processes, and keepers, under the supervisor: all but the desk."""
        return [pid for pid in self.everything() if not _is_desk(pid)]

    def everything(self) -> list[int]:
        """The pids of all processes right under the supervisor."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def desk(self) -> int:
        """The pid of the process that starts offline jobs, once it is there."""
        give_up = time.monotonic() + START_TIMEOUT_S
        while not (found := [pid for pid in self.everything() if _is_desk(pid)]):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        return found[0]

    def _forget(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def client(self, *, access: str = ACCESS, secret: str = SECRET, **config: Any) -> Any:
        """A boto3 client with the endpoint and keys, and nothing else changed but `config`."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(**config) if config else None,
        )

    def fill(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Make a bucket with many small objects: what takes one client a request each is put into the store at once."""
        self.client().create_bucket(Bucket=bucket)
        asyncio.run(_fill(self.folder / STORE, bucket, objects))


async def _fill(folder: Path, bucket: str, objects: Mapping[str, bytes]) -> None:
    store = LocalStore.at(folder)
    try:
        owner = (await store.bucket(bucket)).owner
        attributes = Attributes(content={"content-type": "binary/octet-stream"}, owner=owner)
        wholes = iter([Whole(key, data, attributes) for key, data in objects.items()])
        while group := list(itertools.islice(wholes, 500)):
            stored = await store.put_many(bucket, group)
            assert all(isinstance(each, ObjectInfo) for each in stored), stored
    finally:
        await store.close()


def _is_desk(pid: int) -> bool:
    """Whether a process is the desk, or is about to be: the last one that a supervisor starts."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            ended = b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        # nothing is there for a moment while it becomes what it will be, and "serve" until then
        if ended or (command and b"serve" not in command.split(b"\0")):
            return b"transom.gateway.offline" in command.split(b"\0")
    raise AssertionError(f"process {pid} stays as it was forked")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
