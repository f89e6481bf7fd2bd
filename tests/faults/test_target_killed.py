"""Targets and gateways are killed, hang, and come back, under load: what it costs the clients."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from transom_test_transformers import grow_bytes

from tests.processes import (
    NO_RETRIES,
    children,
    gone,
    kill,
    listening,
    load,
    md5,
    restarted,
    runs_under_way,
    timed,
    workers,
)
from tests.running import RunningServer
from tests.wire import Wire, at, eventually
from transom.client.boto import get_object
from transom.cluster.map import ClusterMap, Target
from transom.cluster.placement import owner

MIB = 1024 * 1024
BUCKET = "faults"
SOURCES = {f"small-{i}": os.urandom(3_000) for i in range(8)} | {"large": os.urandom(200_000)}
PROCESSES = 5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Three targets behind two gateways."""
    running = RunningServer(tmp_path_factory.mktemp("cluster"), ("--targets", "3", "--gateways", "2")).start()
    s3 = running.client()
    s3.create_bucket(Bucket=BUCKET)
    for key, data in SOURCES.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture(autouse=True)
def _all_there(cluster: RunningServer) -> Iterator[None]:
    yield
    eventually(lambda: len([pid for pid in cluster.children() if not gone(pid)]) == PROCESSES)
    eventually(lambda: all(target.state == "up" for target in cluster_map(cluster).targets))


def cluster_map(server: RunningServer) -> ClusterMap:
    return ClusterMap.from_json((server.folder / "cluster.json").read_text())


def owner_of(server: RunningServer, key: str) -> Target:
    found = owner(cluster_map(server), BUCKET, key)
    assert found is not None
    return found


def pid_of(server: RunningServer, key: str) -> int:
    return listening(server, owner_of(server, key).port)


def test_killed_under_load_of_small_objects_costs_relayed_clients_nothing(cluster: RunningServer) -> None:
    s3 = cluster.client(max_pool_connections=8, **NO_RETRIES)
    counter = iter(range(10**9))

    def read(number: int) -> None:
        key, size = f"small-{number}", next(counter)
        assert get_object(s3, Bucket=BUCKET, Key=key, etl="md5")["Body"].read().decode() == md5(SOURCES[key])
        # another result each time: nothing of it is cached
        body = get_object(s3, Bucket=BUCKET, Key=key, etl="grow", etl_args=size)["Body"].read()
        assert body == grow_bytes(size)

    with load(read, threads=8) as running:
        running.more(40)
        for key in ("small-0", "small-5"):
            victim = pid_of(cluster, key)
            kill(victim)
            running.more(60)
            restarted(cluster, victim, PROCESSES)


@pytest.mark.parametrize("key", ["small-1", "large"])  # made in the target itself, and in a worker process of it
def test_killed_while_large_results_stream_costs_relayed_clients_nothing(cluster: RunningServer, key: str) -> None:
    size, count = 20 * MIB, 6
    begun = threading.Barrier(count + 1, timeout=60)
    killed = threading.Event()
    s3 = cluster.client(max_pool_connections=count, **NO_RETRIES)

    def read(number: int) -> str:
        body = get_object(s3, Bucket=BUCKET, Key=key, etl="grow", etl_args=size + number % 3)["Body"]
        digest = hashlib.md5(body.read(MIB))
        begun.wait()
        assert killed.wait(60)
        while piece := body.read(MIB):
            digest.update(piece)
        return digest.hexdigest()

    with ThreadPoolExecutor(count) as pool:
        reads = [pool.submit(read, number) for number in range(count)]
        begun.wait()
        victim = pid_of(cluster, key)
        kill(victim)
        killed.set()
        got = [each.result(timeout=90) for each in reads]
    wanted = [md5(grow_bytes(size + extra)) for extra in range(3)]
    assert got == [wanted[number % 3] for number in range(count)]
    restarted(cluster, victim, PROCESSES)


def test_a_restarted_target_serves_its_keys_again(cluster: RunningServer) -> None:
    wire = Wire(cluster)
    name = owner_of(cluster, "small-2").id
    victim = pid_of(cluster, "small-2")
    kill(victim)
    eventually(lambda: cluster_map(cluster).target(name).state == "down")  # type: ignore[union-attr]
    assert wire.get(at(BUCKET, "small-2", etl="md5")).headers["x-transom-target"] != name
    restarted(cluster, victim, PROCESSES)
    eventually(lambda: wire.get(at(BUCKET, "small-2", etl="md5")).headers["x-transom-target"] == name)


