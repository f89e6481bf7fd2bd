"""The load generator against real servers, and against ones that lie: it must say so."""

import hashlib
import json
import os
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from transom.bench.mix import Workload
from transom.bench.peers import PeerError, moto, nginx, rclone, transom
from transom.bench.run import Bench, BenchError
from transom.bench.sign import Credentials, Endpoint
from transom.bench.suite.memory import up_and_down
from transom.bench.worker import Pace

BENCH = [sys.executable, "-m", "transom.bench"]
SUITE = [sys.executable, "-m", "transom.bench.suite"]


@pytest.fixture(scope="module")
def moto_peer(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as peer:
        yield peer


def command(peer, *options, **env):
    keys = {"TRANSOM_ACCESS_KEY": peer.access_key, "TRANSOM_SECRET_KEY": peer.secret_key}
    return subprocess.run(
        [*BENCH, "--endpoint", peer.endpoint, *options],
        env={**os.environ, **keys, **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def buckets(peer):
    client = boto3.client(
        "s3",
        endpoint_url=peer.endpoint,
        aws_access_key_id=peer.access_key,
        aws_secret_access_key=peer.secret_key,
        region_name="us-east-1",
    )
    try:
        return {
            b["Name"]: client.list_objects_v2(Bucket=b["Name"])["KeyCount"] for b in client.list_buckets()["Buckets"]
        }
    finally:
        client.close()


def workload(endpoint, **changes):
    settings = {"bucket": "bench-test", "size": 5000, "objects": 8, "verify": True, **changes}
    return Workload(endpoint=Endpoint.parse(endpoint), **settings)


def measured(load, pace):
    bench = Bench(load, pace)
    with bench.prepared():
        return bench.measure()


# --- real servers -----------------------------------------------------------------------------


def test_mixed_run_is_verified_reported_and_leaves_nothing(moto_peer, tmp_path):
    out = tmp_path / "run.json"
    options = ("--mix", "get=50,put=50", "--size", "10KiB", "--objects", "8", "--count", "60", "--workers", "2")
    done = command(moto_peer, *options, "--verify", "--concurrency", "2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "p99.9" in done.stdout
    data = json.loads(out.read_text())
    assert data["schema"] == "transom.bench/1"
    assert (data["requests"], data["failed"], data["corrupt"]) == (60, 0, 0)
    assert set(data["ops"]) == {"get", "put"}
    assert data["ops"]["get"]["bytes"] == data["ops"]["get"]["requests"] * 10240
    assert set(data["ops"]["get"]["latency_ms"]) == {"p50", "p90", "p99", "p99.9", "max", "mean"}
    assert moto_peer.secret_key not in out.read_text()
    assert buckets(moto_peer) == {}


def test_existing_bucket_is_used_and_kept(moto_peer):
    client = boto3.client(
        "s3",
        endpoint_url=moto_peer.endpoint,
        aws_access_key_id=moto_peer.access_key,
        aws_secret_access_key=moto_peer.secret_key,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="mine")
    client.put_object(Bucket="mine", Key="keep", Body=b"me")
    done = command(moto_peer, "--bucket", "mine", "--size", "1KiB", "--objects", "4", "--count", "10", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] == 10
    assert buckets(moto_peer) == {"mine": 1}
    client.delete_object(Bucket="mine", Key="keep")
    client.delete_bucket(Bucket="mine")
    client.close()


def test_duration_and_warmup_bound_a_run(moto_peer):
    load = workload(moto_peer.endpoint, credentials=Credentials(moto_peer.access_key, moto_peer.secret_key))
    report = measured(load, Pace(concurrency=2, duration_s=0.5, warmup_s=0.2))
    assert report.good
    assert 0.4 < report.elapsed_s < 5


def test_missing_bucket_is_an_error_by_its_code(moto_peer):
    done = command(moto_peer, "--bucket", "no-such-bucket-here", "--count", "5", "--size", "1k")
    assert done.returncode == 1
    assert "NoSuchBucket" in done.stderr


def test_options_that_make_no_sense_are_refused(moto_peer):
    assert command(moto_peer, "--mix", "nonsense").returncode == 2
    assert command(moto_peer, "--etl", "image", "--verify").returncode == 2
    assert command(moto_peer, "--access-key", "", TRANSOM_ACCESS_KEY="").returncode == 2


@pytest.mark.parametrize("start", [nginx, rclone], ids=["nginx", "rclone"])
@pytest.mark.parametrize("size", [0, 4096, 2_000_000])
def test_installed_peers_take_the_load(start, size, tmp_path):
    try:
        with start(tmp_path) as peer:
            keys = Credentials(peer.access_key, peer.secret_key)
            load = workload(peer.endpoint, credentials=keys, mix={"get": 1, "put": 1}, size=size)
            report = measured(load, Pace(concurrency=4, duration_s=None, count=100))
            assert (report.done, report.failed, report.corrupt) == (100, 0, 0)
            assert peer.memory().peak >= peer.memory().rss > 1_000_000
    except PeerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def transom_peer(tmp_path_factory):
    with transom(tmp_path_factory.mktemp("transom")) as peer:
        yield peer


@pytest.mark.parametrize("etl", ["", "md5", "echo", "upper>>md5", "hello_world>>md5"])
def test_transom_answers_every_byte_right(transom_peer, etl):
    keys = Credentials(transom_peer.access_key, transom_peer.secret_key)
    mix = {"etl": 3, "put": 1} if etl else {"get": 3, "put": 1}
    load = workload(transom_peer.endpoint, credentials=keys, mix=mix, etl=etl, size=200_000)
    report = measured(load, Pace(concurrency=4, duration_s=None, count=60))
    assert (report.done, report.failed, report.corrupt) == (60, 0, 0)


def test_image_load_is_of_photos(transom_peer):
    done = command(
        transom_peer, "--etl", "image", "--pixels", "640x480", "--count", "20", "--objects", "4", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["requests"], data["pixels"]) == (20, [640, 480])
    assert 2_000 < data["ops"]["etl"]["bytes"] / 20 < 40_000  # 224x224 JPEGs


@pytest.mark.parametrize(("etl", "kind"), [("tar2tf", "shard"), ("tar", "shard"), ("decompress", "gzip")])
def test_load_is_of_what_the_etl_takes(transom_peer, etl, kind):
    done = command(transom_peer, "--etl", etl, "--size", "100k", "--count", "10", "--objects", "2", "--json", "-")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["requests"], data["failed"], data["kind"]) == (10, 0, kind)


def test_unknown_etl_fails_the_command(transom_peer):
    done = command(transom_peer, "--etl", "no-such-etl", "--count", "5", "--size", "1k", "--json", "-")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ops"]["etl"]["errors"] == {"InvalidArgument": 5}


def test_large_object_goes_up_and_down_under_watch(transom_peer):
    figures = up_and_down(transom_peer, 9 * 2**20 + 17, 1, lambda _: None)
    assert figures["bytes"] == 9 * 2**20 + 17
    assert 0 < figures["get_rss_mib"] <= figures["peak_mib"]


def test_comparison_runs_over_the_peers_that_are_there(tmp_path):
    out = tmp_path / "suite.json"
    done = subprocess.run(
        [*SUITE, "core", "--quick", "--peers", "moto", "--groups", "get,put", "--json", str(out)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(out.read_text())
    assert data["schema"] == "transom.suite/1"
    assert {(m["case"], m["peer"]) for m in data["measurements"]} == {
        (f"{op} {size}", "moto") for op in ("get", "put") for size in ("4KiB", "1MiB")
    }
    assert all(m["ops_per_s"] > 0 and not m["error"] for m in data["measurements"])


# --- servers that lie -------------------------------------------------------------------------


class LyingHandler(BaseHTTPRequestHandler):
    """Keeps what is put; `server.spoil(data, query)` is what a GET gives, None a connection cut halfway."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path] = self.server.kept(data)
        self.answer(200, b"", ETag=f'"{self.server.etag(data)}"')

    def do_GET(self):
        parts = urlsplit(self.path)
        data = self.server.objects.get(parts.path)
        if data is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        spoilt = self.server.spoil(data, parse_qs(parts.query))
        if spoilt is None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self.answer(200, spoilt)

    def do_DELETE(self):
        self.answer(204, b"")

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


class LyingServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, spoil=lambda data, query: data, kept=lambda data: data, etag=None):
        super().__init__(("127.0.0.1", 0), LyingHandler)
        self.objects = {}
        self.spoil = spoil
        self.kept = kept
        self.etag = etag or (lambda data: hashlib.md5(data).hexdigest())
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def handle_error(self, request, client_address):
        pass

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()


ONCE = Pace(concurrency=2, duration_s=None, count=24)


def flipped(data):
    return data[:2500] + bytes([data[2500] ^ 1]) + data[2501:]


def md5_of(data):
    return hashlib.md5(data).hexdigest().encode()


@pytest.mark.parametrize(
    "spoil",
    [lambda data, _: flipped(data), lambda data, _: data[:-1], lambda data, _: data + b"!", lambda data, _: b""],
    ids=["a flipped bit", "a byte short", "a byte long", "nothing"],
)
def test_wrong_answer_is_found(spoil):
    with LyingServer(spoil) as server:
        report = measured(workload(server.endpoint), ONCE)
    assert (report.done, report.corrupt, report.good) == (24, 24, False)


def test_another_objects_bytes_are_found():
    with LyingServer() as server:
        server.spoil = lambda data, _: next(o for o in server.objects.values() if o and o != data)
        assert measured(workload(server.endpoint), ONCE).corrupt == 24


def test_wrong_answer_fails_the_command():
    with LyingServer(lambda data, _: flipped(data)) as server:
        done = subprocess.run(
            [*BENCH, "--endpoint", server.endpoint, "--anonymous", "--verify", "--size", "5000", "--count", "10"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1


def test_unverified_run_does_not_look():
    with LyingServer(lambda data, _: flipped(data)) as server:
        assert measured(workload(server.endpoint, verify=False), ONCE).good


@pytest.mark.parametrize(("honest", "corrupt"), [(True, 0), (False, 24)])
def test_transform_is_compared_with_the_one_done_by_hand(honest, corrupt):
    def spoil(data, query):
        if query.get("etl") != ["md5"]:
            return data
        return md5_of(data if honest else flipped(data))

    with LyingServer(spoil) as server:
        load = workload(server.endpoint, mix={"etl": 1}, etl="md5")
        report = measured(load, ONCE)
    assert (report.done, report.corrupt) == (24, corrupt)
    assert report.ops["etl"].moved == 24 * 32


def test_put_that_was_kept_wrong_is_found_on_reading_back():
    with LyingServer(kept=lambda data: flipped(data) if data else data) as server:
        report = measured(workload(server.endpoint, mix={"put": 1}), ONCE)
    assert report.done == 24
    assert report.unread == 8
    assert not report.good


def test_etag_that_is_not_the_bodys_md5_is_found():
    with LyingServer(etag=lambda data: hashlib.md5(data + b"!").hexdigest()) as server:
        assert measured(workload(server.endpoint, mix={"put": 1}), ONCE).corrupt == 24


def test_etag_that_is_no_md5_is_let_pass():
    with LyingServer(etag=lambda data: hashlib.md5(data + b"!").hexdigest() + "-1") as server:
        assert measured(workload(server.endpoint, mix={"put": 1}), ONCE).good


def test_connection_cut_in_a_body_is_a_failed_request():
    with LyingServer(lambda data, _: None) as server:
        report = measured(workload(server.endpoint), Pace(concurrency=2, duration_s=None, count=6))
    assert (report.done, report.corrupt, report.good) == (0, 0, False)
    assert sum(report.ops["get"].errors.values()) == 6


def test_errors_are_counted_by_s3_code():
    with LyingServer() as server:
        bench = Bench(workload(server.endpoint), ONCE)
        with bench.prepared():
            server.objects = {}
            report = bench.measure()
    assert report.ops["get"].errors == {"NoSuchKey": 24}


def test_silent_server_is_a_timeout():
    class Silent(socketserver.BaseRequestHandler):
        def handle(self):
            while self.request.recv(65536):
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        load = workload(f"http://127.0.0.1:{server.server_address[1]}", verify=False)
        report = Bench(load, Pace(concurrency=2, duration_s=None, count=4, timeout_s=0.3)).measure()
        server.shutdown()
        thread.join()
    assert report.ops["get"].errors == {"Timeout": 4}


def test_absent_server_is_said():
    with pytest.raises(BenchError, match="ConnectionRefused"):
        measured(workload("http://127.0.0.1:1"), ONCE)
