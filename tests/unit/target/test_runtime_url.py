"""Services elsewhere: which addresses are allowed, what a service is sent, and what its answers come to."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.stub_workers import Request, Wire, echo, every_request, stub_worker
from transom.plugins.contract import Context, Reject
from transom.target.errors import EtlArgsInvalid, EtlDisconnected, EtlFailed, EtlUnavailable
from transom.target.etl.locks import ByteHolds
from transom.target.etl.plan import Stage
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.runtimes.services import Services, fetches, pull_secret_of, secret_of
from transom.target.etl.runtimes.url import SIGNATURE, UrlRuntime, signed
from transom.target.etl.runtimes.url_rules import AddressRefusedError, Service, UrlRules, parse_url
from transom.target.etl.spec import from_json, record_of
from transom.target.etl.spec_load import load
from transom.target.etl.transports.base import WorkerLost
from transom.target.etl.watch import Watch

pytestmark = pytest.mark.usefixtures("either_way")

MASTER = b"the server's own secret"
NAMES = {
    "partner.example": ["93.184.216.34"],
    "both.example": ["93.184.216.34", "10.0.0.5"],
    "inner.example": ["10.0.0.5"],
    "here.example": ["127.0.0.1", "::1"],
    "cloud.example": ["169.254.169.254"],
}


def resolve(host: str, port: int) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    if host not in NAMES:
        raise OSError(-2, "Name or service not known")
    return NAMES[host]


def refusal(url: str, *allowed: str) -> str:
    """Why an ETL may not be at a URL; empty if it may."""
    try:
        UrlRules.parse(allowed).check(url, resolve)
    except EtlArgsInvalid as error:
        return error.message
    return ""


# --- which addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:8000", ["127.0.0.1"]),
        ("http://127.0.0.1:8000/etl/", ["127.0.0.0/8"]),
        ("http://[::1]:8000", ["::1"]),
        ("http://[::1]:8000", ["[::1]:8000"]),
        ("http://[::ffff:127.0.0.1]:8000", ["127.0.0.1"]),
        ("http://here.example", ["127.0.0.1", "::1"]),
        ("http://10.0.0.5:81", ["10.0.0.0/8"]),
        ("http://inner.example", ["10.0.0.5:80"]),
        ("https://partner.example", ["partner.example"]),
        ("https://Partner.Example.:443", ["partner.example:443"]),
        ("https://partner.example", ["93.184.216.34"]),
        ("https://partner.example", ["*"]),
        ("https://93.184.216.34", ["*"]),
    ],
)
def test_what_is_allowed(url: str, allowed: list[str]) -> None:
    assert refusal(url, *allowed) == ""


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.7.7", "100.64.0.1"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "[::1]", "[::]", "[fe80::1]"),
        *("[fd12::1]", "[ff02::1]", "[::ffff:10.0.0.5]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("inner.example", "both.example", "here.example"),
    ],
)
def test_what_is_not_public_is_refused_unless_its_address_is_allowed(host: str) -> None:
    assert refusal(f"http://{host}")
    assert "is not public" in refusal(f"http://{host}", "*", host.strip("[]") if "example" in host else "8.8.8.8")


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/latest", "http://[fd00:ec2::254]", "http://100.100.100.200", "http://cloud.example"),
        *("http://[::ffff:169.254.169.254]", "http://metadata.google.internal", "http://Metadata.Google.Internal."),
        *("http://[64:ff9b::a9fe:a9fe]", "http://169.254.170.2", "http://192.0.0.192", "http://metadata"),
    ],
)
def test_a_metadata_service_is_never_allowed(url: str) -> None:
    everything = ("*", "0.0.0.0/0", "::/0", "169.254.169.254", "metadata.google.internal", "metadata")
    assert "is a metadata service" in refusal(url, *everything)


def test_a_public_name_is_refused_where_nobody_allowed_it_and_the_message_says_what_to_do() -> None:
    assert refusal("https://partner.example", "other.example", "partner.example:8443") == (
        "url 'https://partner.example': partner.example is not allowed: "
        "an administrator can add 'partner.example' to [etl] url_allow"
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://partner.example", "begins with http"),
        ("//partner.example", "begins with http"),
        ("http://", "names no host"),
        ("http://a:b@partner.example", "a user and a password"),
        ("http://partner.example/?x=1", "ends with the path"),
        ("http://partner.example:99999", "Port out of range"),
        ("http://nowhere.example", "can't be looked up"),
    ],
)
def test_urls_that_are_none(url: str, why: str) -> None:
    assert why in refusal(url, "*")


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.1/8", "10.0.0.0/99", "x:0", "x:y", "*.example", "http://x"])
def test_what_is_nothing_to_allow(text: str) -> None:
    with pytest.raises(ValueError):
        UrlRules.parse([text])


def test_every_address_is_checked_and_all_that_are_returned_were() -> None:
    rules = UrlRules.parse(["both.example"])
    with pytest.raises(AddressRefusedError, match=r"10\.0\.0\.5"):
        rules.addresses(parse_url("http://both.example"), resolve)
    rules = UrlRules.parse(["both.example", "10.0.0.0/8"])
    assert rules.addresses(parse_url("http://both.example"), resolve) == ["93.184.216.34", "10.0.0.5"]


def test_how_a_service_is_called() -> None:
    assert parse_url("https://X.example/a/b/") == Service(True, "x.example", 443, "/a/b")
    assert parse_url("https://x.example:444").authority == "x.example:444"
    assert parse_url("http://[::1]:80").authority == "[::1]"


# --- calling one --------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[UrlRuntime]:
    holds = ByteHolds(tmp_path / "pulls")
    made = UrlRuntime(UrlRules.parse(["127.0.0.1"]), MASTER, holds, tmp_path)
    yield made
    made.close()
    holds.close()


def call(runtime: UrlRuntime, url: str, data: bytes = b"data", args: str = "", **spec: Any) -> bytes:
    given = from_json(f'{{"name":"far","runtime":{{"url":"{url}"}},"communication":"hpush://"}}')
    stage = Stage("far", "", "1", 1, args or "null", "", 0, runtime="url")
    job = Job(stage, given.model_copy(update=spec), Context("photos", "a b/ü.jpg", "far", size=len(data)))
    return b"".join(runtime.run(job, iter([data]), Watch("far", 20.0)))


def test_the_service_gets_the_object_and_a_signature_that_it_can_verify(runtime: UrlRuntime) -> None:
    seen: list[Request] = []

    def answer(wire: Wire, request: Request) -> None:
        seen.append(request)
        echo(wire, request)

    with stub_worker(every_request(answer)) as worker:
        url = f"http://127.0.0.1:{worker.address.port}/etl"
        assert call(runtime, url, args='{"w":1}') == b"data"
    (request,) = seen
    assert (request.method, request.target) == ("PUT", "/etl/photos/a%20b/%C3%BC.jpg?etl_args=%7B%22w%22%3A1%7D")
    assert request.headers["Host"] == f"127.0.0.1:{worker.address.port}"
    fields = dict(field.split("=", 1) for field in request.headers[SIGNATURE].split(","))
    assert abs(int(fields["t"]) - time.time()) < 30
    # as a service verifies it: nothing of ours is used
    text = f"{fields['t']}.PUT.{request.target}".encode()
    assert fields["v1"] == hmac.new(secret_of(MASTER, "far").encode(), text, hashlib.sha256).hexdigest()


def test_each_etl_has_a_secret_of_its_own() -> None:
    assert len({secret_of(MASTER, "a"), secret_of(MASTER, "b"), secret_of(b"another server's", "a")}) == 3
    assert signed("s", "GET", "/x", 5) != signed("s", "PUT", "/x", 5) != signed("s", "PUT", "/x", 6)


def test_a_redirect_is_not_followed(runtime: UrlRuntime) -> None:
    def answer(wire: Wire, request: Request) -> None:
        wire.answer(b"", "302 Found", "Location: http://169.254.169.254/\r\n")

    with stub_worker(every_request(answer)) as worker, pytest.raises(EtlFailed, match="302, which is no result"):
        call(runtime, f"http://127.0.0.1:{worker.address.port}")
    assert worker.served == 1


def test_a_service_that_is_not_there_may_be_asked_again(runtime: UrlRuntime) -> None:
    with stub_worker(every_request(echo)) as worker:
        port = worker.address.port
    with pytest.raises(WorkerLost):
        call(runtime, f"http://127.0.0.1:{port}")


def test_what_is_no_longer_allowed_is_not_called(tmp_path: Path) -> None:
    holds = ByteHolds(tmp_path / "pulls")
    runtime = UrlRuntime(UrlRules(), MASTER, holds, tmp_path)
    with pytest.raises(EtlUnavailable, match="not public"):
        call(runtime, "http://127.0.0.1:1")
    holds.close()


# --- over TLS -----------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + plain)
    return path


def ssl_context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@contextmanager
def tls_service(pem: Path, answer: Callable[[Wire, Request], object] = echo) -> Iterator[int]:
    """A service that speaks TLS, an echoing one unless told otherwise; its port."""
    context = ssl_context(pem)

    def serve(wire: Wire) -> None:
        with context.wrap_socket(wire.sock, server_side=True) as secure:
            every_request(answer)(Wire(secure))

    with stub_worker(serve) as worker:
        yield worker.address.port


def test_https_is_spoken_with_a_service_whose_certificate_is_trusted(
    runtime: UrlRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    data = bytes(range(256)) * 20_000  # both ways at once, in many records
    with tls_service(pem) as port:
        url = f"https://127.0.0.1:{port}"
        assert call(runtime, url, data) == data
        assert call(runtime, url, b"again, on the same connection") == b"again, on the same connection"
        runtime.close()
    give_up = time.monotonic() + 5
    while any(thread.name == "tls" for thread in threading.enumerate()):
        assert time.monotonic() < give_up


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2"])
def test_https_is_not_spoken_with_any_other(
    runtime: UrlRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pem = certificate(tmp_path, name)
    if name != "127.0.0.1":  # trusted, but another's
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with tls_service(pem) as port, pytest.raises(EtlUnavailable, match="certificate is not to be trusted"):
        call(runtime, f"https://127.0.0.1:{port}")


UNSIZED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
HALF = b"x" * 300_000  # more than is held back of a body without an end of its own


class Ending:
    """Answers each request with `data`, and ends the connection: by close_notify, or as anybody could have."""

    def __init__(self, data: bytes, *, declared: bool) -> None:
        self._data = data
        self._declared = declared

    def __call__(self, wire: Wire, request: Request) -> None:
        assert isinstance(wire.sock, ssl.SSLSocket)
        wire.send(self._data)
        if self._declared:
            with suppress(ssl.SSLError, OSError):  # nobody says it back
                wire.sock.unwrap()
        wire.sock.shutdown(socket.SHUT_RDWR)
        raise EOFError


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of a service on 127.0.0.1, which is trusted."""
    pem = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    return pem


