"""The router against the store suite, with a folder beside its default store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from transom.target.store.base import Store
from transom.target.store.conformance import BUCKET, CONTENTS, OWNER, ReadConformance, StoreConformance
from transom.target.store.folder import FolderStore
from transom.target.store.memory import MemoryStore
from transom.target.store.router import StoreRouter


class TestRouterWithoutFolders(StoreConformance):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = StoreRouter(MemoryStore(), {})
        yield store
        await store.close()


class TestRouterToAFolder(ReadConformance):
    @pytest.fixture
    async def stocked(self, tmp_path: Path) -> AsyncIterator[Store]:
        for key, data in CONTENTS.items():
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(data)
        store = StoreRouter(MemoryStore(), {BUCKET: FolderStore(BUCKET, tmp_path, OWNER)})
        yield store
        await store.close()
