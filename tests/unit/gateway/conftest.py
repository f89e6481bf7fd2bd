from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from handlers_client import Client

from transom.target.store.base import Store
from transom.target.store.local import LocalStore
from transom.target.store.memory import MemoryStore

MIN_PART = 100  # bytes: parts as small as this keep the tests quick


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        made: Store = MemoryStore(min_part_size=MIN_PART)
    else:
        made = LocalStore.at(tmp_path / "data", min_part_size=MIN_PART)
    yield made
    await made.close()


@pytest.fixture
async def client(store: Store) -> Client:
    """Alice, with a bucket `bkt` of her own."""
    client = Client(store)
    assert (await client("PUT", "/bkt")).status == 200
    return client
