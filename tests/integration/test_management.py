"""Management: the REST with its OpenAPI, and the `transom` command, against the real server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from openapi_spec_validator import validate

from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at
from transom.client.admin import AdminClient, AdminError

API = "/-/api/v1"
Cli = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def cli(server: RunningServer) -> Cli:
    """Run `transom` with the server's endpoint and keys; it must end as `status` says."""

    def run(*args: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[bytes]:
        keys = {"TRANSOM_ACCESS_KEY": ACCESS, "TRANSOM_SECRET_KEY": SECRET, "TRANSOM_ENDPOINT": server.endpoint}
        # botocore would ask again, and wait longer each time, for what fails here on purpose
        path = {"PATH": str(Path(sys.executable).parent), "HOME": "/nonexistent", "AWS_MAX_ATTEMPTS": "1"}
        ended = subprocess.run(
            ["transom", *args], env={**path, **keys, **env}, capture_output=True, timeout=60, check=False
        )
        assert ended.returncode == status, (args, ended)
        assert b"Traceback" not in ended.stderr
        return ended

    return run


def rest(wire: Wire, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Call the REST with a signed request; return status and decoded JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    answer: Raw = wire(method, API + path, {"Content-Type": "application/json"}, body=data)
    return answer.status, json.loads(answer.body) if answer.body else None


# --- the REST -----------------------------------------------------------------------------------------


def test_openapi_is_valid_and_describes_what_is_served(wire: Wire, admin: AdminClient) -> None:
    document = dict(admin.openapi())
    validate(document)
    assert document["openapi"].startswith("3.")
    for path, verbs in document["paths"].items():
        for method in verbs:
            # unsigned: refused, but neither unknown nor of another method
            answer = wire(method.upper(), path.replace("{name}", "x"), signed=False)
            assert answer.status == 403, (method, path, answer)
    _, shown = rest(wire, "GET", "/etls/upper")
    assert set(document["components"]["schemas"]["EtlShown"]["properties"]) == set(shown)


def test_every_path_but_health_needs_a_signature(server: RunningServer, wire: Wire) -> None:
    health = wire.get("/-/health", signed=False)
    assert health.status == 200 and json.loads(health.body)["status"] == "ok"
    paths = ["/-/", "/-/nothing", "/-/health/x", "/-/metrics", "/-/console", f"{API}/etls", f"{API}/openapi.json"]
    paths += [API, f"{API}/", f"{API}/nothing", "/-/via/", "/-/via", "/-/api", f"{API}/etls/upper", "/-//health", "/-"]
    thief = Wire(server, ACCESS, "wrong-secret-0123456789")
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE"):
            refused = wire(method, path, signed=False)
            assert refused.status in (400, 403, 405), (method, path, refused)
            assert "upper" not in refused.body.decode() or "/etls/upper" in path
        assert wire.get(path, signed=False).status in (400, 403), path
        assert thief.get(path).status in (400, 403), path
    # and with one, what isn't there is not a bucket called "-"
    assert wire.get("/-/nothing").status in (400, 404)
    assert wire("PUT", "/-").status == 400


def test_etl_through_its_life(wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]) -> None:
    etl = name("life")
    wire.put(at(bucket, "k"), b"x")
    asked = {"plugin": "append", "args": {"text": "1"}, "concurrency": 3, "timeout_s": 7.5, "cache": False}
    status, made = rest(wire, "PUT", f"/etls/{etl}", asked)
    assert status == 201
    assert {key: made[key] for key in asked} == asked
    assert (made["state"], made["kind"], made["owner"]) == ("running", "explicit", "admin")
    assert rest(wire, "GET", f"/etls/{etl}") == (200, made)
    status, same = rest(wire, "PUT", f"/etls/{etl}", asked)
    assert (status, same["revision"]) == (200, made["revision"])
    status, changed = rest(wire, "PUT", f"/etls/{etl}", {**asked, "args": {"text": "2"}})
    assert (status, changed["revision"] > made["revision"]) == (200, True)
    assert wire.get(at(bucket, "k", etl=etl)).body == b"x2"
    assert rest(wire, "POST", f"/etls/{etl}/stop")[1]["state"] == "stopped"
    assert wire.get(at(bucket, "k", etl=etl)).code == "EtlUnavailable"
    assert rest(wire, "POST", f"/etls/{etl}/start")[1]["state"] == "running"
    assert etl in [each["name"] for each in rest(wire, "GET", "/etls")[1]["etls"]]
    assert rest(wire, "DELETE", f"/etls/{etl}") == (204, None)
    assert rest(wire, "GET", f"/etls/{etl}")[0] == 404
    assert wire.get(at(bucket, "k", etl=etl)).code == "InvalidArgument"


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/etls/x", {"plugin": "nope"}, "nope"),
        ("/etls/x", {"plugin": "append", "args": {"txet": "a"}}, "txet"),
        ("/etls/x", {"plugin": "needs"}, "text"),
        ("/etls/x", {}, "plugin"),
        ("/etls/x", {"plugin": "upper", "more": 1}, "more"),
        ("/etls/x", {"plugin": "upper", "timeout_s": -1}, "timeout_s"),
        ("/etls/x", b"{", "JSON"),
        ("/etls/No--pe", {"plugin": "upper"}, "name"),
        ("/etls/a--b", {"plugin": "upper"}, "name"),
        ("/etls/" + "x" * 33, {"plugin": "upper"}, "name"),
        ("/views/Bad_Name", {"bucket": "B", "etl": "upper"}, "name"),
        ("/views/good-name", {"bucket": "B", "etl": "nope"}, "nope"),
        ("/views/good-name", {"bucket": "B", "etl": "upper>>"}, "name"),
        ("/views/good-name", {"bucket": "B", "etl": "append", "args": {"txet": 1}}, "txet"),
        ("/views/good-name", {"bucket": "B", "etl": "upper>>append", "args": [None]}, "2 stages"),
        ("/views/good-name", {"bucket": "B", "etl": "upper", "sizes": "invented"}, "sizes"),
        ("/views/good-name", {"bucket": "B", "etl": "upper", "ext": {"a": "c", "b": "c"}}, "twice"),
        ("/views/good--etl--name", {"bucket": "B", "etl": "upper"}, "name"),
        ("/views/good-name", {"bucket": "B--etl--upper", "etl": "upper"}, "view"),
    ],
)
def test_what_can_not_be_made_is_400_with_the_reason(
    wire: Wire, bucket: str, path: str, body: object, reason: str
) -> None:
    if isinstance(body, dict) and "bucket" in body:
        body = {**body, "bucket": body["bucket"].replace("B", bucket)}
    status, answer = rest(wire, "PUT", path, body)
    assert (status, answer["code"]) == (400, "InvalidArgument"), answer
    assert reason in answer["message"], answer
    assert answer["request_id"]


