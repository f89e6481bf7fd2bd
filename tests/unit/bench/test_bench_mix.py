"""Which requests a workload is made of."""

import hashlib
import itertools
from collections import Counter

import pytest

from transom.bench import mix
from transom.bench.mix import Workload, deletes, endless, expected_of, parse_mix, reads, writes
from transom.bench.sign import Credentials, Endpoint

ENDPOINT = Endpoint.parse("http://127.0.0.1:1")


def workload(**changes):
    return Workload(**{"endpoint": ENDPOINT, "bucket": "b", "size": 100, "objects": 5, "seed": 1, **changes})


@pytest.mark.parametrize(
    ("text", "etl", "weights"),
    [
        ("get", "", {"get": 1}),
        ("get=70,put=30", "", {"get": 70, "put": 30}),
        ("get", "md5", {"etl": 1}),
        ("get=7,put=3", "md5", {"etl": 7, "put": 3}),
        ("get=1,etl=2", "md5", {"get": 1, "etl": 2}),
        ("put,get=0", "", {"put": 1}),
    ],
)
def test_mixes(text, etl, weights):
    assert parse_mix(text, etl) == weights


@pytest.mark.parametrize(
    ("text", "etl"),
    [
        ("", ""),
        ("list", ""),
        ("get=x", ""),
        ("get,get", ""),
        ("get=0", ""),
        ("etl", ""),
        ("put", "md5"),
        ("get=-1", ""),
    ],
)
def test_what_is_no_mix_is_refused(text, etl):
    with pytest.raises(ValueError, match="mix"):
        parse_mix(text, etl)


def test_each_key_is_asked_for_in_turn():
    requests = list(itertools.islice(endless(workload(), 0), 10))
    assert Counter(request.path for request in requests) == {f"/b/r/{index:06d}": 2 for index in range(5)}


def test_operations_come_by_weight():
    requests = list(itertools.islice(endless(workload(mix={"get": 80, "put": 20}), 0), 5000))
    assert 0.15 < Counter(request.op for request in requests)["put"] / 5000 < 0.25


def test_workers_do_not_march_in_step():
    orders = [[r.path for r in itertools.islice(endless(workload(objects=50), worker), 50)] for worker in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_workers_write_different_keys():
    load = workload(mix={"put": 1}, objects=6)
    keys = [{r.path for r in itertools.islice(endless(load, worker, 3), 20)} for worker in range(3)]
    assert [len(each) for each in keys] == [2, 2, 2]
    assert len(set().union(*keys)) == 6


def test_etl_gets_carry_the_pipeline_and_its_args():
    request = reads(workload(etl="a>>b", etl_args="[1,null]", mix={"etl": 1}), None, op="etl")[0]
    assert request.query == (("etl", "a>>b"), ("etl_args", "[1,null]"))
    head = request.head(ENDPOINT, Credentials())
    assert head.startswith(b"GET /b/r/000000?etl=a%3E%3Eb&etl_args=%5B1%2Cnull%5D HTTP/1.1\r\n")


def test_puts_know_their_md5_when_verifying():
    load = workload(verify=True)
    for request in writes(load, load.blobs()):
        assert request.md5 == hashlib.md5(request.body).hexdigest()
    assert writes(workload(), load.blobs())[0].md5 == ""


@pytest.mark.parametrize(
    ("pipeline", "transform"),
    [
        ("", lambda data: data),
        ("echo", lambda data: data),
        ("md5", lambda data: hashlib.md5(data).hexdigest().encode()),
        ("upper >> md5", lambda data: hashlib.md5(data.upper()).hexdigest().encode()),
        ("hello_world>>md5", lambda data: b"ed076287532e86365e841e92bfc50d8c"),
        ("echo>>echo", lambda data: data),
    ],
)
def test_expected_bytes_are_the_pipeline_by_hand(pipeline, transform):
    blob = workload().blobs()[3]
    expected = expected_of(blob, pipeline)
    assert expected.pool[expected.start : expected.start + expected.length] == transform(bytes(blob.view()))


def test_verification_of_an_unknown_etl_is_refused():
    with pytest.raises(ValueError, match="image"):
        workload(etl="echo>>image", mix={"etl": 1}, verify=True).check()
    workload(etl="echo_nc", does="echo", mix={"etl": 1}, verify=True).check()
    workload(etl="image", mix={"etl": 1}).check()


def test_requests_are_signed_once_and_again_when_the_signature_ages(monkeypatch):
    clock, signed = [1000.0], []
    monkeypatch.setattr(mix.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(mix, "serialize", lambda *args, **kwargs: signed.append(args) or b"head")
    request = reads(workload(), None)[0]
    for clock[0] in (1000.0, 1001.0, 1000.0 + mix.RESIGN_AFTER_S):
        request.head(ENDPOINT, Credentials())
    assert len(signed) == 1
    clock[0] = 1001.0 + mix.RESIGN_AFTER_S
    request.head(ENDPOINT, Credentials())
    assert len(signed) == 2


def test_deletes_name_every_key():
    assert [(r.method, r.path) for r in deletes(workload(prefix="p/", objects=2), "w")] == [
        ("DELETE", "/b/p/w/000000"),
        ("DELETE", "/b/p/w/000001"),
    ]
