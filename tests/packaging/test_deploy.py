"""What is in deploy/ works: nginx carries signed requests, the unit starts a server, the image's steps make one."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError

from tests.packaging.trees import ROOT, copied_tree, run
from tests.running import ACCESS, SECRET, RunningServer
from transom.client.boto import get_object

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
BIN = Path(sys.executable).parent
MIB = 1024 * 1024
KEY = "a//b c/ü+~&=?.bin"

# --- nginx --------------------------------------------------------------------------------------


def nginx_config(folder: Path, listen: int, upstream: int) -> Path:
    """The sample inside a main configuration that leaves nothing outside `folder`."""
    sample = (DEPLOY / "nginx.conf").read_text()
    placed = sample.replace("listen 80;", f"listen 127.0.0.1:{listen};")
    placed = placed.replace("server 127.0.0.1:9000;", f"server 127.0.0.1:{upstream};")
    assert placed.count(str(listen)) == placed.count(str(upstream)) == 1
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{placed}\n}}\n"
    )
    return config


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int, child: subprocess.Popen[Any]) -> None:
    give_up = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            assert child.poll() is None, "it ended"
            assert time.monotonic() < give_up
            time.sleep(0.02)
        else:
            return


@pytest.fixture
def proxied(start_server: Callable[..., RunningServer], tmp_path: Path) -> Iterator[Any]:
    """A client of a server behind nginx."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    server = start_server("--processes", "1")
    listen = free_port()
    config = nginx_config(tmp_path, listen, server.port)
    child = subprocess.Popen([NGINX, "-c", str(config), "-e", str(tmp_path / "error.log")])
    try:
        await_port(listen, child)
        yield client(f"http://127.0.0.1:{listen}")
    finally:
        child.terminate()
        child.wait(10)


