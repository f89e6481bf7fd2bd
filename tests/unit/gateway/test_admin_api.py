"""The management REST as an ASGI app: who is let in, and what everybody else is told."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rest_client import USER, Rest, app_of

from transom.cluster.catalog import Catalog
from transom.gateway.credentials import Key
from transom.target.etl.registry import Registry
from transom.target.jobs.catalog import JobCatalog
from transom.target.store.memory import MemoryStore

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW")
BODY = b'{"plugin": "md5"}'


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    catalog = Catalog.open(tmp_path / "catalog.sqlite")
    store = MemoryStore()
    jobs = JobCatalog.open(tmp_path)
    yield Rest(app_of(catalog, store, tmp_path, jobs))
    await store.close()
    jobs.close()
    catalog.close()


@pytest.mark.parametrize("path", ["/plugins", "/etls/x", "/etls/x/start", "/nothing", "/etls/", "/", "/etls/x/y/z"])
@pytest.mark.parametrize("key", [None, USER])
async def test_no_path_and_no_method_is_answered_before_it_is_known_who_asks(
    rest: Rest, path: str, key: Key | None
) -> None:
    for method in METHODS:
        status, _, answer = await rest.as_(key)(method, path)
        assert (status, answer["code"]) == (403, "AccessDenied"), method
        assert set(answer) == {"code", "message", "request_id"}


async def test_what_is_not_there_is_told_in_the_apis_own_shape(rest: Rest) -> None:
    for path in ("/nothing", "/etls/", "/", "/etls/x/y/z"):
        for method in METHODS:
            status, _, answer = await rest(method, path)
            assert (status, answer["code"]) == (404, "NotFound")
            assert set(answer) == {"code", "message", "request_id"}
    for path, method, allowed in (
        ("/plugins", "DELETE", "GET"),
        ("/etls/x", "POST", "GET, PUT, DELETE"),
        ("/etls/x/start", "GET", "POST"),
    ):
        status, headers, answer = await rest(method, path)
        assert (status, answer["code"], headers["allow"]) == (405, "MethodNotAllowed", allowed)
        assert set(answer) == {"code", "message", "request_id"}
    assert (await rest("GET", "/plugins"))[0] == 200


async def test_a_body_with_its_md5_is_taken_and_with_anothers_refused(rest: Rest) -> None:
    right = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
    wrong = base64.b64encode(hashlib.md5(b"", usedforsecurity=False).digest()).decode()
    status, _, answer = await rest("PUT", "/etls/x", BODY, {"Content-MD5": wrong})
    assert (status, answer["code"]) == (400, "BadDigest")
    assert (await rest("GET", "/etls/x"))[0] == 404
    status, _, answer = await rest("PUT", "/etls/x", BODY, {"Content-MD5": right}, pieces=5)
    assert (status, answer["plugin"]) == (201, "md5")


async def test_a_body_is_bounded_before_it_is_read(rest: Rest) -> None:
    status, _, answer = await rest("PUT", "/etls/x", b" " * (1024 * 1024 + 1))
    assert (status, answer["code"]) == (400, "MaxMessageLengthExceeded")


async def test_what_nobody_foresaw_is_an_internal_error_and_says_no_more(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Registry) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Registry, "records", broken)
    status, _, answer = await rest("GET", "/etls")
    assert (status, answer["code"]) == (500, "InternalError")
    assert "secret" not in answer["message"]
