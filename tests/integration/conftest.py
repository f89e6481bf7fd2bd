"""What the integration tests share: buckets of their own, signed wires, and servers with tight bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import WAYS
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Wire
from transom.client.admin import AdminClient

_numbers = itertools.count(1)

# A second key of the first owner's, no admin's; and one of somebody else's.
SAME_OWNER = ("SAMEOWNERKEY", "same-owner-secret-0123")
OTHER_OWNER = ("OTHEROWNERKEY", "other-owner-secret-0123")
ON_WIRE = ("test_contract_late_failure", "test_contract_ranges", "test_contract_http2", "test_contract_identity")
MIB = 1024 * 1024
WAIT_S = 2.0
MAX_OUTPUT = 6 * MIB
MAX_RESULTS = 8 * MIB
TIGHT = f"""
[etl]
wait_s = {WAIT_S}
queue = 1
max_output = {MAX_OUTPUT}

[results]
max_bytes = {MAX_RESULTS}

[[key]]
access = "{SAME_OWNER[0]}"
secret = "{SAME_OWNER[1]}"
owner = "admin"

[[key]]
access = "{OTHER_OWNER[0]}"
secret = "{OTHER_OWNER[1]}"
owner = "somebody-else"
"""


@pytest.fixture
def wire(server: RunningServer) -> Wire:
    """Raw requests to the running server."""
    return Wire(server)


@pytest.fixture
def bucket(wire: Wire) -> str:
    """A new bucket on the running server."""
    return new_bucket(wire)


@pytest.fixture
def admin(server: RunningServer) -> Iterator[AdminClient]:
    """The management REST of the running server."""
    with AdminClient(server.endpoint, ACCESS, SECRET) as client:
        yield client


@pytest.fixture(scope="session", params=["embedded", "targets"])
def tight_server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kept_servers: Callable[[str, Callable[[], RunningServer]], RunningServer],
) -> RunningServer:
    """A server with a short wait budget, a queue of one, a small result cache and three keys."""

    def make() -> RunningServer:
        folder = tmp_path_factory.mktemp("tight-" + request.param)
        config = folder / "transom.toml"
        config.write_text(TIGHT)
        return RunningServer(folder / "data", (*WAYS[request.param], "--config", str(config)))

    return kept_servers("tight-" + request.param, make)


@pytest.fixture
def tight(tight_server: RunningServer) -> Wire:
    """Raw requests to the server with tight bounds."""
    return Wire(tight_server)


@pytest.fixture
def tight_bucket(tight: Wire) -> str:
    """A new bucket on the server with tight bounds."""
    return new_bucket(tight)


@pytest.fixture
def tight_admin(tight_server: RunningServer) -> Iterator[AdminClient]:
    """The management REST of the server with tight bounds."""
    with AdminClient(tight_server.endpoint, ACCESS, SECRET) as client:
        yield client


@pytest.fixture
def name() -> Callable[[str], str]:
    """Names for ETLs and views that no other test uses."""
    return lambda stem: f"{stem}-{next(_numbers)}"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file for transformers to note their runs in."""
    path = tmp_path / "runs.log"
    path.touch()
    return path


def new_bucket(wire: Wire) -> str:
    """Make a bucket of a name that no other test uses."""
    bucket = f"bucket-{next(_numbers)}"
    wire.put(f"/{bucket}")
    return bucket


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the soak what an embedded Hypercorn shares with the two other ways: its wire and bodies stay."""
    for item in items:
        if "hypercorn" in item.name and item.path.name.startswith("test_contract_") and item.path.stem not in ON_WIRE:
            item.add_marker(pytest.mark.soak)
