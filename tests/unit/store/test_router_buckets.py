"""The router: which store a bucket is in, and what a folder of the same name hides."""

from __future__ import annotations

from pathlib import Path

import pytest

from transom.target.errors import BucketExists, NoSuchBucket, ReadOnlyStore
from transom.target.store.base import Attributes
from transom.target.store.conformance import body_of
from transom.target.store.folder import FolderStore
from transom.target.store.memory import MemoryStore
from transom.target.store.router import StoreRouter


async def test_each_bucket_is_in_its_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the folder")
    default = MemoryStore()
    await default.create_bucket("photos", owner="hidden")
    router = StoreRouter(default, {"photos": FolderStore("photos", tmp_path, "folk")})
    await router.create_bucket("zoo", owner="me")
    await router.create_bucket("ant", owner="me")
    assert [(b.name, b.owner, b.read_only) for b in await router.buckets()] == [
        ("ant", "me", False),
        ("photos", "folk", True),
        ("zoo", "me", False),
    ]
    assert (await router.head("photos", "file")).size == 13
    await router.put("zoo", "k", body_of(b"x"), Attributes())
    assert (await default.head("zoo", "k")).size == 1
    with pytest.raises(ReadOnlyStore):
        await router.put("photos", "k", body_of(b"x"), Attributes())
    with pytest.raises(BucketExists) as refusal:
        await router.create_bucket("photos", owner="me")
    assert refusal.value.owner == "folk"
    with pytest.raises(ReadOnlyStore):
        await router.delete_bucket("photos")
    with pytest.raises(NoSuchBucket):
        await router.bucket("other")
    await router.close()