def test_a_redirect_passes_a_dead_owner_over(cluster: RunningServer) -> None:
    wire = Wire(cluster)
    dead = owner_of(cluster, "small-3")
    victim = pid_of(cluster, "small-3")
    kill(victim)
    eventually(lambda: cluster_map(cluster).target(dead.id).state == "down")  # type: ignore[union-attr]
    target = wire.get(at(BUCKET, "small-3", etl="md5"), {"user-agent": "curl/8"}).headers["location"]
    assert f":{dead.port}/" not in target
    restarted(cluster, victim, PROCESSES)


def test_a_target_that_hangs_is_passed_over(cluster: RunningServer) -> None:
    hung = pid_of(cluster, "small-4")
    wire = Wire(cluster)
    wanted = grow_bytes(20 * MIB)
    with wire.open("GET", at(BUCKET, "small-4", etl="grow", etl_args=len(wanted))) as under_way:
        under_way.head().read(MIB)
        assert under_way.headers["x-transom-target"] == owner_of(cluster, "small-4").id
        eventually(lambda: not runs_under_way(cluster))  # the run is over, not the reading
        # and its result is in the index: who is stopped while writing there has it locked
        assert wire.head(at(BUCKET, "small-4", etl="grow", etl_args=len(wanted))).status == 200
        os.kill(hung, signal.SIGSTOP)
        try:
            answer, took_s = timed(lambda: wire.get(at(BUCKET, "small-4", etl="grow", etl_args=77)))
            assert answer.body == grow_bytes(77)
            assert answer.headers["x-transom-target"] != owner_of(cluster, "small-4").id
            assert took_s < 12
            assert md5(under_way.read()) == md5(wanted)
            assert under_way.ended
        finally:
            os.kill(hung, signal.SIGCONT)


def test_with_every_target_dead_503_asks_to_come_back_and_then_it_works(cluster: RunningServer) -> None:
    wire = Wire(cluster)
    targets = [listening(cluster, target.port) for target in cluster_map(cluster).targets]
    os.kill(cluster.pid, signal.SIGSTOP)  # nobody restarts them
    try:
        for pid in targets:
            kill(pid)
        answer, took_s = timed(lambda: wire.get(at(BUCKET, "small-6", etl="grow", etl_args=66)))
        assert (answer.status, answer.code) == (503, "ServiceUnavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert took_s < 30
        assert wire.get(at(BUCKET, "small-6")).body == SOURCES["small-6"]  # plain reads need no target
    finally:
        os.kill(cluster.pid, signal.SIGCONT)
    assert wire.get(at(BUCKET, "small-6", etl="grow", etl_args=66)).body == grow_bytes(66)  # waits for the restart


def test_every_target_killed_at_once_is_waited_for(cluster: RunningServer) -> None:
    s3 = cluster.client(**NO_RETRIES)
    for target in cluster_map(cluster).targets:
        kill(listening(cluster, target.port))
    assert get_object(s3, Bucket=BUCKET, Key="small-7", etl="grow", etl_args=99)["Body"].read() == grow_bytes(99)


def test_a_killed_gateway_is_replaced_and_the_other_serves_meanwhile(cluster: RunningServer) -> None:
    targets = {listening(cluster, target.port) for target in cluster_map(cluster).targets}
    gateways = [pid for pid in cluster.children() if pid not in targets]
    assert len(gateways) == 2
    kill(gateways[0])
    eventually(lambda: gone(gateways[0]))
    for _ in range(20):  # each on a connection of its own
        answer = Wire(cluster).get(at(BUCKET, "small-0", etl="md5"))
        assert answer.body.decode() == md5(SOURCES["small-0"])
    restarted(cluster, gateways[0], PROCESSES)


def test_the_workers_of_a_killed_target_die_with_it(cluster: RunningServer) -> None:
    s3 = cluster.client(**NO_RETRIES)
    get_object(s3, Bucket=BUCKET, Key="large", etl="grow", etl_args=1001)["Body"].read()
    victim = pid_of(cluster, "large")
    orphans = [pid for pid in workers(cluster) if pid in children(victim)]
    assert orphans
    kill(victim)
    eventually(lambda: all(gone(pid) for pid in orphans))
    restarted(cluster, victim, PROCESSES)
    assert md5(get_object(s3, Bucket=BUCKET, Key="large", etl="grow", etl_args=1002)["Body"].read()) == md5(
        grow_bytes(1002)
    )
