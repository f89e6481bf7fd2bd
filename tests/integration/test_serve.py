"""`transom serve` as it is started: keys, folders, domains, configuration, logs, and what it says when it can't."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Wire, at, eventually
from transom.client.admin import AdminClient, AdminError

KEYS = """
[[key]]
access = "ALICE"
secret = "alice-secret-0123"
owner = "alice"

[[key]]
access = "ALICE2"
secret = "alice-second-0123"
owner = "alice"

[[key]]
access = "BOB"
secret = "bobs-secret-0123"
owner = "bob"
"""
SECRETS = dict(re.findall(r'access = "(\w+)"\nsecret = "([\w-]+)"', KEYS))
StartServer = Callable[..., RunningServer]


def serve(*args: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a `transom serve` that is to end by itself."""
    command = [str(Path(sys.executable).with_name("transom")), "serve", *args]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TRANSOM_")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=40, env={**plain, **(env or {})}, check=False
    )


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# --- one server with keys of several owners, folders and a domain ---------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub dir").mkdir()
    (folder / "sub dir" / "cät.txt").write_bytes(b"a cat")
    (folder / "top.txt").write_bytes(b"top")
    outside = folder.with_name("outside")
    outside.mkdir(exist_ok=True)
    (outside / "secret.txt").write_bytes(b"not yours")
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    (folder / "linked").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "inner.txt").symlink_to("top.txt")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("serve")
    config = folder / "transom.toml"
    config.write_text(KEYS)
    args = ("--config", str(config), "--folder", f"photos={photos}", "--domain", "s3.test", "--processes", "2")
    running = RunningServer(folder / "data", (*args, "--server", "hypercorn")).start()
    yield running
    assert running.stop() == 0, "".join(running.log)


def as_(server: RunningServer, access: str) -> Any:
    return server.client(access=access, secret=SECRETS[access])


