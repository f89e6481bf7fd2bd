"""The local store against a dictionary, by random walks that also reopen it and keep readers open."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from transom.target.errors import NoSuchKey, NoSuchUpload, PreconditionFailed
from transom.target.store.base import Attributes, ObjectInfo, WriteCondition
from transom.target.store.local import LocalStore
from transom.target.store.local.reader import LocalReader

T = TypeVar("T")
KEYS = st.text(st.sampled_from("ab/\0é\uffee\U0001f600"), min_size=1, max_size=5)
BODIES = st.lists(st.binary(max_size=40), max_size=3)
ATTRIBUTES = st.builds(
    Attributes,
    metadata=st.dictionaries(st.text("xyz", min_size=1, max_size=2), st.text(max_size=3), max_size=2),
    tags=st.dictionaries(st.text("tu", min_size=1, max_size=2), st.text(max_size=3), max_size=2),
)


async def body_of(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def listing_of(keys: list[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """What S3 says a listing shows: keys and common prefixes above `after`, in UTF-8 order."""
    shown = set()
    for key in keys:
        if not key.startswith(prefix):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if at < 0 else key[: at + len(delimiter)]
        rolled = entry if at >= 0 else None
        if (rolled is not None and after.startswith(rolled)) or entry.encode() <= after.encode():
            continue
        shown.add(entry)
    return sorted(shown, key=str.encode)


class StoreMachine(RuleBasedStateMachine):
    """`model` maps each key to its bytes and attributes."""

    readers = Bundle("readers")
    uploads = Bundle("uploads")

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="transom-machine-"))
        self.runner = asyncio.Runner()
        self.store = LocalStore.at(self.root, threads=2, min_part_size=1)
        self.run(self.store.create_bucket("b", owner="o"))
        self.model: dict[str, tuple[bytes, str, Attributes]] = {}
        self.parts: dict[tuple[str, str], dict[int, bytes]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.root)

    def expect(self, info: ObjectInfo, key: str) -> None:
        data, etag, attributes = self.model[key]
        assert (info.key, info.size, info.etag, info.attributes) == (key, len(data), etag, attributes)

    @rule(key=KEYS, chunks=BODIES, attributes=ATTRIBUTES)
    def put(self, key: str, chunks: list[bytes], attributes: Attributes) -> None:
        info = self.run(self.store.put("b", key, body_of(chunks), attributes))
        data = b"".join(chunks)
        self.model[key] = (data, md5(data), attributes)
        self.expect(info, key)

    @rule(key=KEYS, chunks=BODIES, match=st.sampled_from(["none", "any", "right", "wrong"]))
    def put_if(self, key: str, chunks: list[bytes], match: str) -> None:
        there = self.model.get(key)
        etag = {"any": "*", "right": there[1] if there else "0" * 32, "wrong": "f" * 32}.get(match)
        condition = WriteCondition(if_none_match_any=match == "none", if_match=etag)
        allowed = there is None if match == "none" else there is not None and match != "wrong"
        work = self.store.put("b", key, body_of(chunks), Attributes(), condition=condition)
        if not allowed:
            with pytest.raises(PreconditionFailed if there else NoSuchKey):
                self.run(work)
            return
        self.run(work)
        data = b"".join(chunks)
        self.model[key] = (data, md5(data), Attributes())

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.run(self.store.delete("b", key)) == (self.model.pop(key, None) is not None)

    @rule(key=KEYS, attributes=ATTRIBUTES)
    def update(self, key: str, attributes: Attributes) -> None:
        if key not in self.model:
            with pytest.raises(NoSuchKey):
                self.run(self.store.update("b", key, tags=attributes.tags))
            return
        data, etag, before = self.model[key]
        self.model[key] = (data, etag, replace(before, tags=attributes.tags, acl=attributes.acl))
        self.expect(self.run(self.store.update("b", key, tags=attributes.tags, acl=attributes.acl)), key)

    @rule(key=KEYS, start=st.integers(0, 60), length=st.integers(0, 60))
    def read(self, key: str, start: int, length: int) -> None:
        if key not in self.model:
            with pytest.raises(NoSuchKey):
                self.run(self.store.open("b", key))
            return
        expected = self.model[key][0][start : start + length]
        assert self.run(self.read_range(key, start, start + length)) == expected

    async def read_range(self, key: str, start: int, stop: int) -> bytes:
        reader = await self.store.open("b", key)
        try:
            assert reader.read_at(start, stop - start) == self.model[key][0][start:stop]
            return b"".join([chunk async for chunk in reader.chunks(start, stop)])
        finally:
            reader.close()

    @rule(target=readers, key=KEYS)
    def hold(self, key: str) -> tuple[LocalReader, bytes] | None:
        if key not in self.model:
            return None
        return self.run(self.store.open("b", key)), self.model[key][0]

    @rule(held=consumes(readers))
    def let_go(self, held: tuple[LocalReader, bytes] | None) -> None:
        if held is not None:
            assert held[0].read_at(0, 1000) == held[1]
            held[0].close()

    @rule(target=uploads, key=KEYS, attributes=ATTRIBUTES)
    def create_upload(self, key: str, attributes: Attributes) -> tuple[str, str, Attributes]:
        upload = self.run(self.store.create_upload("b", key, attributes))
        self.parts[key, upload.upload_id] = {}
        return key, upload.upload_id, attributes

    @rule(upload=uploads, number=st.integers(1, 4), data=st.binary(min_size=1, max_size=40))
    def put_part(self, upload: tuple[str, str, Attributes], number: int, data: bytes) -> None:
        key, upload_id, _ = upload
        work = self.store.put_part("b", key, upload_id, number, body_of([data]))
        if (key, upload_id) not in self.parts:
            with pytest.raises(NoSuchUpload):
                self.run(work)
            return
        assert self.run(work).etag == md5(data)
        self.parts[key, upload_id][number] = data

    @rule(upload=uploads, numbers=st.sets(st.integers(1, 4), min_size=1))
    def complete(self, upload: tuple[str, str, Attributes], numbers: set[int]) -> None:
        key, upload_id, attributes = upload
        parts = self.parts.get((key, upload_id), {})
        chosen = sorted(numbers & parts.keys())
        if not chosen:
            return
        named = [(number, md5(parts[number])) for number in chosen]
        info = self.run(self.store.complete_upload("b", key, upload_id, named))
        data = b"".join(parts[number] for number in chosen)
        etag = md5(b"".join(bytes.fromhex(part) for _, part in named)) + f"-{len(named)}"
        self.model[key] = (data, etag, attributes)
        self.expect(info, key)
        assert [(part.number, part.etag) for part in info.parts] == named
        assert self.run(self.store.complete_upload("b", key, upload_id, named)).etag == etag
        del self.parts[key, upload_id]

    @rule(upload=consumes(uploads))
    def abort(self, upload: tuple[str, str, Attributes]) -> None:
        key, upload_id, _ = upload
        if self.parts.pop((key, upload_id), None) is not None:
            self.run(self.store.abort_upload("b", key, upload_id))

    @rule(
        prefix=st.text(st.sampled_from("ab/é"), max_size=2),
        delimiter=st.sampled_from(["", "/", "a", "/a"]),
        after=st.one_of(st.just(""), KEYS),
        limit=st.integers(1, 4),
    )
    def list_all(self, prefix: str, delimiter: str, after: str, limit: int) -> None:
        expected = listing_of(list(self.model), prefix, delimiter, after)
        shown: list[str] = []
        at: str | None = after
        while at is not None:
            page = self.run(self.store.list_objects("b", prefix=prefix, delimiter=delimiter, after=at, limit=limit))
            shown += sorted([info.key for info in page.objects] + list(page.prefixes), key=str.encode)
            for info in page.objects:
                self.expect(info, info.key)
            at = page.next_after
        assert shown == expected

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = LocalStore.at(self.root, threads=2, min_part_size=1)

    @invariant()
    def uploads_are_those_under_way(self) -> None:
        if not hasattr(self, "runner"):
            return
        listed = self.run(self.store.uploads("b"))
        assert {(upload.key, upload.upload_id) for upload in listed.uploads} == set(self.parts)


StoreMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreMachine = StoreMachine.TestCase
