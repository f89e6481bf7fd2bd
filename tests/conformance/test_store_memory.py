"""The in-memory store against the store suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from transom.target.store.base import Store
from transom.target.store.conformance import StoreConformance
from transom.target.store.memory import MemoryStore


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MemoryStore()
        yield store
        await store.close()