def test_names_in_use_are_kept_apart(wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]) -> None:
    etl, view = name("used"), name("using")
    admin.init_etl(etl, "upper")
    admin.create_view(view, bucket, etl)
    with pytest.raises(AdminError) as refused:
        admin.remove_etl(etl)
    assert (refused.value.status, refused.value.code) == (409, "InUse")
    assert view in refused.value.message
    with pytest.raises(AdminError) as refused:
        admin.create_view(bucket, bucket + "x", "upper")
    assert refused.value.status in (404, 409)
    other = name("other-bucket")
    wire.put(f"/{other}")
    with pytest.raises(AdminError) as refused:
        admin.create_view(other, bucket, "upper")
    assert refused.value.status == 409
    with pytest.raises(AdminError) as refused:
        admin.create_view(name("none"), "no-such-bucket", "upper")
    assert refused.value.status == 404
    with pytest.raises(AdminError) as refused:
        admin.remove_etl("upper")
    assert refused.value.status == 404  # a plugin's own can be stopped only
    admin.remove_view(view)
    admin.remove_etl(etl)
    with pytest.raises(AdminError) as refused:
        admin.view(view)
    assert refused.value.status == 404


def test_tampered_body_is_refused(wire: Wire, name: Callable[[str], str]) -> None:
    path, body = f"{API}/etls/{name('tampered')}", b'{"plugin": "upper"}'
    with wire.open("PUT", path, body=body) as exchange:
        assert exchange.whole().status == 201
    request = AWSRequest("PUT", wire.server.endpoint + path, data=body)
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(request)
    headers = {**dict(request.headers.items()), "Content-Length": str(len(body))}
    with wire.send("PUT", path, headers, body=body.replace(b"upper", b"crash")) as exchange:
        assert exchange.whole().status in (400, 403)


# --- the command: it speaks the REST and S3 that are shown above, so one way of running is enough ---------

