"""What is in deploy/ray fits the Ray and the Transom that are here: options, versions, configuration, one secret."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.trees import ROOT, run
from transom.gateway.config import Config

FOLDER = ROOT / "deploy" / "ray"
BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
KUBERNETES: dict[tuple[str, str], dict[str, Any]] = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
}


@pytest.fixture(scope="module")
def ray_options() -> set[str]:
    if not (BIN / "ray").exists():
        pytest.skip("ray is not installed")
    return set(re.findall(r"^ +(--[\w-]+)", run(BIN / "ray", "start", "--help", cwd=ROOT).stdout, re.MULTILINE))


@pytest.mark.parametrize("path", [*sorted(FOLDER.iterdir()), ROOT / "docs/how-to/ray.md"], ids=lambda path: path.name)
def test_ray_knows_what_it_is_told(path: Path, ray_options: set[str]) -> None:
    commands = re.findall(r"ray\W+start\b([^\n&`]*)", path.read_text().replace('", "', " "))
    used = {option for command in commands for option in re.findall(r"(?<![\w-])--[\w-]+", command)}
    assert commands or path.suffix == ".toml"
    assert used <= ray_options, used - ray_options


def test_kuberay_is_told_options_and_the_version(ray_options: set[str]) -> None:
    spec = KUBERNETES["RayCluster", "transom-ray"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert {f"--{name}" for group in groups for name in group["rayStartParams"]} <= ray_options
    assert f"ray=={spec['rayVersion']}" in (ROOT / "scripts/constraints.txt").read_text().splitlines()


def test_servers_are_told_where_nodes_reach_them() -> None:
    told = [(FOLDER / "transom.toml").read_text(), KUBERNETES["ConfigMap", "transom"]["data"]["transom.toml"]]
    port = KUBERNETES["Service", "transom"]["spec"]["ports"][0]["port"]
    for text in told:
        jobs = Config.model_validate(tomllib.loads(text)).jobs
        assert (jobs.ray_address, jobs.ray_endpoint) == ("auto", f"http://transom:{port}")
    assert "transom" in COMPOSE["services"]


def test_every_node_has_the_clusters_secret() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name
        assert "RAY_AUTH_TOKEN" in service["environment"], name
    spec = KUBERNETES["RayCluster", "transom-ray"]["spec"]
    pods = [each["template"]["spec"] for each in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    pods.append(KUBERNETES["StatefulSet", "transom"]["spec"]["template"]["spec"])
    for pod in pods:
        said = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
        assert said["RAY_AUTH_MODE"]["value"] == "token"
        assert said["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "transom", "key": "token"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "transom-ray.service"
    copy.write_text((FOLDER / copy.name).read_text().replace("/opt/transom/bin/ray", sys.executable))
    done = run("systemd-analyze", "verify", "--man=no", copy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert copy.name not in done.stderr, done.stderr
