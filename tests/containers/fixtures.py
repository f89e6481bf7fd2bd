"""A real container engine for tests: Podman always, Docker beside it among the soak tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers import images
from tests.containers.engines import RunningEngine, running


@pytest.fixture(scope="session", params=["podman", pytest.param("docker", marks=pytest.mark.soak)])
def container_engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """A running engine with the image `images.WORKER`: Python, our SDK, and a worker written with it."""
    with running(request.param) as engine:
        engine.load(images.worker_image())
        yield engine


@pytest.fixture(scope="session")
def aistore_image(container_engine: RunningEngine) -> str:
    """An image with a worker that is written with AIStore's own library."""
    if not images.AISTORE_ENVIRONMENT.exists():
        pytest.skip(f"{images.AISTORE_ENVIRONMENT.name} is not there: scripts/setup makes it")
    container_engine.load(images.aistore_image())
    return images.AISTORE


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder with a short path, in which a container's user may make its socket, and nobody else may look."""
    with tempfile.TemporaryDirectory(prefix="transom-") as name:  # for its owner alone
        inner = Path(name, "w")
        inner.mkdir()
        inner.chmod(0o1777)
        yield inner


@pytest.fixture
def gone(container_engine: RunningEngine) -> Callable[[str], bool]:
    """Whether a container is gone."""
    return lambda container: all(each["Id"] != container for each in container_engine.api.containers(all=True))