def test_each_owner_has_buckets_of_its_own(shared: RunningServer) -> None:
    alice, alice2, bob = (as_(shared, access) for access in ("ALICE", "ALICE2", "BOB"))
    alice.create_bucket(Bucket="alices")
    alice2.put_object(Bucket="alices", Key="key", Body=b"hers")
    bob.create_bucket(Bucket="bobs")
    assert alice.get_object(Bucket="alices", Key="key")["Body"].read() == b"hers"
    assert [each["Name"] for each in alice2.list_buckets()["Buckets"]] == ["alices"]
    assert [each["Name"] for each in bob.list_buckets()["Buckets"]] == ["bobs"]
    for call in (
        lambda: bob.get_object(Bucket="alices", Key="key"),
        lambda: bob.get_object(Bucket="alices--etl--md5", Key="key"),
        lambda: bob.list_objects_v2(Bucket="alices"),
        lambda: bob.put_object(Bucket="alices", Key="key", Body=b"his"),
        lambda: bob.delete_object(Bucket="alices", Key="key"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == "AccessDenied"
    assert alice.get_object(Bucket="alices", Key="key")["Body"].read() == b"hers"


def test_only_admin_keys_manage(shared: RunningServer) -> None:
    with AdminClient(shared.endpoint, ACCESS, SECRET) as admin:
        assert admin.etls()
    with AdminClient(shared.endpoint, "ALICE", SECRETS["ALICE"]) as alice, pytest.raises(AdminError) as error:
        alice.etls()
    assert error.value.status == 403


def test_wrong_and_unknown_keys_are_refused(shared: RunningServer) -> None:
    assert Wire(shared, "ALICE", "wrong-secret").get("/").code == "SignatureDoesNotMatch"
    assert Wire(shared, "EVE", "whatever").get("/").code == "InvalidAccessKeyId"
    anonymous = Wire(shared).get("/", signed=False)
    assert (anonymous.status, anonymous.element("Bucket")) == (200, "")  # it has none
    assert Wire(shared).get("/photos/top.txt", signed=False).code == "AccessDenied"


def test_a_folder_is_a_read_only_bucket(shared: RunningServer, photos: Path) -> None:
    s3 = shared.client()
    listed = s3.list_objects_v2(Bucket="photos")["Contents"]
    assert [entry["Key"] for entry in listed] == ["sub dir/cät.txt", "top.txt"]
    assert listed[0]["ETag"].endswith('-1"')
    assert s3.get_object(Bucket="photos", Key="sub dir/cät.txt")["Body"].read() == b"a cat"
    assert s3.get_object(Bucket="photos--etl--upper", Key="top.txt")["Body"].read() == b"TOP"
    for call in (
        lambda: s3.put_object(Bucket="photos", Key="new.txt", Body=b"new"),
        lambda: s3.put_object(Bucket="photos", Key="top.txt", Body=b"new"),
        lambda: s3.delete_object(Bucket="photos", Key="top.txt"),
        lambda: s3.create_multipart_upload(Bucket="photos", Key="top.txt"),
        lambda: s3.copy_object(Bucket="photos", Key="copy.txt", CopySource="photos/top.txt"),
        lambda: s3.delete_bucket(Bucket="photos"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == "MethodNotAllowed"
    assert sorted(path.name for path in photos.iterdir() if path.is_file() and not path.is_symlink()) == ["top.txt"]


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt",
        "..%2Foutside%2Fsecret.txt",
        "%2e%2e/outside/secret.txt",
        "sub%20dir/../../outside/secret.txt",
        "./top.txt",
        "/top.txt",
        "sub%20dir//c%C3%A4t.txt",
        "link.txt",
        "inner.txt",
        "linked/secret.txt",
        "up/outside/secret.txt",
        "pipe",
        "sub%20dir",
        "sub%20dir/",
        "top.txt/",
        "top.txt%00",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("query", ["", "?etl=echo"])
def test_nothing_but_the_folders_own_files_is_served(shared: RunningServer, path: str, query: str) -> None:
    answer = Wire(shared).get(f"/photos/{path}{query}")
    assert (answer.status, answer.code) in ((404, "NoSuchKey"), (400, "InvalidURI"), (400, "InvalidArgument")), answer
    listed = Wire(shared).get(f"/photos?list-type=2&prefix={path}")
    assert "secret" not in re.sub(r"<Prefix>.*?</Prefix>", "", listed.body.decode())


def test_a_file_changed_while_it_is_read_breaks_the_connection(shared: RunningServer, photos: Path) -> None:
    path = photos / "changing.bin"
    path.write_bytes(bytes(64 * 1024 * 1024))
    try:
        with Wire(shared).open("GET", "/photos/changing.bin") as reading:
            reading.head().read(1024)
            with path.open("r+b") as file:
                file.write(b"changed")
            answer = reading.whole()
        assert answer.status == 200
        assert not answer.ended
        assert b"changed" not in answer.body
    finally:
        path.unlink()


def test_virtual_host_style_under_the_domain(shared: RunningServer) -> None:
    shared.client().create_bucket(Bucket="virtual")
    shared.client().put_object(Bucket="virtual", Key="a key", Body=b"body")
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://s3.test:{shared.port}",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "virtual"}, signature_version="s3v4"),
    )
    hosts = {"virtual.s3.test", "s3.test"}
    with _resolved(hosts):
        assert s3.get_object(Bucket="virtual", Key="a key")["Body"].read() == b"body"
        assert s3.list_objects_v2(Bucket="virtual")["Contents"][0]["Key"] == "a key"
        assert "virtual" in [each["Name"] for each in s3.list_buckets()["Buckets"]]
        url = s3.generate_presigned_url("get_object", {"Bucket": "virtual", "Key": "a key"})
        assert url.startswith(f"http://virtual.s3.test:{shared.port}/a%20key?")
        assert requests.get(url, timeout=10).content == b"body"
    # a host that is not of the domain is path style
    raw = Wire(shared).get("/virtual/a%20key")
    assert raw.body == b"body"


def _resolved(hosts: set[str]) -> Any:
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if host in hosts else host, *args, **kwargs)

    patch = pytest.MonkeyPatch.context()

    class Patched:
        def __enter__(self) -> None:
            patch.__enter__().setattr(socket, "getaddrinfo", resolve)

        def __exit__(self, *args: Any) -> None:
            patch.__exit__(*args)

    return Patched()


def test_the_log_is_json_with_the_request_ids_of_the_answers(shared: RunningServer) -> None:
    wire = Wire(shared)
    shared.client().create_bucket(Bucket="logged")
    for method, target, status in (
        ("PUT", at("logged", "a b"), 200),
        ("GET", at("logged", "a b"), 200),
        ("GET", at("logged", "a b", etl="md5"), 200),
        ("GET", at("logged", "missing"), 404),
        ("GET", "/-/nothing", 400),
    ):
        answer = wire(method, target)
        request_id = answer.headers["x-amz-request-id"]
        assert re.fullmatch(r"[0-9A-F]{16}", request_id)
        assert answer.element("RequestId") in ("", request_id)
        line = eventually(lambda wanted=request_id: _line(shared, wanted))
        assert (line["method"], line["path"], line["status"]) == (method, target.partition("?")[0], status)
        assert line["key"] == ACCESS
        assert line["ms"] >= 0
        assert line["bytes"] == (0 if method == "PUT" else len(answer.body))
        assert line["timestamp"].endswith("Z")
    assert all(isinstance(json.loads(line), dict) for line in list(shared.log))
    everything = "".join(shared.log)
    assert SECRET not in everything
    assert "Signature" not in everything


def _line(server: RunningServer, request_id: str) -> dict[str, Any] | None:
    found = [json.loads(line) for line in list(server.log) if request_id in line]
    return found[0] if found else None


def test_health_alone_needs_no_signature(shared: RunningServer) -> None:
    wire = Wire(shared)
    health = wire.get("/-/health", signed=False)
    assert health.status == 200
    assert json.loads(health.body)["status"] == "ok"
    for path in (
        "/-/",
        "/-/healthy",
        "/-/health/",
        "/-/api/v1/etls",
        "/-/api/v1/openapi.json",
        "/-/via/md5/photos/top.txt",
    ):
        assert wire.get(path, signed=False).status == 403, path


# --- keys made and kept ---------------------------------------------------------------------------


def test_keys_are_generated_printed_once_and_kept_for_their_owner(tmp_path: Path) -> None:
    printed = [_printed(tmp_path) for _ in range(2)]
    path = tmp_path / "data" / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    kept = json.loads(path.read_text())
    assert f"export TRANSOM_ACCESS_KEY={kept['access']}\n" in printed[0]
    assert f"export TRANSOM_SECRET_KEY={kept['secret']}\n" in printed[0]
    assert kept["secret"] not in printed[1]
    path.chmod(0o644)
    refused = serve(str(tmp_path / "data"), "--port", "0")
    assert refused.returncode == 2
    assert refused.stderr == f"transom: {path} can be read by others; run: chmod 600 {path}\n"


def _printed(tmp_path: Path) -> str:
    """What a server prints until it listens; its generated keys work."""
    running = RunningServer(
        tmp_path / "data", ("--processes", "1"), {"TRANSOM_ACCESS_KEY": "", "TRANSOM_SECRET_KEY": ""}
    )
    running.start()
    try:
        kept = json.loads((tmp_path / "data" / "credentials.json").read_text())
        assert "Buckets" in running.client(access=kept["access"], secret=kept["secret"]).list_buckets()
    finally:
        assert running.stop() == 0
    return "".join(running.printed)


# --- what stops the start -------------------------------------------------------------------------


def _config(tmp_path: Path, text: str) -> tuple[str, str]:
    path = tmp_path / "transom.toml"
    path.write_text(text)
    return "--config", str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 9\n", "server.prot: there is no such key"),
        ('[server]\nserver = "nginx"\n', "server.server: Input should be"),
        ("[server\n", "is no TOML"),
        ('[[folder]]\nname = "photos"\npath = "/no/such/folder"\n', "folder 'photos': /no/such/folder is no directory"),
        ('[[folder]]\nname = "-"\npath = "/tmp"\n', "folder '-': "),
    ],
)
def test_a_config_file_that_is_wrong_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    ended = serve(str(tmp_path / "data"), "--port", "0", *_config(tmp_path, text))
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("transom: ")


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        (("--folder", "photos"), {}, "NAME=PATH"),
        (("--folder", "photos=/no/such"), {}, "/no/such is no folder"),
        (("--gateways", "2"), {}, "--gateways needs --targets"),
        (("--host", "192.0.2.1", "--port", "0"), {}, "can't listen on 192.0.2.1:0: "),
        (("--server", "nginx"), {}, "nginx"),
        ((), {"TRANSOM_ACCESS_KEY": "A"}, "TRANSOM_ACCESS_KEY and TRANSOM_SECRET_KEY go together"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, args: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    ended = serve(str(tmp_path / "data"), *args, env=env)
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_folder_that_cant_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = serve(str(tmp_path / "file" / "data"), "--port", "0")
    assert (ended.returncode, ended.stderr) == (
        2,
        f"transom: can't make the data folder {tmp_path}/file/data: Not a directory\n",
    )


# --- ways of running ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [("--host", "::1", "--targets", "1"), ("--host", "0.0.0.0", "--server", "granian", "--log-level", "warning")],
)
def test_other_addresses_and_servers(start_server: StartServer, args: tuple[str, ...]) -> None:
    server = start_server(*args)
    host = "[::1]" if "::1" in args else "127.0.0.1"
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{server.port}",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    s3.create_bucket(Bucket="anywhere")
    s3.put_object(Bucket="anywhere", Key="key", Body=b"body")
    assert s3.get_object(Bucket="anywhere--etl--upper", Key="key")["Body"].read() == b"BODY"
    url = s3.generate_presigned_url("get_object", {"Bucket": "anywhere--etl--upper", "Key": "key"})
    assert requests.get(url, timeout=10).content == b"BODY"
    if "warning" in args:
        assert not [line for line in server.log if '"request"' in line]
