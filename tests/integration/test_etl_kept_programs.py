"""Programs that are kept for command ETLs (`io: persistent`): how long they stay, in every process of a real server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import carrying, gone, parents, runs_under_way
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.admin import AdminClient

WAYS = {"embedded": ("--processes", "2"), "targets": ("--targets", "2")}
BUCKET = "kept"
ETLS = ("stopped", "removed", "changed", "restarted", "beside", "slowly")
WITHIN_S = 10.0
WORKER = """
import secrets, time

NAME = secrets.token_hex(8)  # of this program, and of no other

def transform(data, context):
    if data.startswith(b"slow"):
        time.sleep(2.5)
    return NAME.encode() + b" " + data
"""
_numbers = itertools.count(1)


@dataclass
class Kept:
    """A server, and an ETL of programs that are kept."""

    server: RunningServer
    admin: AdminClient
    wire: Wire
    worker: Path
    etl: str = ""

    def init(self, etl: str, **env: str) -> None:
        command = ["python3", "-m", "transom.worker", str(self.worker), "--io"]
        runtime = {"command": command, "env": {"KEPT_FOR": self.mark(etl), **env}}
        self.admin.init_spec(json.dumps({"name": etl, "runtime": runtime, "io": "persistent"}))

    def mark(self, etl: str) -> str:
        return f"{etl}.{self.server.folder}"

    def get(self, etl: str, text: str = "object") -> Raw:
        """The result of an object that nobody asked for before, over a connection of its own."""
        key, wire = f"{text}-{next(_numbers)}", Wire(self.server)
        assert wire.put(f"/{BUCKET}/{key}", key.encode()).status == 200
        answer = wire.get(at(BUCKET, key, etl=etl))
        assert answer.status != 200 or answer.body.endswith(b" " + key.encode())
        return answer

    def name(self, etl: str) -> bytes:
        """The name of the program that made an object."""
        answer = self.get(etl)
        assert answer.status == 200, answer.body
        return answer.body.partition(b" ")[0]

    def pids(self, etl: str) -> list[int]:
        """The processes of an ETL's programs, with what is around them."""
        return carrying(f"KEPT_FOR={self.mark(etl)}")

    def everywhere(self, etl: str) -> list[int]:
        """The same, once there are some under two of the server's processes."""

        def found() -> list[int]:
            self.name(etl)
            pids = self.pids(etl)
            serving = {parent for pid in pids for parent in parents(pid)} & set(self.server.children())
            return pids if len(serving) == 2 else []

        return eventually(found)

    def ended(self, pids: list[int]) -> None:
        eventually(lambda: all(gone(pid) for pid in pids), within_s=WITHIN_S)


@pytest.fixture(scope="module", params=["embedded", pytest.param("targets", marks=pytest.mark.soak)])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp(request.param)
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    server = RunningServer(folder / "data", WAYS[request.param]).start()
    try:
        with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
            made = Kept(server, admin, Wire(server), worker)
            made.wire.put(f"/{BUCKET}")
            yield made
    finally:
        assert server.stop() == 0, "".join(server.log)
    assert not [pid for etl in ETLS for pid in made.pids(etl)]


ENDINGS: dict[str, Callable[[Kept], object]] = {
    "stopped": lambda kept: kept.admin.stop_etl("stopped"),
    "removed": lambda kept: kept.admin.remove_etl("removed"),
    "changed": lambda kept: kept.init("changed", REVISION="2"),
    "restarted": lambda kept: kept.admin.restart_etl("restarted"),
}


@pytest.mark.parametrize("etl", ENDINGS)
def test_programs_end_in_every_process_and_those_of_others_stay(kept: Kept, etl: str) -> None:
    kept.init(etl)
    kept.init("beside")
    kept.name("beside")
    others = kept.pids("beside")
    pids = kept.everywhere(etl)
    ENDINGS[etl](kept)
    kept.ended(pids)
    assert not kept.pids(etl)  # nor any that came meanwhile: nobody asked
    assert others
    assert not any(gone(pid) for pid in others)


def test_the_first_object_after_a_restart_has_a_fresh_program(kept: Kept) -> None:
    kept.init("restarted")
    kept.everywhere("restarted")
    for _ in range(3):
        before = {kept.name("restarted") for _ in range(8)}
        kept.admin.restart_etl("restarted")
        after = {kept.name("restarted") for _ in range(8)}
        assert not before & after


def test_a_run_under_way_at_a_stop_ends_on_its_program(kept: Kept) -> None:
    kept.init("slowly")
    kept.name("slowly")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(kept.get, "slowly", "slow")
        eventually(lambda: runs_under_way(kept.server))
        kept.admin.stop_etl("slowly")
        assert kept.get("slowly").code == "EtlUnavailable"
        assert under_way.result().status == 200
    eventually(lambda: not kept.pids("slowly"), within_s=WITHIN_S)
    kept.admin.start_etl("slowly")
    assert kept.name("slowly")