ONE_WAY = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@ONE_WAY
def test_cli_etl_through_its_life(wire: Wire, bucket: str, cli: Cli, name: Callable[[str], str]) -> None:
    etl = name("cli")
    wire.put(at(bucket, "k"), b"text")
    cli("etl", "init", "--plugin", "append", "--name", etl, "--args", '{"text": "?"}')
    shown = json.loads(cli("etl", "show", etl, "--json").stdout)
    assert (shown["name"], shown["plugin"], shown["args"], shown["state"]) == (etl, "append", {"text": "?"}, "running")
    assert etl in cli("etl", "show").stdout.decode()
    assert etl in [each["name"] for each in json.loads(cli("etl", "show", "--json").stdout)]
    assert cli("get", f"s3://{bucket}/k", "--etl", etl).stdout == b"text?"
    cli("etl", "stop", etl)
    refused = cli("get", f"s3://{bucket}/k", "--etl", etl, status=1)
    assert b"EtlUnavailable" in refused.stderr and refused.stdout == b""
    cli("etl", "start", etl)
    assert cli("get", f"s3://{bucket}/k", "--etl", etl).stdout == b"text?"
    cli("etl", "rm", etl)
    assert b"no ETL named" in cli("etl", "show", etl, status=1).stderr


@ONE_WAY
def test_cli_view_through_its_life(wire: Wire, bucket: str, cli: Cli, name: Callable[[str], str]) -> None:
    view = name("cli-view")
    wire.put(at(bucket, "cat.jpg"), b"meow")
    made = json.loads(
        cli(
            *("view", "create", view, "--of", bucket, "--etl", "upper>>append", "--args", '[null, "!!"]'),
            *("--ext", "jpg=webp", "--sizes", "materialise", "--json"),
        ).stdout
    )
    assert (made["bucket"], made["etl"], made["args"]) == (bucket, "upper>>append", [None, "!!"])
    assert (made["ext"], made["sizes"]) == ({"jpg": "webp"}, "materialise")
    assert json.loads(cli("view", "show", view, "--json").stdout) == made
    assert view in cli("view", "show").stdout.decode()
    assert cli("get", f"s3://{view}/cat.webp").stdout == b"MEOW!!"
    cli("view", "rm", view)
    assert b"no view named" in cli("view", "show", view, status=1).stderr


@ONE_WAY
def test_cli_get_writes_whole_files_only(wire: Wire, bucket: str, cli: Cli, tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    wire.put(at(bucket, "dir/k ü"), data)
    out = tmp_path / "out"
    cli("get", f"s3://{bucket}/dir/k ü", "--etl", "append>>md5", "--args", '["?", null]', "-o", str(out))
    assert out.read_bytes() == hashlib.md5(data + b"?").hexdigest().encode()
    cli("get", f"s3://{bucket}/dir/k ü", "-o", str(tmp_path))
    assert (tmp_path / "k ü").read_bytes() == data
    assert cli("get", f"s3://{bucket}/dir/k ü", "-o", "-").stdout == data
    for etl, args in (("fail", None), ("fail_late", "2000000"), ("nope", None)):
        given = () if args is None else ("--args", args)
        refused = cli("get", f"s3://{bucket}/dir/k ü", "--etl", etl, *given, "-o", str(tmp_path / "no"), status=1)
        assert refused.stderr.startswith(b"transom: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k ü", "out"]


@ONE_WAY
def test_cli_plugins_and_what_it_says_of_errors(server: RunningServer, cli: Cli) -> None:
    listed = json.loads(cli("plugins", "--json").stdout)
    assert {"upper", "md5", "append", "tap"} <= {each["name"] for each in listed["available"]}
    assert "append" in cli("plugins").stdout.decode()
    assert json.loads(cli("plugins", "append", "--json").stdout)["args_schema"]["properties"]["text"]
    assert b"no transformer named" in cli("plugins", "nope", status=1).stderr
    assert b"SignatureDoesNotMatch" in cli("plugins", status=1, TRANSOM_SECRET_KEY="wrong-secret").stderr
    assert b"TRANSOM_ACCESS_KEY" in cli("plugins", status=1, TRANSOM_ACCESS_KEY="").stderr
    assert b"Unreachable" in cli("plugins", status=1, TRANSOM_ENDPOINT="http://127.0.0.1:1").stderr
    assert b"JSON" in cli("etl", "init", "--plugin", "append", "--args", "{", status=2).stderr
    assert b"txet" in cli("etl", "init", "--plugin", "append", "--args", '{"txet": 1}', status=2).stderr