@pytest.mark.parametrize("size", [0, 10, len(HALF)])
def test_a_result_that_ends_with_the_connection_is_whole_if_tls_says_so(
    runtime: UrlRuntime, trusted: Path, size: int
) -> None:
    with tls_service(trusted, Ending(UNSIZED + HALF[:size], declared=True)) as port:
        assert call(runtime, f"https://127.0.0.1:{port}") == HALF[:size]


def test_a_result_that_is_there_before_all_was_sent_is_whole_if_tls_says_so(runtime: UrlRuntime, trusted: Path) -> None:
    def serve(wire: Wire) -> None:
        with ssl_context(trusted).wrap_socket(wire.sock, server_side=True) as secure:
            secure.recv(100_000)
            secure.sendall(UNSIZED + b"enough")
            with suppress(OSError):
                secure.unwrap()
            with suppress(OSError):
                while socket.socket.recv(secure, 65536):  # what is still sent, undeciphered: else the end is a reset
                    pass

    with stub_worker(serve) as worker:
        assert call(runtime, f"https://{worker.address}", bytes(8 << 20)) == b"enough"


@pytest.mark.parametrize(("size", "kind"), [(0, WorkerLost), (10, WorkerLost), (len(HALF), EtlDisconnected)])
def test_a_result_that_ends_with_the_connection_is_broken_off_if_tls_does_not_say_so(
    runtime: UrlRuntime, trusted: Path, size: int, kind: type[Exception]
) -> None:
    with (
        tls_service(trusted, Ending(UNSIZED + HALF[:size], declared=False)) as port,
        pytest.raises(kind, match=r"TLS ended without a close_notify.*must send a Content-Length or chunks"),
    ):
        call(runtime, f"https://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "framed", [b"Content-Length: 4\r\n\r\nfour", b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n"]
)
def test_a_result_with_an_end_of_its_own_needs_no_end_of_tls(runtime: UrlRuntime, trusted: Path, framed: bytes) -> None:
    with tls_service(trusted, Ending(b"HTTP/1.1 200 OK\r\n" + framed, declared=False)) as port:
        for _ in range(3):  # the connection that it kept is gone without a word, and another is made
            assert call(runtime, f"https://127.0.0.1:{port}") == b"four"


