from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.looping import run_on_loop
from transom.cluster.catalog import Catalog
from transom.plugins.manager import Transformers, load
from transom.target.etl.registry import Registry
from transom.target.store.base import Attributes, ObjectInfo


@pytest.fixture(scope="session")
def transformers() -> Transformers:
    """Everything installed, those of the tests included."""
    return load()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog.open(tmp_path / "catalog.sqlite")
    yield made
    made.close()


@pytest.fixture
def registry(transformers: Transformers, catalog: Catalog) -> Registry:
    return Registry(transformers, catalog)


@pytest.fixture
def source() -> Callable[..., ObjectInfo]:
    """Make an object's description; what isn't given doesn't matter."""

    def make(
        bucket: str = "b",
        key: str = "k",
        etag: str = "e",
        size: int = 3,
        modified_s: int = 1000,
        content_type: str = "text/plain",
        **metadata: str,
    ) -> ObjectInfo:
        attributes = Attributes(content={"content-type": content_type}, metadata=metadata)
        return ObjectInfo(bucket, key, size, etag, modified_s * 10**9 + 5, attributes)

    return make


@pytest.fixture(params=["thread", "loop"])
def either_way(request: pytest.FixtureRequest) -> str:
    """Where the test itself runs, as the work of runs does: in a thread, or on an event loop."""
    way: str = request.param
    return way


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the test on an event loop if that is its way."""
    if pyfuncitem.funcargs.get("either_way") != "loop":
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run_on_loop(partial(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in names}))
    return True
