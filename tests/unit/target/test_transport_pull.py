"""The pull listener over real sockets: who gets which object, whole or in part, and that all else looks alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from transom.target.etl.keeper.desk import PullDesk
from transom.target.etl.keeper.places import pull_offset, target_path
from transom.target.etl.locks import ByteHolds
from transom.target.etl.transports.pull import Fetch, parse
from transom.target.store.base import Attributes
from transom.target.store.memory import MemoryStore

DATA = bytes(range(256)) * 5000
KEYS = ["cat.jpg", "a b/ü%41+&?#.txt", "x//y", "deep/er/é", "/first"]


@dataclass
class Desk:
    """A desk with one bucket, and the run's side of the holds."""

    store: MemoryStore
    desk: PullDesk
    runs: ByteHolds
    client: aiohttp.ClientSession

    async def put(self, key: str, data: bytes = DATA) -> int:
        """Store an object; the offset to hold for ETL "upper" to fetch it."""

        async def body() -> AsyncIterator[bytes]:
            yield data

        info = await self.store.put("photos", key, body(), Attributes({"content-type": "image/jpeg"}))
        return pull_offset("upper", "photos", key, info.etag)

    def url(self, name: str) -> str:
        return f"{self.desk.url('upper')}/{name}"

    async def get(self, url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        from yarl import URL

        async with self.client.request(method, URL(url, encoded=True), headers=headers) as response:
            return response.status, await response.read(), dict(response.headers)


@pytest.fixture
def holds(tmp_path: Path) -> Iterator[ByteHolds]:
    made = ByteHolds(tmp_path / "pulls")
    yield made
    made.close()


@pytest.fixture
async def desk(tmp_path: Path, holds: ByteHolds) -> AsyncIterator[Desk]:
    store, runs = MemoryStore(), ByteHolds(tmp_path / "pulls")
    await store.create_bucket("photos", owner="me")
    opened = await PullDesk.open(store, holds)
    opened.admit("upper")
    opened.admit("other")
    async with aiohttp.ClientSession() as client:
        yield Desk(store, opened, runs, client)
    await opened.close()
    runs.close()


@pytest.mark.parametrize("key", KEYS)
async def test_a_worker_gets_what_a_run_holds_for_it_however_it_encodes_the_name(desk: Desk, key: str) -> None:
    offset = await desk.put(key)
    with desk.runs.holding(offset):
        for name in (quote(f"photos/{key}"), quote(f"photos/{key}", safe=""), quote(f"photos/{key}") + "?etl_args=x"):
            status, body, headers = await desk.get(desk.url(name))
            assert (status, body == DATA, headers["Content-Type"]) == (200, True, "image/jpeg")
            assert headers["Content-Length"] == str(len(DATA))
    assert (await desk.get(desk.url(quote(f"photos/{key}"))))[0] == 404  # the run is over


async def test_whatever_is_not_to_be_had_looks_the_same(desk: Desk) -> None:
    offset = await desk.put("cat.jpg")
    await desk.put("dog.jpg")
    base = desk.desk.url("upper").rpartition("/")[0]
    with desk.runs.holding(offset):
        refused = [
            await desk.get(url)
            for url in (
                desk.url("photos/dog.jpg"),  # not held
                desk.url("photos/none.jpg"),  # not there
                desk.url("nowhere/cat.jpg"),
                f"{base}/{'0' * 32}/photos/cat.jpg",  # no such secret
                f"{desk.desk.url('other')}/photos/cat.jpg",  # held for another
                desk.desk.url("upper").replace("/upper/", "/nobody/") + "/photos/cat.jpg",
                desk.url("photos"),
                desk.url(""),
            )
        ]
    assert {(status, body) for status, body, _ in refused} == {(404, refused[0][1])}


async def test_an_object_that_was_replaced_meanwhile_is_not_the_one_that_is_held(desk: Desk) -> None:
    offset = await desk.put("cat.jpg")
    with desk.runs.holding(offset):
        await desk.put("cat.jpg", b"another cat")
        assert (await desk.get(desk.url("photos/cat.jpg")))[0] == 404


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-", 206, 100, len(DATA)),
        ("bytes=-7", 206, len(DATA) - 7, len(DATA)),
        ("bytes=5-99999999", 206, 5, len(DATA)),
        ("bytes=0-", 200, 0, len(DATA)),
        ("bytes=9-5", 200, 0, len(DATA)),
        ("bytes=1-2,4-5", 200, 0, len(DATA)),
        ("lines=1-2", 200, 0, len(DATA)),
    ],
)
async def test_ranges(desk: Desk, asked: str, status: int, start: int, stop: int) -> None:
    with desk.runs.holding(await desk.put("cat.jpg")):
        got, body, headers = await desk.get(desk.url("photos/cat.jpg"), Range=asked)
    assert (got, body == DATA[start:stop]) == (status, True)
    if status == 206:
        assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"


