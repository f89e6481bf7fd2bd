"""The folder store against the reading half of the store suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from transom.target.store.base import Store
from transom.target.store.conformance import BUCKET, CONTENTS, OWNER, ReadConformance
from transom.target.store.folder import FolderStore


class TestFolderStore(ReadConformance):
    @pytest.fixture
    async def stocked(self, tmp_path: Path) -> AsyncIterator[Store]:
        for key, data in CONTENTS.items():
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(data)
        store = FolderStore(BUCKET, tmp_path, OWNER)
        yield store
        await store.close()
