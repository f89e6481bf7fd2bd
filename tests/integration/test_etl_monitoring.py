"""What an admin sees of ETLs that ran, on every way of running the server: numbers, errors, health, Prometheus."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.integration.conftest import OTHER_OWNER
from tests.running import ACCESS, SECRET, RunningServer
from tests.stub_workers import Request, every_request, stub_worker
from tests.stub_workers import Wire as WorkerWire
from tests.wire import Wire, at
from transom.client.admin import AdminClient, AdminError

BODY = b"x" * 1000


def exposed(server: RunningServer, auth: tuple[str, str] | None = (ACCESS, SECRET)) -> requests.Response:
    return requests.get(server.endpoint + "/-/metrics", auth=auth, timeout=30)


def sample(text: str, name: str, **labels: str) -> float:
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    for line in text.splitlines():
        if line.startswith(f"{name}{{{wanted}}} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no sample {name}{{{wanted}}}")


def test_runs_are_counted_over_all_processes(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl = name("counted")
    admin.init_etl(etl, "md5", cache=False)
    for n in range(6):
        wire.put(at(bucket, f"k{n}"), BODY)
        assert wire.get(at(bucket, f"k{n}", etl=etl)).status == 200
    found = admin.etl_metrics(etl)
    assert (found["objects"], found["bytes_in"], found["bytes_out"]) == (6, 6000, 6 * 32)
    assert found["errors"] == {}
    assert 0 < found["p50_s"] <= found["p99_s"] < 60
    assert found["queue"] == 0
    text = exposed(server).text
    assert sample(text, "transom_etl_objects_total", etl=etl) == 6
    assert sample(text, "transom_etl_bytes_in_total", etl=etl) == 6000
    assert sample(text, "transom_etl_seconds_count", etl=etl) == 6
    assert sample(text, "transom_etl_queue", etl=etl) == 0
    assert "# TYPE transom_etl_seconds histogram" in text
    admin.remove_etl(etl)


def test_the_stage_to_blame_has_the_error_with_its_object(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl = name("broken")
    admin.init_etl(etl, "fail", cache=False)
    wire.put(at(bucket, "folder/k é.txt"), BODY)
    for _ in range(2):
        assert wire.get(at(bucket, "folder/k é.txt", etl=f"echo>>{etl}")).status == 500
    errors = admin.etl_errors(etl)
    assert len(errors) == 2
    assert (errors[0].bucket, errors[0].key, errors[0].code) == (bucket, "folder/k é.txt", "EtlFailed")
    assert errors[0].stage == etl
    assert etl in errors[0].message
    assert admin.etl_errors(etl, limit=1) == errors[:1]
    assert admin.etl_metrics(etl)["errors"] == {"EtlFailed": 2}
    assert admin.etl_metrics(etl)["objects"] == 0
    assert sample(exposed(server).text, "transom_etl_errors_total", etl=etl, code="EtlFailed") == 2
    admin.remove_etl(etl)
    admin.init_etl(etl, "md5")
    assert admin.etl_errors(etl) == ()  # it is another one
    admin.remove_etl(etl)


def test_an_object_left_out_is_no_error(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl = name("skipping")
    admin.init_etl(etl, "skip")
    wire.put(at(bucket, "k"), BODY)
    assert wire.get(at(bucket, "k", etl=etl)).status == 404
    assert admin.etl_errors(etl) == ()
    admin.remove_etl(etl)


def test_health_follows_the_state(admin: AdminClient, name: Callable[[str], str]) -> None:
    etl = name("well")
    admin.init_etl(etl, "md5")
    assert admin.etl_health(etl)["health"] == "ok"
    admin.stop_etl(etl)
    assert admin.etl_health(etl)["health"] == "stopped"
    admin.remove_etl(etl)
    with pytest.raises(AdminError, match=etl):
        admin.etl_health(etl)


def test_health_of_a_service_elsewhere_is_what_it_answers_just_now(
    tmp_path: Path, start_server: Callable[..., RunningServer]
) -> None:
    statuses = ["200 OK", "404 Not Found", "503 Not Yet"]
    asked: list[str] = []

    def answer(worker: WorkerWire, request: Request) -> None:
        asked.append(f"{request.method} {request.target}")
        worker.answer(b"", statuses.pop(0))

    (tmp_path / "transom.toml").write_text('[etl]\nurl_allow = ["127.0.0.1"]\n')
    server = start_server("--config", str(tmp_path / "transom.toml"))
    with (
        stub_worker(every_request(answer)) as service,
        AdminClient(server.endpoint, ACCESS, SECRET) as admin,
    ):
        url = f"http://127.0.0.1:{service.address.port}/etl"
        admin.init_spec(json.dumps({"name": "far", "runtime": {"url": url}}))
        found = [admin.etl_health("far") for _ in range(3)]
    assert asked == ["GET /etl/health"] * 3
    assert [each["health"] for each in found] == ["ok", "ok", "unavailable"]
    assert "GET /etl/health with 503: see what the service" in found[2]["message"]
    keys = {"TRANSOM_ENDPOINT": server.endpoint, "TRANSOM_ACCESS_KEY": ACCESS, "TRANSOM_SECRET_KEY": SECRET}
    command = [str(Path(sys.executable).with_name("transom")), "etl", "health", "far"]
    down = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, timeout=60, check=False)
    assert down.returncode == 1
    assert b"nobody listens there: start it" in down.stdout
    assert b"ETL 'far' is unavailable" in down.stderr


def test_a_command_without_its_program_fails_to_start_and_health_says_why(
    admin: AdminClient, wire: Wire, bucket: str, name: Callable[[str], str], tmp_path: Path
) -> None:
    etl, program = name("lacking"), tmp_path / "mine"
    spec = json.dumps({"name": etl, "runtime": {"command": [str(program)]}})
    missing = f"there is no program '{program}' on this target"
    with pytest.raises(AdminError, match=f"failed to start: {missing}"):
        admin.init_spec(spec)
    assert (admin.etl(etl).state, admin.etl(etl).message) == ("failed", missing)
    assert (admin.etl_health(etl)["health"], admin.etl_health(etl)["message"]) == ("failed", missing)
    wire.put(at(bucket, "k"), BODY)
    assert wire.get(at(bucket, "k", etl=etl)).status == 503
    program.write_text("#!/bin/sh\nexec tr x y\n")
    program.chmod(0o755)
    admin.start_etl(etl)
    assert (admin.etl_health(etl)["health"], wire.get(at(bucket, "k", etl=etl)).body) == ("ok", b"y" * len(BODY))
    program.unlink()
    assert (admin.etl_health(etl)["health"], admin.etl_health(etl)["message"]) == ("failed", missing)
    admin.remove_etl(etl)


def test_only_admins_may_look(tight_server: RunningServer) -> None:
    assert exposed(tight_server).status_code == 200
    for auth in (None, (ACCESS, "wrong-secret"), ("NOSUCHKEY", SECRET), OTHER_OWNER):
        refused = exposed(tight_server, auth)
        assert refused.status_code == 403
        assert "transom_" not in refused.text
    with AdminClient(tight_server.endpoint, *OTHER_OWNER) as user:
        for look in (user.etl_logs, user.etl_errors, user.etl_metrics, user.etl_health):
            with pytest.raises(AdminError) as refused:
                look("md5")
            assert refused.value.status == 403


def test_a_log_s_offset_needs_its_target(admin: AdminClient) -> None:
    assert admin.etl_logs("md5") == () or all(not piece.text for piece in admin.etl_logs("md5"))
    with pytest.raises(AdminError, match="target"):
        admin.etl_logs("md5", offset=3)
