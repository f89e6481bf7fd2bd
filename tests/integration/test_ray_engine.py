"""The Ray engine and clusters: what it says where there is none, where tasks go, what is left when it is closed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import md5
from tests.ray_cluster import RAY, environment, ray_cluster, ray_node
from tests.running import ACCESS, SECRET, RunningServer
from transom.client.admin import AdminClient
from transom.cluster.map import ClusterMap, Target
from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.jobs.engines.chores import Chore, Chores, Opening, wait_until
from transom.target.jobs.engines.conformance import is_gone
from transom.target.jobs.engines.ray import RayEngine, nodes_of_targets
from transom.target.jobs.engines.ray_worker import check_versions, our_versions

DRIVER = """
import json, signal, sys, time
from pathlib import Path
from transom.cluster.map import ClusterMap, Target
from transom.target.jobs.engines.chores import Chore, Chores, Opening
from transom.target.jobs.engines.ray import RayEngine

address, folder = sys.argv[1], Path(sys.argv[2])
out, sys.stdout = sys.stdout, sys.stderr  # Ray prints what it does again
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
targets = ClusterMap(1, (Target("t1", "127.0.0.2", 1), Target("t2", "x", 1)))
engine = RayEngine(Opening(folder), address=address, targets=targets)
ours = signal.getsignal(signal.SIGTERM)
tasks = [Chore(n, place=place) for n, place in enumerate([*engine.places, "elsewhere"])]
pids = [finished.result.pid for finished in engine.run(Chores(folder), tasks, width=engine.cores)]
told = {"places": list(engine.places), "cores": engine.cores, "pids": pids, "handler": getattr(ours, "__name__", "")}
print(json.dumps(told), file=out, flush=True)
if sys.argv[3] == "hold":
    while engine.cores < 4:
        time.sleep(0.1)
    came = engine.run(Chores(folder), [Chore(n, "hold") for n in range(4)], width=4)
    print(json.dumps(sorted((finished.task.n, finished.lost) for finished in came)), file=out, flush=True)