def client(endpoint: str, access: str = ACCESS, secret: str = SECRET) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_takes_the_sample(tmp_path: Path) -> None:
    config = nginx_config(tmp_path, free_port(), 9000)
    done = run(str(NGINX), "-t", "-c", config, "-e", tmp_path / "error.log", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_signed_requests_pass_nginx_unchanged(proxied: Any) -> None:
    data = os.urandom(20 * MIB)
    proxied.create_bucket(Bucket="behind")
    proxied.put_object(Bucket="behind", Key=KEY, Body=data, Metadata={"note": "a_b.c"})
    answer = proxied.get_object(Bucket="behind", Key=KEY)
    assert answer["Body"].read() == data
    assert answer["Metadata"] == {"note": "a_b.c"}
    part = proxied.get_object(Bucket="behind", Key=KEY, Range="bytes=1000-1999")
    assert part["Body"].read() == data[1000:2000]
    assert [found["Key"] for found in proxied.list_objects_v2(Bucket="behind")["Contents"]] == [KEY]
    asked = get_object(proxied, Bucket="behind", Key=KEY, etl="md5")
    assert asked["Body"].read().decode() == hashlib.md5(data).hexdigest()
    url = proxied.generate_presigned_url("get_object", Params={"Bucket": "behind", "Key": KEY})
    assert requests.get(url, timeout=30).content == data


def test_multipart_upload_passes_nginx(proxied: Any) -> None:
    proxied.create_bucket(Bucket="behind")
    upload = proxied.create_multipart_upload(Bucket="behind", Key="large")["UploadId"]
    pieces = [os.urandom(6 * MIB), os.urandom(MIB)]
    parts = [
        {
            "PartNumber": number,
            "ETag": proxied.upload_part(Bucket="behind", Key="large", UploadId=upload, PartNumber=number, Body=piece)[
                "ETag"
            ],
        }
        for number, piece in enumerate(pieces, 1)
    ]
    proxied.complete_multipart_upload(Bucket="behind", Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
    assert proxied.get_object(Bucket="behind", Key="large")["Body"].read() == b"".join(pieces)


def test_answer_broken_off_stays_broken_off_behind_nginx(proxied: Any) -> None:
    proxied.create_bucket(Bucket="behind")
    proxied.put_object(Bucket="behind", Key="k", Body=b"x")
    # more than what is held back to learn of an early failure
    with pytest.raises((IncompleteReadError, ResponseStreamingError, ClientError)):
        get_object(proxied, Bucket="behind", Key="k", etl="fail_late", etl_args={"n": 8 * MIB})["Body"].read()


def test_wrong_key_is_refused_behind_nginx(proxied: Any) -> None:
    with pytest.raises(ClientError) as refused:
        client(proxied.meta.endpoint_url, secret="another-secret").list_buckets()
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


# --- systemd ------------------------------------------------------------------------------------


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "transom.service")
    return parser


def test_unit_is_hardened_and_keeps_its_state() -> None:
    service = unit()["Service"]
    for option in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables", "DynamicUser"):
        assert service[option] == "yes", option
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["StateDirectory"] == "transom"
    assert shlex.split(service["ExecStart"])[2] == "/var/lib/transom"
    assert service["EnvironmentFile"] == "-/etc/transom/transom.env"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "transom.service"
    copy.write_text((DEPLOY / "transom.service").read_text().replace("/opt/transom/bin", str(BIN)))
    done = run("systemd-analyze", "verify", "--man=no", copy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "transom.service" not in done.stderr, done.stderr


def test_unit_starts_a_server_with_the_sample_configuration(tmp_path: Path) -> None:
    command = unit()["Service"]["ExecStart"]
    sample = ROOT / "docs" / "reference" / "transom.toml"
    for path, here in (
        ("/opt/transom/bin", BIN),
        ("/var/lib/transom", tmp_path / "state"),
        ("/etc/transom/transom.toml", sample),
    ):
        assert path in command
        command = command.replace(path, str(here))
    with running(shlex.split(command), {"TRANSOM_ACCESS_KEY": ACCESS, "TRANSOM_SECRET_KEY": SECRET}) as endpoint:
        assert roundtrip(client(endpoint)) == hashlib.md5(b"hello").hexdigest()


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[str]:
    """Run a `transom serve` command line on a free port; yield its endpoint."""
    command = [*command[: command.index("--port") + 1], "0", *command[command.index("--port") + 2 :]]
    child = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        found = next((match for line in child.stdout if (match := re.search(r"listening on \S+:(\d+)$", line))), None)
        assert found is not None, f"it ended with {child.wait()}"
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        child.terminate()
        child.wait(20)
        child.stdout.close()
    assert child.returncode == 0


def roundtrip(s3: Any) -> str:
    """Put an object and read it back through md5."""
    s3.create_bucket(Bucket="deployed")
    s3.put_object(Bucket="deployed", Key="hello", Body=b"hello")
    text: str = get_object(s3, Bucket="deployed", Key="hello", etl="md5")["Body"].read().decode()
    return text


# --- the image ----------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def steps(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_image_is_unprivileged_and_watched() -> None:
    assert steps("USER") == ["10001:10001"]
    assert steps("VOLUME") == ["/data"]
    assert steps("EXPOSE") == ["9000"]
    assert "/-/health" in steps("HEALTHCHECK")[0]
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv*"} <= set(ignored)


@pytest.mark.timeout(600)
def test_steps_of_the_image_make_a_server(tmp_path: Path) -> None:
    """Every COPY and RUN, in folders of our own instead of a container's; making the user alone is left out."""
    places = {"/src": copied_tree(tmp_path / "src"), "/wheels": tmp_path / "wheels", "/opt/transom": tmp_path / "opt"}

    def here(command: str) -> str:
        for path, place in places.items():
            command = command.replace(path, str(place))
        return command

    build, install, user = steps("RUN")
    assert steps("COPY") == [". .", "--from=build /wheels /wheels"]
    assert user.startswith("useradd ")
    # the extras are installed once, in the suite's own environment: 800 MB of other people's files
    assert "'transom[all]'" in install
    install = install.replace("transom[all]", "transom")
    python = f"{BIN}:{os.environ['PATH']}"
    # the versions that the suite runs with, and no byte code: neither is what this test is about
    quick = {"PIP_CONSTRAINT": str(ROOT / "scripts" / "constraints.txt"), "PIP_NO_COMPILE": "1"}
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    for command in (build, install):
        done = run("/bin/sh", "-c", here(command), cwd=places["/src"], **{**pip, **quick, "PATH": python})
        assert done.returncode == 0, done.stdout + done.stderr
    environment = {"PATH": f"{places['/opt/transom']}/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    assert steps("ENV") == ["PATH=/opt/transom/bin:$PATH PYTHONUNBUFFERED=1"]
    command = [*json.loads(steps("ENTRYPOINT")[0]), *json.loads(steps("CMD")[0])]
    command[0] = f"{places['/opt/transom']}/bin/{command[0]}"
    command[command.index("/data")] = str(tmp_path / "data")
    keys = {"TRANSOM_ACCESS_KEY": ACCESS, "TRANSOM_SECRET_KEY": SECRET}
    with running(command, {**environment, **keys}) as endpoint:
        assert roundtrip(client(endpoint)) == hashlib.md5(b"hello").hexdigest()
        check = json.loads(steps("HEALTHCHECK")[0].partition(" CMD ")[2])
        check[-1] = check[-1].replace("http://127.0.0.1:9000", endpoint)
        assert run(*check, cwd=tmp_path, **environment).returncode == 0
        with urllib.request.urlopen(f"{endpoint}/-/health", timeout=5) as answer:
            assert json.load(answer)["status"] == "ok"
    assert run(*check, cwd=tmp_path, **environment).returncode != 0
