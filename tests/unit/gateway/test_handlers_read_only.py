"""A bucket that takes no writes: each is refused as one, whatever it would have changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from handlers_client import Client

from transom.target.store.folder import FolderStore

TAGS = b"<Tagging><TagSet/></Tagging>"


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Client]:
    """Alice, with a folder of her own as the bucket `shown`."""
    (tmp_path / "k").write_bytes(b"kept")
    store = FolderStore("shown", tmp_path, "alice")
    yield Client(store)
    await store.close()


@pytest.mark.parametrize("path", ["/shown", "/shown/k"])
async def test_even_the_acl_that_is_there_already_is_not_taken(shown: Client, path: str) -> None:
    refused = await shown("PUT", path, "acl=", headers={"x-amz-acl": "private"})
    assert (refused.status, refused.code) == (405, "MethodNotAllowed")


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("PUT", "/shown/k", "tagging=", TAGS),
        ("DELETE", "/shown/k", "tagging=", None),
        ("PUT", "/shown/k", "", b"x"),
        ("DELETE", "/shown/k", "", None),
        ("DELETE", "/shown", "", None),
        ("POST", "/shown/k", "uploads=", b""),
        ("PUT", "/shown/k", "partNumber=1&uploadId=u", b"x"),
        ("POST", "/shown/k", "uploadId=u", b"<x/>"),
        ("DELETE", "/shown/k", "uploadId=u", None),
    ],
)
async def test_writes_are_refused_unread(shown: Client, method: str, path: str, query: str, body: bytes | None) -> None:
    refused = await shown(method, path, query, body=body)
    assert (refused.status, refused.code) == (405, "MethodNotAllowed")
    assert shown.pieces_taken == 0
    assert (await shown.get("/shown/k")).body == b"kept"


async def test_no_upload_is_ever_under_way(shown: Client) -> None:
    missing = await shown.get("/shown/k", "uploadId=u")
    assert (missing.status, missing.code) == (404, "NoSuchUpload")
    assert (await shown.as_("bob").get("/shown/k", "uploadId=u")).code == "AccessDenied"
