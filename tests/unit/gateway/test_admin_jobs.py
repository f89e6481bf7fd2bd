"""Jobs over the management REST, with no desk that would run them: who may ask, what is refused, what is shown."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_client import OTHER, USER, Rest, app_of

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord, ViewRecord
from transom.target.errors import NoSuchBucket
from transom.target.jobs.catalog import JobCatalog
from transom.target.jobs.records import Counts, Outcome, Selected
from transom.target.jobs.worklist import Worklist
from transom.target.store.base import Store
from transom.target.store.folder import FolderStore
from transom.target.store.memory import MemoryStore
from transom.target.store.router import StoreRouter

Ask = Callable[..., Coroutine[Any, Any, tuple[int, Any]]]
ORDER = {"source": "s3://src/a/", "destination": "s3://dst/b", "etl": "upper"}
SORT = {"kind": "sort", "source": "s3://src", "destination": "s3://dst"}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog.open(tmp_path / "catalog.sqlite")
    yield made
    made.close()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobCatalog]:
    made = JobCatalog.open(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Buckets of admin's and other's own, and a folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    made = StoreRouter(MemoryStore(), {"photos": FolderStore("photos", folder, "admin")})
    for name, owner in (("src", "admin"), ("mine", "admin"), ("theirs", "other")):
        await made.create_bucket(name, owner=owner)
    yield made
    await made.close()


@pytest.fixture
def rest(catalog: Catalog, store: Store, tmp_path: Path, jobs: JobCatalog) -> Rest:
    return Rest(app_of(catalog, store, tmp_path, jobs))


@pytest.fixture
def ask(rest: Rest) -> Ask:
    async def call(method: str, path: str, body: object = None, *, rest: Rest = rest) -> tuple[int, Any]:
        status, _, answer = await rest(method, path, b"" if body is None else json.dumps(body).encode())
        return status, answer

    return call


async def has_bucket(store: Store, name: str) -> bool:
    try:
        await store.bucket(name)
    except NoSuchBucket:
        return False
    return True


# --- starting ---------------------------------------------------------------------------------


async def test_a_job_is_queued_as_it_was_asked_for(ask: Ask, store: Store, jobs: JobCatalog) -> None:
    status, made = await ask("POST", "/jobs", {**ORDER, "ext": {"jpg": "webp"}, "args": None, "limit": 5})
    assert (status, made["state"], made["owner"], made["total"], made["runs"]) == (202, "queued", "admin", 0, 0)
    assert made["order"] == {"kind": "transform", **ORDER, "ext": {"jpg": "webp"}, "limit": 5}
    assert made["created_s"] > 0 and made["started_s"] == made["ended_s"] == 0
    assert not await has_bucket(store, "dst")  # the job makes it, once it knows that it can be done
    (kept,) = jobs.list()
    assert (kept.id, kept.owner, kept.order.pipeline) == (made["id"], "admin", ("upper",))
    assert await ask("GET", f"/jobs/{made['id']}") == (200, made)
    _, again = await ask("POST", "/jobs", {key: value for key, value in made["order"].items()})
    listed = (await ask("GET", "/jobs"))[1]
    assert [job["id"] for job in listed["jobs"]] == [again["id"], made["id"]]  # the newest first
    assert listed["next"] is None
    page = (await ask("GET", "/jobs?limit=1"))[1]
    rest = (await ask("GET", f"/jobs?limit=1&before={page['next']}"))[1]
    assert [each["jobs"][0]["id"] for each in (page, rest)] == [again["id"], made["id"]]
    assert rest["next"] is None
    for bad in ("limit=0", "limit=1001", "before=x", f"before={2**63}"):
        assert (await ask("GET", f"/jobs?{bad}"))[0] == 400


async def test_a_job_is_shown_once_it_has_ended_or_after_the_time_that_is_waited(ask: Ask, jobs: JobCatalog) -> None:
    _, made = await ask("POST", "/jobs", ORDER)
    begun = time.monotonic()
    assert await ask("GET", f"/jobs/{made['id']}?wait_ms=50") == (200, made)
    assert time.monotonic() - begun >= 0.05
    waiting = asyncio.create_task(ask("GET", f"/jobs/{made['id']}?wait_ms=1000"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    begun = time.monotonic()
    jobs.finish(made["id"], "done")
    assert (await waiting)[1]["state"] == "done"
    assert time.monotonic() - begun < 0.5
    assert (await ask("GET", f"/jobs/{made['id']}?wait_ms=1001"))[0] == 400


async def test_keys_are_counted_and_not_shown(ask: Ask) -> None:
    keys = [f"{i:06}" for i in range(200_000)]  # more than a document of the REST may have otherwise
    status, made = await ask("POST", "/jobs", {**ORDER, "keys": keys})
    assert (status, made["keys"], "keys" in made["order"]) == (202, 200_000, False)


async def test_an_inspection_and_a_sort_are_taken(ask: Ask) -> None:
    status, inspection = await ask("POST", "/jobs", {"kind": "inspect", "source": "s3://src"})
    assert (status, inspection["order"]) == (202, {"kind": "inspect", "source": "s3://src"})
    status, sort = await ask("POST", "/jobs", {**SORT, "sorting": {"by": "shuffle", "shard_count": 3}})
    assert (status, sort["order"]["sorting"]) == (202, {"by": "shuffle", "shard_count": 3})


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"source": "src"}, 400, "InvalidArgument", "'src' is not s3://BUCKET"),
    ({"etl": ""}, 400, "InvalidArgument", "say which ETL or pipeline"),
    ({"etl": "nope"}, 400, "InvalidArgument", "no ETL named 'nope'"),
    ({"etl": "upper>>"}, 400, "InvalidArgument", "empty stage"),
    ({"args": {"x": 1}}, 400, "InvalidArgument", "x"),
    ({"etl": "stopped"}, 503, "EtlUnavailable", "is stopped"),
    ({"where": "size >"}, 400, "InvalidArgument", "where: line 1, column"),
    ({"where": "siez > 1"}, 400, "InvalidArgument", "there is no 'siez'"),
    ({"where_etl": "nope", "where": "output_size > 1"}, 400, "InvalidArgument", "no ETL named 'nope'"),
    ({"template": "s-{1..}"}, 400, "InvalidArgument", "no range of numbers"),
    ({"keys": ["a"], "template": "{1..2}"}, 400, "InvalidArgument", "give keys or a template"),
    ({"limit": 3, "sync": True}, 400, "InvalidArgument", "sync is for whole prefixes"),
    ({"limit": 0}, 400, "InvalidArgument", "limit: "),
    ({"more": 1}, 400, "InvalidArgument", "more: "),
    ({"concurrency": 65}, 400, "InvalidArgument", "the local engine does at most 64 objects at once"),
    ({"engine": "slurm"}, 400, "InvalidArgument", "engine: "),
    ({"kind": "sort"}, 400, "InvalidArgument", "'sorting' belongs to a job that sorts"),
    ({"kind": "inspect"}, 400, "InvalidArgument", "a job that inspects has no destination"),
    ({"source": "s3://none"}, 404, "NoSuchBucket", ""),
    ({"source": "s3://theirs"}, 403, "AccessDenied", "'theirs' is somebody else's"),
    (
        {"source": "s3://seen"},
        400,
        "InvalidArgument",
        "its bucket 'src' as the source, and 'upper' in",
    ),
    ({"source": "s3://src--etl--md5~upper"}, 400, "InvalidArgument", "'md5>>upper' in the pipeline"),
    ({"destination": "s3://theirs"}, 403, "AccessDenied", "somebody else's"),
    ({"destination": "s3://photos"}, 405, "MethodNotAllowed", "read-only"),
    ({"destination": "s3://seen"}, 405, "MethodNotAllowed", "is a view"),
    ({"destination": "s3://mine--etl--upper"}, 405, "MethodNotAllowed", "is a view"),
    ({"destination": "s3://No_Bucket"}, 400, "InvalidBucketName", ""),
    ({"destination": "s3://No_Bucket", "dry_run": True}, 400, "InvalidBucketName", ""),
    ({"destination": "s3://src/b"}, 400, "InvalidArgument", "force"),
]


@pytest.mark.parametrize(("change", "status", "code", "reason"), REFUSED, ids=[str(each[0]) for each in REFUSED])
async def test_what_cannot_be_done_is_refused_before_anything_is_made(
    ask: Ask,
    store: Store,
    catalog: Catalog,
    jobs: JobCatalog,
    change: dict[str, Any],
    status: int,
    code: str,
    reason: str,
) -> None:
    catalog.put_view(ViewRecord("seen", "src", ("upper",)), implicit=["upper"])
    catalog.put_etl(EtlRecord("stopped", "upper"))
    catalog.put_state("stopped", "stopped")
    got, answer = await ask("POST", "/jobs", {**ORDER, **change})
    assert (got, answer["code"]) == (status, code), answer
    assert reason in answer["message"]
    assert "Value error" not in answer["message"]
    assert not jobs.list()
    assert not await has_bucket(store, "dst")


async def test_somebody_else_takes_their_own_buckets_only(rest: Rest, ask: Ask) -> None:
    status, answer = await ask("POST", "/jobs", ORDER, rest=rest.as_(OTHER))
    assert (status, answer["code"]) == (403, "AccessDenied")
    status, made = await ask("POST", "/jobs", {**ORDER, "source": "s3://theirs"}, rest=rest.as_(OTHER))
    assert (status, made["owner"]) == (202, "other")


@pytest.mark.parametrize("key", [None, USER])
async def test_only_an_admin_runs_jobs(rest: Rest, ask: Ask, key: Any) -> None:
    for method, path in (("POST", "/jobs"), ("GET", "/jobs"), ("GET", "/jobs/1/errors"), ("DELETE", "/jobs/1")):
        status, answer = await ask(method, path, ORDER if method == "POST" else None, rest=rest.as_(key))
        assert (status, answer["code"]) == (403, "AccessDenied")


async def test_the_description_says_that_places_are_urls(ask: Ask) -> None:
    _, document = await ask("GET", "/openapi.json")
    order = document["components"]["schemas"]["Order"]
    for place in ("source", "destination"):
        assert {"type": "string"} in order["properties"][place]["anyOf"]
    taken = document["paths"]["/-/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert taken == {"$ref": "#/components/schemas/Order"}


# --- afterwards -------------------------------------------------------------------------------


async def test_a_job_that_is_not_there_is_told(ask: Ask) -> None:
    for method, path in (
        ("GET", "/jobs/no"),
        ("GET", "/jobs/no/errors"),
        ("POST", "/jobs/no/abort"),
        ("POST", "/jobs/no/retry"),
        ("DELETE", "/jobs/no"),
    ):
        status, answer = await ask(method, path)
        assert (status, answer["code"]) == (404, "NotFound"), (method, path)
        assert "'no'" in answer["message"]


async def test_a_job_that_waits_is_aborted_at_once_and_can_then_be_removed(ask: Ask) -> None:
    _, made = await ask("POST", "/jobs", ORDER)
    path = f"/jobs/{made['id']}"
    for method, then in (("DELETE", path), ("POST", path + "/retry")):
        status, answer = await ask(method, then)
        assert (status, answer["code"]) == (409, "InUse")
    status, aborted = await ask("POST", path + "/abort")
    assert (status, aborted["state"]) == (202, "aborted")
    assert aborted["ended_s"] > 0
    assert (await ask("POST", path + "/abort"))[1] == aborted
    assert await ask("DELETE", path) == (204, None)
    assert (await ask("GET", path))[0] == 404


async def test_all_errors_are_listed_page_by_page_and_tried_again(ask: Ask, jobs: JobCatalog) -> None:
    _, made = await ask("POST", "/jobs", ORDER)
    path = f"/jobs/{made['id']}"
    assert await ask("GET", path + "/errors") == (200, {"errors": [], "next": None})
    assert jobs.claim(made["id"]) is not None
    with Worklist.open(jobs.folder_of(made["id"])) as worklist:
        worklist.add(Selected(f"k{i}", 1, "e", f"d{i}") for i in range(250))
        worklist.seal()
        worklist.note(Outcome(i, "failed", 1, 0, "upper", "EtlFailed", f"no {i}") for i in range(2, 251))
    jobs.finish(made["id"], "done", Counts(total=250, failed=249))
    found: list[Any] = []
    after = 0
    for _ in range(3):
        status, page = await ask("GET", f"{path}/errors?after={after}&limit=100")
        assert status == 200
        found += page["errors"]
        after = page["next"]
    assert after is None
    assert [each["key"] for each in found] == [f"k{i}" for i in range(1, 250)]
    assert found[0] == {"key": "k1", "stage": "upper", "code": "EtlFailed", "message": "no 2"}
    for query in ("after=-1", "limit=0", "limit=10001", "limit=x", "offset=1"):
        assert (await ask("GET", f"{path}/errors?{query}"))[0] == 400, query
    status, again = await ask("POST", path + "/retry")
    assert (status, again["state"], again["failed"]) == (202, "queued", 249)