if sys.argv[3] == "close":
    engine.close()
    print(json.dumps("closed"), file=out, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine."""
    if not RAY.exists():
        pytest.skip("ray is not installed")
    with ray_cluster() as address:
        yield address


@contextmanager
def driver(address: str, folder: Path, then: str) -> Iterator[subprocess.Popen[str]]:
    """A process that performs tasks on the cluster, says what it saw, and waits."""
    command = [sys.executable, "-c", DRIVER, address, str(folder), then]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_tasks_are_done_on_the_cluster_and_closing_ends_their_workers(cluster: str, tmp_path: Path) -> None:
    with driver(cluster, tmp_path, "close") as process:
        told = json.loads(line_of(process))
        assert told["places"] == ["t1"]  # and t2 with it
        assert told["cores"] == 2
        assert told["handler"] == "<lambda>"  # Ray leaves the process's own
        assert len(told["pids"]) == 2
        assert json.loads(line_of(process)) == "closed"
        wait_until(lambda: all(map(is_gone, told["pids"])))
        assert process.poll() is None


def test_workers_end_with_a_driver_that_is_killed(cluster: str, tmp_path: Path) -> None:
    with driver(cluster, tmp_path, "wait") as process:
        pids = json.loads(line_of(process))["pids"]
        process.kill()
        wait_until(lambda: all(map(is_gone, pids)))


@pytest.mark.soak
def test_what_a_lost_node_did_is_done_again_by_others(cluster: str, tmp_path: Path) -> None:
    """A node takes half a minute to come and be missed."""
    chores = Chores(tmp_path)
    tasks = [Chore(n, "hold") for n in range(4)]
    with ray_node(cluster, "127.0.0.3") as node, driver(cluster, tmp_path, "hold") as process:
        assert json.loads(line_of(process))["cores"] == 2
        wait_until(lambda: all(chores.begun(task.n) for task in tasks))
        os.killpg(node.pid, signal.SIGKILL)
        chores.release()
        told = json.loads(line_of(process))
    assert told == [[task.n, ""] for task in tasks]
    assert max(len(chores.begun(task.n)) for task in tasks) == 2


def test_a_job_loses_nothing_with_a_worker_that_is_killed(
    cluster: str, tmp_path: Path, start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    config = tmp_path / "transom.toml"
    config.write_text(f'[jobs]\nray_address = "{cluster}"\n')
    server = start_server("--processes", "1", "--config", str(config))
    log, objects = tmp_path / "log", {f"{n:03}.txt": f"object {n}".encode() for n in range(150)}
    log.touch()
    client = server.client()
    client.create_bucket(Bucket="src")
    for key, data in objects.items():
        client.put_object(Bucket="src", Key=key, Body=data)
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        args = {"log": str(log), "seconds": 0.03}
        job = admin.transform("s3://src", "s3://dst", "count", args=args, engine="ray")
        wait_until(lambda: len(log.read_text().splitlines()) > 20)
        os.kill(workers_of(cluster)[0], signal.SIGKILL)
        ended = admin.wait_job(job.id, timeout_s=60)
    assert (ended.state, ended.written, ended.failed) == ("done", len(objects), 0), ended
    listed = client.list_objects_v2(Bucket="dst")["Contents"]
    assert {each["Key"]: each["ETag"].strip('"') for each in listed} == {key: md5(objects[key]) for key in objects}
    # only what was under way with the worker was done again
    assert len(objects) <= len(log.read_text().splitlines()) < 1.7 * len(objects)


def workers_of(cluster: str) -> list[int]:
    """The workers that perform a task just now: children of a raylet of the cluster."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if command.startswith(b"ray::perform") and cluster.encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


@pytest.mark.parametrize("how", ["named", "RAY_ADDRESS", "last started here"])
def test_no_cluster_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if how == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    else:
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    with pytest.raises(EngineUnavailable, match=rf"no Ray cluster answers at {address}: .*'ray start'"):
        RayEngine(Opening(tmp_path), address=address if how == "named" else "auto")


def test_the_client_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"name the head's HOST:PORT instead of ray://head:10001"):
        RayEngine(Opening(tmp_path), address="ray://head:10001")


def test_no_ray_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineUnavailable, match=r"needs the package 'ray': pip install 'transom\[ray\]'"):
        RayEngine(Opening(tmp_path), address="auto")


def test_a_node_of_another_version_says_so() -> None:
    check_versions(our_versions())
    with pytest.raises(EngineUnavailable, match=r"has Transom .* the server has 0\.0\.0 on 2\.7: install the server's"):
        check_versions(("0.0.0", "2.7"))


def test_a_targets_node_is_told_by_its_resource_before_its_address() -> None:
    def node(name: str, host: str, alive: bool = True, **resources: float) -> dict[str, object]:
        return {
            "NodeID": name,
            "Alive": alive,
            "NodeManagerAddress": host,
            "NodeManagerHostname": f"{name}.example",
            "Resources": {"CPU": 4.0, **{f"target:{each}": count for each, count in resources.items()}},
        }

    nodes = [node("n1", "10.0.0.1"), node("n2", "10.0.0.2", t1=1.0), node("n3", "10.0.0.3", alive=False, t4=1.0)]
    hosts = {"t1": "10.0.0.1", "t2": "10.0.0.1", "t3": "n2.example", "t4": "10.0.0.3", "t5": "10.9.9.9"}
    targets = ClusterMap(1, tuple(Target(name, host, 9000) for name, host in hosts.items()))
    found = nodes_of_targets(nodes, targets, "here")
    assert found == {"t1": "n2", "t2": "n1", "t3": "n2", "t4": "here", "t5": "here"}


def test_a_server_of_one_process_is_on_its_own_node() -> None:
    assert nodes_of_targets([], ClusterMap(), "here") == {"local": "here"}
