"""A server with ETLs of every runtime and transport, and what each of them makes by hand."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.processes import marked, md5
from tests.running import ACCESS, SECRET, RunningServer
from tests.stub_workers import Request, every_request, stub_worker
from tests.stub_workers import Wire as WorkerWire
from tests.wire import Raw, Wire, at
from transom.client.admin import AdminClient

MIB = 1024 * 1024
BUCKET = "runtimes"
CONFIG = '[etl]\nurl_allow = ["127.0.0.1"]\n'
NOISE = random.Random(3).randbytes(11 * MIB)
OBJECTS = {
    "empty": b"",
    "one": b"x",
    "hello.txt": b"hello world",
    "a b/ü%41+&?#.txt": b"a name to escape",
    "large": NOISE[: 3 * MIB],
    "parts": NOISE,
}
numbers = itertools.count(1)

TCP_SERVER = """
import os, http.server, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            return self.answer(b"Running")
        with urllib.request.urlopen(os.environ["AIS_TARGET_URL"] + self.path) as answer:
            self.answer(b"tcp:" + answer.read())
    def do_PUT(self):
        self.answer(b"tcp:" + self.rfile.read(int(self.headers["Content-Length"])))
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
SHOUT = """
import os, time
from transom.worker import Reject, Skip

def transform(data, context):
    if data == b"die":
        os._exit(7)
    if data == b"slow":
        time.sleep(5)
    if data == b"skip":
        raise Skip("not this one")
    if data == b"reject":
        raise Reject("no such picture")
    return data.upper() + b"!" + context.args_text.encode()
"""
REVERSE = "def transform(data, context):\n    return data[::-1]\n"
FILE = "def transform_file(path, context):\n    return b'file:' + open(path, 'rb').read()\n"


def spec(name: str, runtime: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": name, "runtime": runtime, **rest}


SPECS = [
    spec("tr", {"command": ["tr", "a-z", "A-Z"]}),
    spec("pooled", {"process": "md5"}),
    spec("shout", {"code": SHOUT}, obj_timeout="2s"),
    spec("pulled", {"code": REVERSE}, communication="hpull"),
    spec("proxied", {"code": REVERSE}, communication="hrev"),
    spec("sock", {"code": REVERSE}, communication="ws"),
    spec("direct", {"code": FILE}, direct_file=True),
    spec("handed", {"code": REVERSE}, communication="hpull", redirect="worker", network=True),
    spec("tcp", {"command": ["python3", "-c", TCP_SERVER]}, communication="hpush"),
    spec("tcp-pulled", {"command": ["python3", "-c", TCP_SERVER]}, communication="hpull"),
]
BY_HAND: dict[str, Callable[[bytes], bytes]] = {
    "tr": bytes.upper,
    "pooled": lambda data: md5(data).encode(),
    "shout": lambda data: data.upper() + b"!",
    "pulled": lambda data: data[::-1],
    "proxied": lambda data: data[::-1],
    "sock": lambda data: data[::-1],
    "direct": lambda data: b"file:" + data,
    "handed": lambda data: data[::-1],
    "tcp": lambda data: b"tcp:" + data,
    "tcp-pulled": lambda data: b"tcp:" + data,
    "far": lambda data: b"far:" + data,
}


@dataclass
class Running:
    """A server with the ETLs of `SPECS`, and a service elsewhere."""

    server: RunningServer
    admin: AdminClient
    wire: Wire
    asked: list[Request] = field(default_factory=list)

    def get(self, key: str, etl: str, **query: str) -> Raw:
        return self.wire.get(at(BUCKET, key, etl=etl, **query))

    def put(self, data: bytes) -> str:
        """Store an object under a key of its own: nothing of it is cached."""
        key = f"object-{next(numbers)}"
        assert self.wire.put(f"/{BUCKET}/{key}", data).status == 200
        return key

    def init(self, runtime: dict[str, Any], **rest: Any) -> str:
        name = f"etl-{next(numbers)}"
        self.admin.init_spec(json.dumps(spec(name, runtime, **rest)))
        return name

    def pids(self, etl: str) -> list[int]:
        """The pids of an ETL's running workers, on all targets."""
        return [worker.pid for worker in self.admin.etl(etl).workers if worker.state == "running"]


def put_in_parts(s3: Any, key: str, data: bytes) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    parts = []
    for number in (1, 2):
        piece = data[: 6 * MIB] if number == 1 else data[6 * MIB :]
        answer = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


@contextmanager
def running_etls(folder: Path, *options: str) -> Iterator[Running]:
    """Run a server with all of it; nothing of it may be left at the end."""
    (folder / "transom.toml").write_text(CONFIG)
    server = RunningServer(folder / "data", (*options, "--config", str(folder / "transom.toml"))).start()
    s3 = server.client()
    s3.create_bucket(Bucket=BUCKET)
    for key, data in OBJECTS.items():
        if key != "parts":
            s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    put_in_parts(s3, "parts", OBJECTS["parts"])
    asked: list[Request] = []

    def answer(wire: WorkerWire, request: Request) -> None:
        asked.append(request)
        wire.answer(b"far:" + (request.body or b""))

    with AdminClient(server.endpoint, ACCESS, SECRET) as admin, stub_worker(every_request(answer)) as service:
        far = spec("far", {"url": f"http://127.0.0.1:{service.address.port}/etl"})
        admin.init_spec("\n---\n".join(json.dumps(each) for each in [*SPECS, far]))
        yield Running(server, admin, Wire(server), asked)
    assert server.stop() == 0, "".join(server.log)
    assert marked(server) == []


def followed(location: str, **headers: str) -> Raw:
    """What is at the end of a redirect, which is followed no further."""
    parts = urlsplit(location)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Raw(answer.status, found, answer.read(), ended=True)
    finally:
        connection.close()
