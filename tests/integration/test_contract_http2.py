"""The contract over TLS and HTTP/2: a late failure never sends END_STREAM, and the rest holds as on HTTP/1.1."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h2.connection
import h2.events
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from transom_test_transformers import grow_bytes

from tests.conftest import WAYS
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Wire, at

MIB = 1024 * 1024


@dataclass
class Stream:
    """An HTTP/2 response. `ended` tells whether END_STREAM came; `reset` whether the stream was reset."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False


@dataclass
class Http2:
    """Makes one signed request a connection."""

    server: RunningServer
    context: ssl.SSLContext

    def __call__(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        after: tuple[int, Callable[[], object]] | None = None,
    ) -> Stream:
        """`after` is called once so many bytes of the body have come."""
        url = f"https://127.0.0.1:{self.server.port}{target}"
        length = {"Content-Length": str(len(body))} if body else {}
        request = AWSRequest(method, url, headers={**(headers or {}), **length}, data=body)
        S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(request)
        with (
            socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as plain,
            self.context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
        ):
            assert sock.selected_alpn_protocol() == "h2"
            connection, stream = h2.connection.H2Connection(), Stream()
            self._send(connection, sock, method, target, dict(request.headers.items()), body)
            self._receive(connection, sock, stream, after)
        return stream

    def _send(
        self,
        connection: h2.connection.H2Connection,
        sock: ssl.SSLSocket,
        method: str,
        target: str,
        sent: dict[str, str],
        body: bytes,
    ) -> None:
        connection.initiate_connection()
        pseudo = {":method": method, ":path": target, ":scheme": "https", ":authority": f"127.0.0.1:{self.server.port}"}
        headers = [*pseudo.items(), *((name.lower(), value) for name, value in sent.items())]
        connection.send_headers(1, headers, end_stream=not body)
        if body:
            connection.send_data(1, body, end_stream=True)
        sock.sendall(connection.data_to_send())

    def _receive(
        self,
        connection: h2.connection.H2Connection,
        sock: ssl.SSLSocket,
        stream: Stream,
        after: tuple[int, Callable[[], object]] | None,
    ) -> None:
        while not stream.ended and not stream.reset:
            data = sock.recv(65536)
            if not data:
                break
            for event in connection.receive_data(data):
                _note(stream, connection, event)
            sock.sendall(connection.data_to_send())
            if after is not None and len(stream.body) >= after[0]:
                after[1]()
                after = None


def _note(stream: Stream, connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.ResponseReceived):
        headers = {name.decode(): value.decode() for name, value in event.headers}
        stream.status, stream.headers = int(headers.pop(":status")), headers
    elif isinstance(event, h2.events.DataReceived):
        stream.body += event.data
        connection.acknowledge_received_data(event.flow_controlled_length, 1)
    elif isinstance(event, h2.events.StreamEnded):
        stream.ended = True
    elif isinstance(event, h2.events.StreamReset):
        stream.reset = True


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "transom test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@pytest.fixture(scope="module", params=["embedded", "targets"])
def secure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that speaks TLS, and so HTTP/2."""
    folder = tmp_path_factory.mktemp("tls-" + request.param)
    certificate_file, key_file = certificate(folder)
    config = folder / "transom.toml"
    config.write_text(f'[server]\ntls_certificate = "{certificate_file}"\ntls_key = "{key_file}"\n')
    args = (*WAYS[request.param], "--config", str(config))
    running = RunningServer(folder / "data", args).start()
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture
def http2(secure: RunningServer) -> Http2:
    context = ssl.create_default_context(cafile=str(secure.folder.parent / "cert.pem"))
    context.set_alpn_protocols(["h2"])
    return Http2(secure, context)


@pytest.fixture
def https(secure: RunningServer) -> Wire:
    context = ssl.create_default_context(cafile=str(secure.folder.parent / "cert.pem"))
    context.check_hostname = False
    return Wire(secure, tls=context)


def test_reads_hold_on_http_2(http2: Http2) -> None:
    assert http2("PUT", "/over-http2").status == 200
    assert http2("PUT", at("over-http2", "k"), body=b"some text").status == 200
    head = http2("HEAD", at("over-http2", "k", etl="upper"))
    assert (head.status, head.headers["content-length"], bytes(head.body)) == (200, "9", b"")
    whole = http2("GET", at("over-http2", "k", etl="upper"))
    assert (bytes(whole.body), whole.ended, whole.headers["etag"]) == (b"SOME TEXT", True, head.headers["etag"])
    part = http2("GET", at("over-http2--etl--upper", "k"), {"Range": "bytes=5-"})
    assert (part.status, bytes(part.body), part.headers["content-range"]) == (206, b"TEXT", "bytes 5-8/9")
    assert http2("GET", at("over-http2", "k", etl="upper"), {"If-None-Match": whole.headers["etag"]}).status == 304
    refused = http2("GET", at("over-http2", "k", etl="fail"))
    assert (refused.status, refused.ended) == (500, True)
    assert http2("GET", at("over-http2", "k", etl="empty"), {"Range": "bytes=0-"}).status == 416
    large = http2("GET", at("over-http2", "k", etl="grow", etl_args=5 * MIB))
    assert large.ended and large.body == grow_bytes(5 * MIB)
    refused = http2("PUT", at("over-http2--etl--upper", "k"), {"Expect": "100-continue"}, body=b"x")
    assert refused.status == 405


def init(https: Wire, etl: str, args: dict[str, object], **more: object) -> None:
    body = json.dumps({"plugin": "tap", "args": args, **more}).encode()
    assert https("PUT", f"/-/api/v1/etls/{etl}", body=body).status in (200, 201)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_late_failure_never_sends_end_stream(http2: Http2, https: Wire, tmp_path: Path, cached: bool) -> None:
    etl, gate, size = f"late-http2-{cached}".lower(), tmp_path / "gate", 2 * MIB
    init(https, etl, {"before": size, "gate": str(gate), "fail": True}, cache=cached)
    https.put(f"/{etl}")
    https.put(at(etl, "k"), b"x")
    answer = http2("GET", at(etl, "k", etl=etl), after=(size, gate.touch))
    assert (answer.status, answer.ended, answer.reset) == (200, False, True)
    assert answer.body == b"b" * size


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_late_failure_never_sends_the_closing_chunk_over_tls(https: Wire, tmp_path: Path, cached: bool) -> None:
    etl, gate, size = f"late-https-{cached}".lower(), tmp_path / "gate", 2 * MIB
    init(https, etl, {"before": size, "gate": str(gate), "fail": True}, cache=cached)
    https.put(f"/{etl}")
    https.put(at(etl, "k"), b"x")
    with https.open("GET", at(etl, "k", etl=etl)) as exchange:
        exchange.head()
        exchange.read(size)
        gate.touch()
        answer = exchange.whole()
    assert (answer.status, answer.ended) == (200, False)
    assert answer.body == b"b" * size
