"""What every store must do, as test classes to subclass: give the fixture and pytest runs the rest.

    class TestMine(StoreConformance):
        @pytest.fixture
        async def store(self): ...   # yields an empty store, and closes it

It knows nothing of how a store keeps its bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace

import pytest

from transom.target import errors
from transom.target.store.base import (
    MIN_PART_SIZE,
    Attributes,
    Listing,
    ObjectInfo,
    Store,
    Whole,
    WriteCondition,
)

BUCKET = "bucket"
OWNER = "owner"
PLAIN = Attributes(owner=OWNER)
FULL = Attributes(
    content={"content-type": "text/plain", "cache-control": "no-store"},
    metadata={"colour": "grün", "empty": ""},
    tags={"a": "1", "b": "ü"},
    owner=OWNER,
    acl="public-read",
    storage_class="STANDARD_IA",
)


async def body_of(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body in the given chunks."""
    for chunk in chunks:
        yield chunk


async def failing_body(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body that breaks off after the given chunks."""
    for chunk in chunks:
        yield chunk
    raise ConnectionResetError("the client left")


async def read_all(store: Store, key: str, start: int = 0, stop: int | None = None, *, bucket: str = BUCKET) -> bytes:
    """An object's bytes as `chunks` yields them."""
    reader = await store.open(bucket, key)
    try:
        return b"".join([chunk async for chunk in reader.chunks(start, stop)])
    finally:
        reader.close()


async def put(store: Store, key: str, data: bytes = b"", attributes: Attributes = PLAIN) -> ObjectInfo:
    """Store bytes under a key of the suite's bucket."""
    return await store.put(BUCKET, key, body_of(data), attributes)


def keys(listing: Listing) -> list[str]:
    """The keys of a page."""
    return [info.key for info in listing.objects]


def md5(data: bytes) -> str:
    """The ETag of an object put whole."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def walk(store: Store, *, prefix: str = "", delimiter: str = "", limit: int = 2) -> tuple[list[str], list[str]]:
    """Keys and common prefixes of all pages."""
    found: list[str] = []
    prefixes: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await store.list_objects(BUCKET, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        assert len(page.objects) + len(page.prefixes) <= limit
        found += keys(page)
        prefixes += page.prefixes
        assert page.next_after is None or page.next_after > after
        after = page.next_after
    return found, prefixes


CONTENTS: Mapping[str, bytes] = {
    "a.txt": b"0123456789",
    "a/b/c": b"deep",
    "a/x": b"",
    "a0": b"after the slash",
    "b": b"x" * 3_000_000,
    "é": b"two bytes",
    "\uffee": b"three bytes",
    "\U0001f600": b"four bytes, above three in UTF-8 and below in UTF-16",
}


class ReadConformance:
    """Reading and listing: `stocked` is a store whose bucket `bucket` of owner `owner` holds CONTENTS, no more."""

    @pytest.fixture
    async def stocked(self) -> AsyncIterator[Store]:
        """Give this."""
        raise NotImplementedError
        yield

    async def test_head_and_open_tell_the_same(self, stocked: Store) -> None:
        """What `open` found is what `head` tells."""
        for key, data in CONTENTS.items():
            info = await stocked.head(BUCKET, key)
            reader = await stocked.open(BUCKET, key)
            reader.close()
            assert reader.info == info
            assert (info.bucket, info.key, info.size) == (BUCKET, key, len(data))
            assert info.etag
            assert '"' not in info.etag
            assert info.attributes.owner == OWNER

    async def test_every_object_reads_back_whole(self, stocked: Store) -> None:
        """Bytes are those stored."""
        for key, data in CONTENTS.items():
            assert await read_all(stocked, key) == data

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 7), (9, 10), (5, None), (0, 99), (10, None), (4, 4)])
    async def test_chunks_of_a_range(self, stocked: Store, start: int, stop: int | None) -> None:
        """A range ends at the object's end at the latest."""
        assert await read_all(stocked, "a.txt", start, stop) == b"0123456789"[start:stop]

    async def test_a_range_of_a_large_object(self, stocked: Store) -> None:
        """A range that spans several chunks has its exact length."""
        assert await read_all(stocked, "b", 1_234, 2_345_678) == b"x" * (2_345_678 - 1_234)

    async def test_read_at(self, stocked: Store) -> None:
        """Reading at an offset gives what is there, and nothing at the end."""
        reader = await stocked.open(BUCKET, "a.txt")
        try:
            assert await asyncio.to_thread(reader.read_at, 2, 3) == b"234"
            assert reader.read_at(8, 100) == b"89"
            assert reader.read_at(10, 1) == b""
            assert reader.read_at(999, 1) == b""
            assert reader.read_at(0, 0) == b""
        finally:
            reader.close()

    async def test_a_path_holds_exactly_the_bytes(self, stocked: Store) -> None:
        """Where a reader has a path, it is valid until `close`."""
        reader = await stocked.open(BUCKET, "a.txt")
        try:
            path = reader.path
            assert path is None or await asyncio.to_thread(path.read_bytes) == b"0123456789"
        finally:
            reader.close()
            reader.close()

    @pytest.mark.parametrize("key", ["none", "a", "a/", "a.txt/", "a//x", "/a.txt", "a/../a.txt", "a/./x", "a\0", ".."])
    async def test_no_such_key(self, stocked: Store, key: str) -> None:
        """A key is a name, not a path to be resolved."""
        with pytest.raises(errors.NoSuchKey):
            await stocked.head(BUCKET, key)
        with pytest.raises(errors.NoSuchKey):
            await stocked.open(BUCKET, key)

    async def test_no_such_bucket(self, stocked: Store) -> None:
        """Every read names a bucket that must be."""
        with pytest.raises(errors.NoSuchBucket):
            await stocked.bucket("other")
        with pytest.raises(errors.NoSuchBucket):
            await stocked.head("other", "a.txt")
        with pytest.raises(errors.NoSuchBucket):
            await stocked.open("other", "a.txt")
        with pytest.raises(errors.NoSuchBucket):
            await stocked.list_objects("other")
        with pytest.raises(errors.NoSuchBucket):
            await stocked.uploads("other")

    async def test_the_bucket_is_listed(self, stocked: Store) -> None:
        """Buckets come by name, with their owner."""
        assert BUCKET in [bucket.name for bucket in await stocked.buckets()]
        assert (await stocked.bucket(BUCKET)).owner == OWNER

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    async def test_lists_in_utf8_order(self, stocked: Store, limit: int) -> None:
        """The pages together are all keys, in the order of their bytes."""
        found, prefixes = await walk(stocked, limit=limit)
        assert found == sorted(CONTENTS, key=str.encode)
        assert not prefixes

    async def test_a_listing_tells_what_head_tells(self, stocked: Store) -> None:
        """Size, ETag, time and attributes of a listed object are the object's."""
        for info in (await stocked.list_objects(BUCKET)).objects:
            assert info == await stocked.head(BUCKET, info.key)

    @pytest.mark.parametrize("limit", [1, 2, 1000])
    async def test_rolls_up_at_a_delimiter(self, stocked: Store, limit: int) -> None:
        """Keys with the delimiter past the prefix show as one common prefix."""
        found, prefixes = await walk(stocked, delimiter="/", limit=limit)
        assert prefixes == ["a/"]
        assert found == ["a.txt", "a0", "b", "é", "\uffee", "\U0001f600"]
        assert await walk(stocked, prefix="a/", delimiter="/", limit=limit) == (["a/x"], ["a/b/"])
        assert await walk(stocked, prefix="a/b", delimiter="/", limit=limit) == ([], ["a/b/"])

    async def test_any_string_is_a_delimiter(self, stocked: Store) -> None:
        """A delimiter need not be a slash, nor one character."""
        assert (await walk(stocked, delimiter=".t"))[1] == ["a.t"]
        assert (await walk(stocked, prefix="a/", delimiter="b/c"))[1] == ["a/b/c"]
        assert (await walk(stocked, delimiter="a"))[1] == ["a"]

    async def test_prefix(self, stocked: Store) -> None:
        """A prefix need not end where a name does."""
        assert (await walk(stocked, prefix="a"))[0] == ["a.txt", "a/b/c", "a/x", "a0"]
        assert (await walk(stocked, prefix="a/x"))[0] == ["a/x"]
        assert (await walk(stocked, prefix="a/xy"))[0] == []
        assert (await walk(stocked, prefix="\U0001f600"))[0] == ["\U0001f600"]

    async def test_after(self, stocked: Store) -> None:
        """A page begins above `after`, whether that is a key, before the prefix, or past everything."""
        assert keys(await stocked.list_objects(BUCKET, after="a/b/c", limit=2)) == ["a/x", "a0"]
        assert keys(await stocked.list_objects(BUCKET, after="a/b/zzz", limit=1)) == ["a/x"]
        assert keys(await stocked.list_objects(BUCKET, prefix="a/", after="A")) == ["a/b/c", "a/x"]
        assert keys(await stocked.list_objects(BUCKET, prefix="a/", after="b")) == []
        assert keys(await stocked.list_objects(BUCKET, after="\U0001f600")) == []

    @pytest.mark.parametrize("after", ["a/", "a/b", "a/zzz"])
    async def test_a_common_prefix_that_after_lies_in_is_past(self, stocked: Store, after: str) -> None:
        """A page that ended with a common prefix goes on behind it."""
        page = await stocked.list_objects(BUCKET, delimiter="/", after=after)
        assert (keys(page)[0], page.prefixes) == ("a0", [])

    async def test_a_limit_of_nothing(self, stocked: Store) -> None:
        """A page of no entries does not go on."""
        page = await stocked.list_objects(BUCKET, limit=0)
        assert (page.objects, page.prefixes, page.next_after) == ([], [], None)

    async def test_a_page_that_just_fits_is_the_last(self, stocked: Store) -> None:
        """There is a next page only if it has something to show."""
        assert (await stocked.list_objects(BUCKET, limit=len(CONTENTS))).next_after is None
        assert (await stocked.list_objects(BUCKET, prefix="a/", delimiter="/", limit=2)).next_after is None


class Tally:
    """An intake that keeps what it was shown."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.seen = b""
        self.told: tuple[int, str] | None = None
        self._refusal = refusal

    def update(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.seen += chunk

    def finish(self, size: int, md5_hex: str) -> Mapping[str, str]:
        """Judge the body."""
        self.told = (size, md5_hex)
        if self._refusal is not None:
            raise self._refusal
        return {"CRC32": "AAAAAA=="}


class StoreConformance(ReadConformance):
    """Everything: `store` is an empty store."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """Give this."""
        raise NotImplementedError
        yield

    @pytest.fixture
    async def filled(self, store: Store) -> Store:
        """An empty store with an empty bucket."""
        await store.create_bucket(BUCKET, owner=OWNER)
        return store

    @pytest.fixture
    async def stocked(self, filled: Store) -> Store:
        """CONTENTS, put in an order that is not the keys'."""
        for key in sorted(CONTENTS, key=lambda key: md5(key.encode())):
            await put(filled, key, CONTENTS[key])
        return filled

    # --- buckets ------------------------------------------------------------------------------

    async def test_buckets_come_and_go(self, store: Store) -> None:
        """A bucket is there from its creation to its deletion."""
        made = await store.create_bucket("two", owner="o2", acl="public-read")
        await store.create_bucket("one", owner="o1")
        assert await store.bucket("two") == made
        assert [(b.name, b.owner, b.acl, b.read_only) for b in await store.buckets()] == [
            ("one", "o1", "private", False),
            ("two", "o2", "public-read", False),
        ]
        await store.delete_bucket("two")
        with pytest.raises(errors.NoSuchBucket):
            await store.bucket("two")
        with pytest.raises(errors.NoSuchBucket):
            await store.delete_bucket("two")

    async def test_a_bucket_exists_once(self, store: Store) -> None:
        """The refusal names the owner."""
        await store.create_bucket("one", owner="o1")
        with pytest.raises(errors.BucketExists) as refusal:
            await store.create_bucket("one", owner="o2")
        assert refusal.value.owner == "o1"

    async def test_a_bucket_with_objects_stays(self, filled: Store) -> None:
        """Only an empty bucket is deleted; uploads under way don't hold it, and don't come back with its name."""
        upload = await filled.create_upload(BUCKET, "k", PLAIN)
        await filled.put_part(BUCKET, "k", upload.upload_id, 1, body_of(b"x"))
        await put(filled, "k")
        with pytest.raises(errors.BucketNotEmpty):
            await filled.delete_bucket(BUCKET)
        await filled.delete(BUCKET, "k")
        await filled.delete_bucket(BUCKET)
        await filled.create_bucket(BUCKET, owner=OWNER)
        with pytest.raises(errors.NoSuchUpload):
            await filled.upload(BUCKET, "k", upload.upload_id)

    async def test_bucket_acl(self, filled: Store) -> None:
        """An ACL is kept by name."""
        await filled.set_bucket_acl(BUCKET, "public-read")
        assert (await filled.bucket(BUCKET)).acl == "public-read"
        with pytest.raises(errors.NoSuchBucket):
            await filled.set_bucket_acl("other", "private")

    async def test_writes_need_a_bucket(self, store: Store) -> None:
        """No write makes a bucket."""
        with pytest.raises(errors.NoSuchBucket):
            await put(store, "k")
        with pytest.raises(errors.NoSuchBucket):
            await store.delete(BUCKET, "k")
        with pytest.raises(errors.NoSuchBucket):
            await store.update(BUCKET, "k", tags={})
        with pytest.raises(errors.NoSuchBucket):
            await store.create_upload(BUCKET, "k", PLAIN)

    # --- objects ------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 4096, 1024 * 1024, 1024 * 1024 + 1, 5_000_000])
    async def test_put_of_any_size(self, filled: Store, size: int) -> None:
        """The ETag is the MD5, and what `put` returns is what `head` tells."""
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        made = await filled.put(BUCKET, "k", body_of(data[: size // 3], b"", data[size // 3 :]), FULL)
        assert (made.size, made.etag) == (size, md5(data))
        assert made == await filled.head(BUCKET, "k")
        assert made.attributes == FULL
        assert made.content_type == "text/plain"
        assert await read_all(filled, "k") == data

    @pytest.mark.parametrize("key", ["/", "//", "a//b", "dir/", " ", "\n", "\0x", "+%20", "..", "é" * 512])
    async def test_any_key(self, filled: Store, key: str) -> None:
        """A key is any string."""
        await put(filled, key, b"x")
        assert (await filled.head(BUCKET, key)).key == key
        assert keys(await filled.list_objects(BUCKET)) == [key]

    async def test_put_replaces(self, filled: Store) -> None:
        """The last one stays, with nothing of the one before."""
        await put(filled, "k", b"old", FULL)
        await put(filled, "k", b"newer")
        info = await filled.head(BUCKET, "k")
        assert (info.size, info.attributes) == (5, PLAIN)
        assert len((await filled.list_objects(BUCKET)).objects) == 1

    async def test_a_reader_keeps_its_version(self, filled: Store) -> None:
        """Neither replacing nor deleting the key changes what an open reader reads."""
        data = b"first" * 500_000
        await put(filled, "k", data)
        first = await filled.open(BUCKET, "k")
        await put(filled, "k", b"second")
        second = await filled.open(BUCKET, "k")
        await filled.delete(BUCKET, "k")
        try:
            assert b"".join([chunk async for chunk in first.chunks()]) == data
            assert second.read_at(0, 100) == b"second"
        finally:
            first.close()
            second.close()

    async def test_a_body_that_breaks_leaves_nothing(self, filled: Store) -> None:
        """What was there stays as it was."""
        await put(filled, "k", b"there")
        for size in (0, 100, 3_000_000):
            with pytest.raises(ConnectionResetError):
                await filled.put(BUCKET, "k", failing_body(b"x" * size), PLAIN)
            with pytest.raises(ConnectionResetError):
                await filled.put(BUCKET, "new", failing_body(b"x" * size, b"y" * size), PLAIN)
        assert await read_all(filled, "k") == b"there"
        assert keys(await filled.list_objects(BUCKET)) == ["k"]

    async def test_an_intake_sees_all_and_may_refuse(self, filled: Store) -> None:
        """Its checksums are kept; its refusal leaves nothing."""
        tally = Tally()
        data = b"z" * 2_500_000
        await filled.put(BUCKET, "k", body_of(data[:1_000_000], data[1_000_000:]), PLAIN, intake=tally)
        assert (tally.seen, tally.told) == (data, (len(data), md5(data)))
        info = await filled.head(BUCKET, "k")
        assert (info.checksums, info.checksum_type) == ({"CRC32": "AAAAAA=="}, "FULL_OBJECT")
        with pytest.raises(ValueError, match="no good"):
            await filled.put(BUCKET, "k2", body_of(b"x"), PLAIN, intake=Tally(ValueError("no good")))
        assert keys(await filled.list_objects(BUCKET)) == ["k"]

    async def test_a_cancelled_put_leaves_nothing(self, filled: Store) -> None:
        """A client that goes away mid-way has stored nothing."""
        reached = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"x" * 1_500_000
            yield b"x"
            reached.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(filled.put(BUCKET, "k", endless(), PLAIN))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert keys(await filled.list_objects(BUCKET)) == []

    async def test_update_changes_tags_and_acl_only(self, filled: Store) -> None:
        """Bytes, ETag, time, checksums and the other attributes stay."""
        before = await filled.put(BUCKET, "k", body_of(b"data"), PLAIN, intake=Tally())
        await filled.update(BUCKET, "k", tags=FULL.tags)
        after = await filled.update(BUCKET, "k", acl="public-read")
        assert after == await filled.head(BUCKET, "k")
        assert after.attributes == replace(PLAIN, tags=FULL.tags, acl="public-read")
        assert (after.size, after.etag, after.modified_ns, after.checksums) == (
            *(before.size, before.etag, before.modified_ns, before.checksums),
        )
        assert await read_all(filled, "k") == b"data"
        with pytest.raises(errors.NoSuchKey):
            await filled.update(BUCKET, "other", tags={})

    async def test_delete(self, filled: Store) -> None:
        """Deleting tells whether there was one."""
        await put(filled, "k")
        assert await filled.delete(BUCKET, "k") is True
        assert await filled.delete(BUCKET, "k") is False
        with pytest.raises(errors.NoSuchKey):
            await filled.head(BUCKET, "k")

    async def test_times_do_not_go_back(self, filled: Store) -> None:
        """A later version is not older."""
        first = await put(filled, "k", b"1")
        second = await put(filled, "k", b"2")
        assert second.modified_ns >= first.modified_ns > 10**18

    # --- conditions ---------------------------------------------------------------------------

    async def test_put_if_none_match(self, filled: Store) -> None:
        """Only the first gets in."""
        condition = WriteCondition(if_none_match_any=True)
        await filled.put(BUCKET, "k", body_of(b"first"), PLAIN, condition=condition)
        with pytest.raises(errors.PreconditionFailed) as refusal:
            await filled.put(BUCKET, "k", body_of(b"second"), PLAIN, condition=condition)
        assert refusal.value.condition == "If-None-Match"
        assert await read_all(filled, "k") == b"first"

    async def test_put_if_match(self, filled: Store) -> None:
        """Only over the version named, or over any."""
        with pytest.raises(errors.NoSuchKey):
            await filled.put(BUCKET, "k", body_of(b"x"), PLAIN, condition=WriteCondition(if_match="*"))
        first = await put(filled, "k", b"first")
        second = await filled.put(BUCKET, "k", body_of(b"second"), PLAIN, condition=WriteCondition(if_match=first.etag))
        with pytest.raises(errors.PreconditionFailed) as refusal:
            await filled.put(BUCKET, "k", body_of(b"third"), PLAIN, condition=WriteCondition(if_match=first.etag))
        assert refusal.value.condition == "If-Match"
        assert (await filled.head(BUCKET, "k")).etag == second.etag
        await filled.put(BUCKET, "k", body_of(b"fourth"), PLAIN, condition=WriteCondition(if_match="*"))

    async def test_delete_if_match(self, filled: Store) -> None:
        """Only the version named goes."""
        info = await put(filled, "k", b"x")
        with pytest.raises(errors.PreconditionFailed):
            await filled.delete(BUCKET, "k", condition=WriteCondition(if_match="0" * 32))
        assert await filled.delete(BUCKET, "k", condition=WriteCondition(if_match=info.etag)) is True
        with pytest.raises(errors.NoSuchKey):
            await filled.delete(BUCKET, "k", condition=WriteCondition(if_match=info.etag))

    async def test_of_many_conditional_puts_one_wins(self, filled: Store) -> None:
        """The condition and the write are one step."""

        async def attempt(number: int) -> str | None:
            condition = WriteCondition(if_none_match_any=True)
            try:
                info = await filled.put(BUCKET, "k", body_of(b"%d" % number), PLAIN, condition=condition)
            except errors.PreconditionFailed:
                return None
            return info.etag

        won = [etag for etag in await asyncio.gather(*map(attempt, range(20))) if etag is not None]
        assert won == [(await filled.head(BUCKET, "k")).etag]

    async def test_concurrent_puts_of_many_keys(self, filled: Store) -> None:
        """All of them are there."""
        names = [f"k{number:03}" for number in range(100)]
        await asyncio.gather(*(put(filled, name, name.encode() * 100) for name in names))
        assert keys(await filled.list_objects(BUCKET)) == names
        for name in names:
            assert await read_all(filled, name) == name.encode() * 100

    # --- many at once ---------------------------------------------------------------------------

    async def test_many_put_together_are_as_if_put_alone(self, filled: Store) -> None:
        """Each has its own bytes, ETag and attributes, and comes back in its place."""
        wholes = [Whole(key, data, FULL if data else PLAIN) for key, data in CONTENTS.items()]
        stored = await filled.put_many(BUCKET, wholes)
        for whole, info in zip(wholes, stored, strict=True):
            assert isinstance(info, ObjectInfo)
            assert (info.key, info.size, info.etag) == (whole.key, len(whole.data), md5(whole.data))
            assert info == await filled.head(BUCKET, whole.key)
            assert info.attributes == whole.attributes
            assert await read_all(filled, whole.key) == whole.data
        listed, _ = await walk(filled)
        assert listed == sorted(CONTENTS, key=str.encode)

    async def test_many_put_together_replace_what_was_there(self, filled: Store) -> None:
        """Also objects made of parts; of two with one key the later stays."""
        upload = await filled.create_upload(BUCKET, "parts", FULL)
        part = await filled.put_part(BUCKET, "parts", upload.upload_id, 1, body_of(b"old"))
        await filled.complete_upload(BUCKET, "parts", upload.upload_id, [(1, part.etag)])
        await put(filled, "whole", b"old", FULL)
        reader = await filled.open(BUCKET, "whole")
        try:
            wholes = [Whole("parts", b"1", PLAIN), Whole("whole", b"2", PLAIN), Whole("parts", b"3", PLAIN)]
            assert all(isinstance(info, ObjectInfo) for info in await filled.put_many(BUCKET, wholes))
            assert reader.read_at(0, 10) == b"old"
        finally:
            reader.close()
        assert (await read_all(filled, "parts"), await read_all(filled, "whole")) == (b"3", b"2")
        replaced = await filled.head(BUCKET, "parts")
        assert (replaced.attributes, replaced.etag, list(replaced.parts)) == (PLAIN, md5(b"3"), [])

    async def test_many_in_no_bucket_and_none_at_all(self, filled: Store) -> None:
        """A bucket that isn't there refuses all of them."""
        assert list(await filled.put_many(BUCKET, [])) == []
        with pytest.raises(errors.NoSuchBucket):
            await filled.put_many("other", [Whole("k", b"data", PLAIN)])

    # --- multipart ----------------------------------------------------------------------------

    async def _upload(self, store: Store, parts: Iterable[tuple[int, bytes]], key: str = "k") -> tuple[str, Pairs]:
        upload = await store.create_upload(BUCKET, key, FULL)
        named = []
        for number, data in parts:
            part = await store.put_part(BUCKET, key, upload.upload_id, number, body_of(data), intake=Tally())
            assert (part.number, part.size, part.etag) == (number, len(data), md5(data))
            named.append((number, part.etag))
        return upload.upload_id, named

    async def test_multipart(self, filled: Store) -> None:
        """An object of parts reads as one, ranges across its seams too."""
        first, last = b"1" * MIN_PART_SIZE, b"2" * 1000
        upload_id, named = await self._upload(filled, [(7, last), (2, first)])
        assert keys(await filled.list_objects(BUCKET)) == []
        named.sort()
        made = await filled.complete_upload(
            BUCKET, "k", upload_id, named, checksums={"CRC32": "x-2"}, checksum_type="COMPOSITE"
        )
        etag = hashlib.md5(bytes.fromhex(md5(first) + md5(last)), usedforsecurity=False).hexdigest()
        assert (made.size, made.etag) == (len(first) + len(last), f"{etag}-2")
        assert (made.checksums, made.checksum_type) == ({"CRC32": "x-2"}, "COMPOSITE")
        head = await filled.head(BUCKET, "k")
        assert (head.etag, head.attributes, head.checksum_type) == (made.etag, FULL, "COMPOSITE")
        assert [(part.number, part.size, part.etag) for part in head.parts] == [
            (2, len(first), md5(first)),
            (7, len(last), md5(last)),
        ]
        assert head.parts[-1].checksums == {"CRC32": "AAAAAA=="}
        assert await read_all(filled, "k") == first + last
        seam = len(first)
        assert await read_all(filled, "k", seam - 3, seam + 3) == b"111222"
        reader = await filled.open(BUCKET, "k")
        assert reader.read_at(seam - 2, 4) == b"1122"
        assert reader.read_at(head.size - 1, 100) == b"2"
        reader.close()

    async def test_many_small_parts_are_refused(self, filled: Store) -> None:
        """All parts but the last have a minimum size; the upload stays."""
        upload_id, named = await self._upload(filled, [(1, b"small"), (2, b"last")])
        with pytest.raises(errors.EntityTooSmall):
            await filled.complete_upload(BUCKET, "k", upload_id, named)
        assert len(await filled.parts(BUCKET, "k", upload_id)) == 2  # noqa: PLR2004 - those put above

    async def test_completions_that_do_not_fit(self, filled: Store) -> None:
        """Parts must be there, as named, and in order."""
        upload_id, named = await self._upload(filled, [(1, b"one"), (2, b"two")])
        wrong: Sequence[tuple[type[Exception], Pairs]] = [
            (errors.InvalidPart, []),
            (errors.InvalidPart, [(3, named[0][1])]),
            (errors.InvalidPart, [(1, "0" * 32)]),
            (errors.InvalidPartOrder, [named[1], named[0]]),
            (errors.InvalidPartOrder, [named[0], named[0]]),
        ]
        for kind, parts in wrong:
            with pytest.raises(kind):
                await filled.complete_upload(BUCKET, "k", upload_id, parts)
        assert keys(await filled.list_objects(BUCKET)) == []

    async def test_parts_are_replaced_and_left_out(self, filled: Store) -> None:
        """The last upload of a number counts; parts not named are dropped."""
        upload_id, _ = await self._upload(filled, [(1, b"old"), (2, b"unused")])
        part = await filled.put_part(BUCKET, "k", upload_id, 1, body_of(b"new"))
        await filled.complete_upload(BUCKET, "k", upload_id, [(1, part.etag)])
        assert await read_all(filled, "k") == b"new"
        assert [part.number for part in (await filled.head(BUCKET, "k")).parts] == [1]

    async def test_completing_twice(self, filled: Store) -> None:
        """A client that missed the answer gets it again; another list of parts is another matter."""
        upload_id, named = await self._upload(filled, [(1, b"one")])
        made = await filled.complete_upload(BUCKET, "k", upload_id, named)
        again = await filled.complete_upload(BUCKET, "k", upload_id, named)
        assert (again.etag, again.size, again.modified_ns) == (made.etag, made.size, made.modified_ns)
        with pytest.raises(errors.NoSuchUpload):
            await filled.complete_upload(BUCKET, "k", upload_id, [(1, "0" * 32)])
        with pytest.raises(errors.NoSuchUpload):
            await filled.put_part(BUCKET, "k", upload_id, 1, body_of(b"late"))

    async def test_conditional_completion(self, filled: Store) -> None:
        """A condition is that of any write, and a refusal leaves the upload as it was."""
        upload_id, named = await self._upload(filled, [(1, b"one")])
        await put(filled, "k", b"there")
        with pytest.raises(errors.PreconditionFailed):
            await filled.complete_upload(
                BUCKET, "k", upload_id, named, condition=WriteCondition(if_none_match_any=True)
            )
        assert await read_all(filled, "k") == b"there"
        await filled.complete_upload(BUCKET, "k", upload_id, named, condition=WriteCondition(if_match=md5(b"there")))
        assert await read_all(filled, "k") == b"one"

    async def test_abort(self, filled: Store) -> None:
        """Nothing of an aborted upload stays."""
        upload_id, named = await self._upload(filled, [(1, b"one")])
        await filled.abort_upload(BUCKET, "k", upload_id)
        with pytest.raises(errors.NoSuchUpload):
            await filled.abort_upload(BUCKET, "k", upload_id)
        with pytest.raises(errors.NoSuchUpload):
            await filled.complete_upload(BUCKET, "k", upload_id, named)
        with pytest.raises(errors.NoSuchUpload):
            await filled.parts(BUCKET, "k", upload_id)
        assert not (await filled.uploads(BUCKET)).uploads

    async def test_an_upload_is_named_by_its_key_too(self, filled: Store) -> None:
        """An id under another key is no upload; what it was begun with is kept."""
        upload = await filled.create_upload(BUCKET, "k", FULL, checksum_algorithm="CRC32C", checksum_type="FULL_OBJECT")
        assert await filled.upload(BUCKET, "k", upload.upload_id) == upload
        assert (upload.checksum_algorithm, upload.checksum_type) == ("CRC32C", "FULL_OBJECT")
        assert upload.attributes == FULL
        for key, upload_id in (("other", upload.upload_id), ("k", "other")):
            with pytest.raises(errors.NoSuchUpload):
                await filled.upload(BUCKET, key, upload_id)
            with pytest.raises(errors.NoSuchUpload):
                await filled.put_part(BUCKET, key, upload_id, 1, body_of(b"x"))

    async def test_parts_are_paged(self, filled: Store) -> None:
        """Parts come by number."""
        upload_id, _ = await self._upload(filled, [(number, b"x") for number in (5, 1, 9, 3)])
        page = await filled.parts(BUCKET, "k", upload_id, limit=2)
        assert [part.number for part in page] == [1, 3]
        rest = await filled.parts(BUCKET, "k", upload_id, after=3)
        assert [part.number for part in rest] == [5, 9]
        assert rest[0].checksums == {"CRC32": "AAAAAA=="}

    async def test_uploads_are_listed(self, filled: Store) -> None:
        """By key and then by age, page by page, rolled up as keys are."""
        names = ["a/1", "a/2", "b", "b", "b", "c"]
        ids = [(await filled.create_upload(BUCKET, name, PLAIN)).upload_id for name in names]
        expected = list(zip(names, ids, strict=True))
        found: Pairs2 = []
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = await filled.uploads(BUCKET, after=after, limit=2)
            found += [(upload.key, upload.upload_id) for upload in page.uploads]
            after = page.next_after
        assert found == expected
        rolled = await filled.uploads(BUCKET, delimiter="/")
        assert rolled.prefixes == ["a/"]
        assert [upload.key for upload in rolled.uploads] == ["b", "b", "b", "c"]
        assert [u.key for u in (await filled.uploads(BUCKET, prefix="a/")).uploads] == ["a/1", "a/2"]
        assert [u.key for u in (await filled.uploads(BUCKET, after=("b", ""))).uploads] == ["c"]
        assert [u.key for u in (await filled.uploads(BUCKET, after=("b", ids[2]))).uploads] == ["b", "b", "c"]
        first = await filled.uploads(BUCKET, delimiter="/", limit=1)
        assert first.next_after is not None
        following = await filled.uploads(BUCKET, delimiter="/", after=first.next_after, limit=1)
        assert (following.prefixes, [u.upload_id for u in following.uploads]) == ([], [ids[2]])


Pairs = list[tuple[int, str]]
Pairs2 = list[tuple[str, str]]
