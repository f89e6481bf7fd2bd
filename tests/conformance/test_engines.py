"""The local engine, and Ray's on a cluster of this machine, against the engine suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.ray_cluster import RAY, ray_cluster
from transom.target.jobs.engines.base import Opener
from transom.target.jobs.engines.conformance import EngineConformance, Maker
from transom.target.jobs.engines.local import LocalEngine
from transom.target.jobs.engines.ray import RayEngine, connect


class TestLocalEngine(EngineConformance):
    @pytest.fixture
    def make(self) -> Maker:
        return LocalEngine


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    """This process as a driver of a cluster: engines made meanwhile share the connection, which takes a second."""
    if not RAY.exists():
        pytest.skip("ray is not installed")
    level = logging.getLogger("ray").level
    with pytest.MonkeyPatch.context() as patch, ray_cluster() as address:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray, _ = connect(address)
        try:
            yield
        finally:
            ray.shutdown()
            logging.getLogger("ray").setLevel(level)


@pytest.mark.usefixtures("connected")
class TestRayEngine(EngineConformance):
    retries = True

    @pytest.fixture
    def make(self) -> Maker:
        def make(opener: Opener) -> RayEngine:
            return RayEngine(opener, address="auto")

        return make

    def check_closed(self, pids: set[int]) -> None:
        """Ray's workers stay while the connection does; that they end with it, the integration tests look."""
