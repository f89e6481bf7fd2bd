"""What lies under views: the store that reads none of them unjudged, and the reader that copies use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from handlers_client import OWNERS

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.view_reads import ViewReads
from transom.gateway.views import View, ViewStore
from transom.s3compat.errors import ERROR_HEADER, S3Error
from transom.s3compat.reply import Reply
from transom.target.errors import EtlSkipped
from transom.target.service import Target
from transom.target.store.base import Attributes, Bucket, ObjectInfo
from transom.target.store.memory import MemoryStore

SOURCE = ObjectInfo("b", "k", 3, "0" * 32, 0, Attributes(owner="alice"))


class Body:
    """Endless, until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return b"piece"

    async def aclose(self) -> None:
        self.closed.set()


class Transforms:
    """Answers everything with one reply."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    async def answer(self, *_: object, **__: object) -> Reply:
        return self.reply

    async def close(self) -> None:
        pass


def reads(reply: Reply, size: int | None) -> ViewReads:
    identity = SimpleNamespace(modified_s=0)
    described = SimpleNamespace(etag="1" * 32 + "-1", content_type="", size=size, identity=identity)
    plan = SimpleNamespace(deterministic=True)
    target: Any = SimpleNamespace(
        registry=SimpleNamespace(plan=lambda *_: plan),
        describe=lambda *_: described,
        limits=SimpleNamespace(wait_s=5),
    )
    return ViewReads("v", View("b", ("etl",)), MemoryStore(), cast(Target, target), Transforms(reply))


async def test_a_copy_that_stops_early_lets_go_of_the_result() -> None:
    body = Body()
    reader = await reads(Reply(206, [], body), size=100).open("k", SOURCE)
    async with aclosing(cast("Any", reader.chunks())) as chunks:
        assert await anext(chunks) == b"piece"
        reader.close()
        await asyncio.wait_for(body.closed.wait(), 5)


async def test_a_reader_that_read_all_closes_nothing_twice() -> None:
    reader = await reads(Reply(206, [], b"whole"), size=5).open("k", SOURCE)
    assert [piece async for piece in reader.chunks()] == [b"whole"]
    reader.close()
    reader.close()


@pytest.mark.parametrize(
    ("told", "status", "code", "message"),
    [
        ("EtlTimeout: too late", 504, "EtlTimeout", "too late"),
        ("EtlOutputTooLarge: more than 5", 507, "EtlOutputTooLarge", "more than 5"),
        ("EtlInputRejected: no: caf\xc3\xa9", 422, "EtlInputRejected", "no: caf\u00e9"),
        ("EtlInputRejected: caf\xe9", 422, "EtlInputRejected", "caf\u00e9"),
        ("", 500, "InternalError", "The transformed object could not be read (status 418)."),
    ],
)
async def test_what_another_target_refused_with_is_raised_again(
    told: str, status: int, code: str, message: str
) -> None:
    view = reads(Reply(418, [(ERROR_HEADER, told), ("retry-after", "7")]), size=None)
    with pytest.raises(S3Error) as refused:
        await view.info("k", SOURCE)
    assert (refused.value.status, refused.value.code, refused.value.message) == (status, code, message)


async def test_what_another_target_skipped_is_skipped() -> None:
    view = reads(Reply(404, [(ERROR_HEADER, "NoSuchKey: ETL 'x' leaves it out")]), size=None)
    with pytest.raises(EtlSkipped, match="'x'"):
        await view.info("k", SOURCE)


async def test_a_view_is_judged_by_its_source_before_anything_is_made() -> None:
    class Refused:
        async def source(self, key: str) -> ObjectInfo:
            return SOURCE

        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"{name} was asked for")

    context = GatewayContext(MemoryStore(), view_of=lambda _: cast("Any", Refused()))
    bucket = Bucket("v", "alice", 0, acl="public-read", read_only=True)
    call = cast(Call, SimpleNamespace(principal=OWNERS["bob"]))
    for read in (access.readable_source, access.readable_object, access.open_object):
        with pytest.raises(S3Error, match="AccessDenied"):
            await read(context, call, bucket, "k")


async def test_the_store_reads_no_view() -> None:
    catalog: Any = SimpleNamespace(snapshot=lambda: SimpleNamespace(views={}))
    store = ViewStore(MemoryStore(), catalog)
    for read in (store.head("b--etl--x", "k"), store.open("b--etl--x", "k"), store.list_objects("b--etl--x")):
        with pytest.raises(RuntimeError, match="is a view"):
            await read