async def test_a_range_beyond_the_end_an_empty_object_and_head(desk: Desk) -> None:
    with desk.runs.holding(await desk.put("cat.jpg")), desk.runs.holding(await desk.put("empty", b"")):
        status, _, headers = await desk.get(desk.url("photos/cat.jpg"), Range=f"bytes={len(DATA)}-")
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
        assert (await desk.get(desk.url("photos/empty")))[:2] == (200, b"")
        status, body, headers = await desk.get(desk.url("photos/cat.jpg"), "HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(DATA)))
        assert (await desk.get(desk.url("photos/cat.jpg"), "PUT"))[0] == 405


async def test_a_unix_socket_is_listened_on_too(desk: Desk, tmp_path: Path) -> None:
    site = await desk.desk.listen_at(tmp_path / "pull.sock")
    url = desk.desk.unix_url("upper", tmp_path / "pull.sock")
    assert url.startswith(f"http+unix://{quote(str(tmp_path), safe='')}")
    with desk.runs.holding(await desk.put("cat.jpg")):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "pull.sock"))) as client:
            path = "/" + url.partition("://")[2].partition("/")[2]
            async with client.get(f"http://localhost{path}/photos/cat.jpg") as response:
                assert await response.read() == DATA
    await site.stop()


@pytest.mark.parametrize(
    ("path", "fetch"),
    [
        ("/v1/etl/_object/upper/s3cret/photos/cat.jpg", Fetch("upper", "s3cret", "photos", "cat.jpg")),
        ("/v1/etl/_object/upper/s3cret/photos%2Fa%2Fb?x=y/z", Fetch("upper", "s3cret", "photos", "a/b")),
        ("/v1/etl/_object/upper/s3cret/photos/%ff", None),
        ("/v1/etl/_object/upper/s3cret/photos/", None),
        ("/v1/etl/_object/upper/s3cret", None),
        ("/v1/etl/other", None),
    ],
)
def test_paths(path: str, fetch: Fetch | None) -> None:
    assert parse(path) == fetch


async def test_a_service_elsewhere_is_known_by_the_secret_of_its_etl_for_as_long_as_that_is_one(desk: Desk) -> None:
    offset = await desk.put("cat.jpg")
    address = desk.desk.url("upper").rpartition("/v1/")[0]
    url = f"{address}{target_path('upper', 'derived')}/photos/cat.jpg"
    with desk.runs.holding(offset):
        assert (await desk.get(url))[0] == 404
        desk.desk.admit_services({"upper": "derived"})
        assert (await desk.get(url))[:2] == (200, DATA)
        assert (await desk.get(desk.url("photos/cat.jpg")))[0] == 404  # those of its workers, when it had some
        desk.desk.admit_services({})
        assert (await desk.get(url))[0] == 404
        assert (await desk.get(desk.url("photos/cat.jpg")))[0] == 200
    assert (await desk.get(url))[0] == 404