def test_a_result_cut_off_within_its_length_is_broken_off_whatever_tls_says(runtime: UrlRuntime, trusted: Path) -> None:
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + HALF
    for declared in (True, False):
        with (
            tls_service(trusted, Ending(short, declared=declared)) as port,
            pytest.raises(EtlDisconnected, match="broke off in the middle"),
        ):
            call(runtime, f"https://127.0.0.1:{port}")


def test_what_a_refusal_says_is_told_however_tls_ends(runtime: UrlRuntime, trusted: Path) -> None:
    refusal = b"HTTP/1.1 422 No\r\nConnection: close\r\n\r\nno image"
    for declared in (True, False):
        with (
            tls_service(trusted, Ending(refusal, declared=declared)) as port,
            pytest.raises(Reject, match="no image"),
        ):
            call(runtime, f"https://127.0.0.1:{port}")


def test_a_service_that_fetches_objects_is_told_where(tmp_path: Path) -> None:
    near, far = Services(MASTER), Services(MASTER, "192.0.2.7:9010")
    pulling = record_of(load("name: far\nruntime: {url: http://far}\ncommunication: hpull\n")[0])
    pushed = record_of(load("name: far\nruntime: {url: http://far}\n")[0])
    worker = record_of(load("name: far\nruntime: {image: far}\ncommunication: hpull\n")[0])
    assert [fetches(record) for record in (pulling, pushed, worker)] == [True, False, False]
    path = f"/v1/etl/_object/far/{pull_secret_of(MASTER, 'far')}"
    assert far.target_url(pulling) == f"http://192.0.2.7:9010{path}"
    assert [far.target_url(pushed), far.target_url(worker), near.target_url(pulling)] == ["", "", ""]
    for record in (pushed, worker):
        near.check(record)
    far.check(pulling)
    with pytest.raises(EtlArgsInvalid, match=r"ETL 'far': a service can fetch objects \(hpull://\) only where"):
        near.check(pulling)
    assert len({far.secret("far"), pull_secret_of(MASTER, "far"), pull_secret_of(MASTER, "near")}) == 3
    assert repr(MASTER) not in repr(far)
