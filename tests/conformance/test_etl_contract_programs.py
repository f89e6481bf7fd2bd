"""The ETL contract where the server starts what runs: plugins, processes, commands and uploaded code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.etl_contract import EtlContract, soaking
from tests.conformance.etl_site import PROGRAM, SHELL, SOURCE, Combo, Site, running_site

PYTHON = ("python3", "-c", SOURCE)
SDK = ("python3", "-m", "transom.worker")
COMBOS = [
    Combo("plugin", {"plugin": "probe"}),
    Combo("process", {"process": "probe"}, rest={"concurrency": 2}, thorough=True),
    Combo("io", {"command": [*PYTHON, "once"]}, "io"),
    Combo("io-shell", {"command": ["/bin/sh", "-c", SHELL]}, "io", thorough=True),
    Combo("io-files", {"command": [*PYTHON, "once", "{input}", "{output}"]}, "io", {"cache": False}),
    Combo("io-persistent", {"command": [*SDK, "--io", str(PROGRAM)]}, "io", {"io": "persistent"}, thorough=True),
    Combo("io-persistent-direct", {"command": [*PYTHON, "io"]}, "io", {"io": "persistent", "direct_file": True}),
    Combo("code-hpush", {"code": SOURCE}, "hpush", thorough=True),
    Combo("code-hpull", {"code": SOURCE}, "hpull", thorough=True),
    Combo("code-hrev", {"code": SOURCE}, "hrev", {"cache": False}),
    Combo("code-ws", {"code": SOURCE}, "ws", thorough=True),
    Combo("code-direct", {"code": SOURCE}, "hpush", {"direct_file": True}, thorough=True),
    Combo("code-ws-direct", {"code": SOURCE}, "ws", {"direct_file": True}),
    Combo("command-hpush", {"command": [*SDK, str(PROGRAM)]}, "hpush"),
    Combo("command-hpull", {"command": [*PYTHON, "sdk"]}, "hpull", {"cache": False}),
    Combo("command-ws", {"command": [*PYTHON, "sdk"]}, "ws", {"cache": False}),
    Combo("command-tcp-hpush", {"command": [*PYTHON, "http"]}, "hpush", thorough=True),
    Combo("command-tcp-hpull", {"command": [*PYTHON, "http"]}, "hpull"),
]


class TestPrograms(EtlContract):
    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
        with running_site(tmp_path_factory.mktemp("programs"), COMBOS, "--processes", "2") as site:
            yield site

    @pytest.fixture(params=COMBOS, ids=str)
    def combo(self, request: pytest.FixtureRequest) -> Combo:
        return request.param

    @pytest.fixture(params=soaking(COMBOS), ids=str)
    def thorough(self, request: pytest.FixtureRequest) -> Combo:
        return request.param
