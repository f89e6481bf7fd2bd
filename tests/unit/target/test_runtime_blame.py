"""What is to blame where a worker that fetches the object itself fails: the object's replacement, or the worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from transom.target.errors import EtlCrashed, EtlFailed, EtlInputRejected, NoSuchKey, SourceChanged, TargetError
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.runtimes.jobs import cause_of
from transom.target.store.base import Attributes, ObjectInfo
from transom.target.store.memory import MemoryStore

FAILURE, REFUSAL, CRASH = EtlFailed("no"), EtlInputRejected("not found"), EtlCrashed("gone")


def plan(communication: str) -> Plan:
    spec = json.dumps({"name": "far", "runtime": {"code": "x"}, "communication": communication})
    return Plan((Stage("far", "", "1", 1, "null", "null", 0, runtime="code", spec=spec),))


class Shop(MemoryStore):
    """A store whose `head` may break."""

    broken: Exception | None = None

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        if self.broken is not None:
            raise self.broken
        return await super().head(bucket, key)


@pytest.fixture
async def store() -> Shop:
    made = Shop()
    await made.create_bucket("b", owner="o")
    return made


async def put(store: Shop, data: bytes) -> ObjectInfo:
    async def body() -> AsyncIterator[bytes]:
        yield data

    return await store.put("b", "k", body(), Attributes())


@pytest.mark.parametrize("error", [FAILURE, REFUSAL])
async def test_an_object_that_was_replaced_or_deleted_is_to_blame(store: Shop, error: TargetError) -> None:
    source = await put(store, b"old")
    assert await cause_of(error, plan("hpull://"), source, store) is error
    await put(store, b"new")
    assert isinstance(await cause_of(error, plan("hpull://"), source, store), SourceChanged)
    await store.delete("b", "k")
    assert isinstance(await cause_of(error, plan("hrev://"), source, store), SourceChanged)


async def test_what_is_sent_the_object_or_dies_is_to_blame_itself(store: Shop) -> None:
    source = await put(store, b"old")
    await put(store, b"new")
    assert await cause_of(FAILURE, plan("hpush://"), source, store) is FAILURE
    assert await cause_of(CRASH, plan("hpull://"), source, store) is CRASH


@pytest.mark.parametrize("broken", [PermissionError(13, "no"), RuntimeError("disk"), TargetError("busy")])
async def test_a_store_that_can_not_tell_hides_no_error(store: Shop, broken: Exception) -> None:
    source = await put(store, b"old")
    store.broken = broken
    assert await cause_of(REFUSAL, plan("hpull://"), source, store) is REFUSAL
    store.broken = NoSuchKey("gone")
    assert isinstance(await cause_of(REFUSAL, plan("hpull://"), source, store), SourceChanged)
