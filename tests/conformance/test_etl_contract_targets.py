"""The ETL contract where a gateway and two targets are processes of their own: a selection of runtimes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.etl_contract import EtlContract, soaking
from tests.conformance.etl_site import SHELL, SOURCE, Combo, Site, running_site

PYTHON = ("python3", "-c", SOURCE)
COMBOS = [
    Combo("io-shell", {"command": ["/bin/sh", "-c", SHELL]}, "io"),
    Combo("code-hpush", {"code": SOURCE}, "hpush", {"direct_file": True}),
    Combo("code-hpull", {"code": SOURCE}, "hpull", thorough=True),
    Combo("command-ws", {"command": [*PYTHON, "sdk"]}, "ws", {"cache": False}),
]


class TestTargets(EtlContract):
    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
        with running_site(tmp_path_factory.mktemp("targets"), COMBOS, "--targets", "2") as site:
            yield site

    @pytest.fixture(params=COMBOS, ids=str)
    def combo(self, request: pytest.FixtureRequest) -> Combo:
        return request.param

    @pytest.fixture(params=soaking(COMBOS), ids=str)
    def thorough(self, request: pytest.FixtureRequest) -> Combo:
        return request.param
