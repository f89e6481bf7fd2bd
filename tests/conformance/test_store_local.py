"""The local store against the store suite; afterwards its folder must hold what its index names, no more."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from transom.target.store.base import Store
from transom.target.store.conformance import StoreConformance
from transom.target.store.local import LocalStore


class TestLocalStore(StoreConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = LocalStore.at(tmp_path / "data", threads=8)
        yield store
        await store.close()
        assert not list((tmp_path / "data" / "tmp").iterdir())
        assert blob_files(tmp_path / "data") == named_blobs(tmp_path / "data")


def blob_files(root: Path) -> set[str]:
    return {path.name for path in (root / "blobs").glob("*/*/*")}


def named_blobs(root: Path) -> set[str]:
    db = sqlite3.connect(root / "index.sqlite")
    try:
        return {row[0].hex() for row in db.execute("SELECT id FROM blobs WHERE due_ns IS NULL")}
    finally:
        db.close()
