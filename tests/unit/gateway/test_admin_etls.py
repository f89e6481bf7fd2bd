"""ETLs by their specs over the management REST: checked, started on all targets or on none, shown.

A keeper is stood in for by a task that writes the status files.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rest_client import USER, Rest, app_of

from tests.stub_workers import every_request, stub_worker
from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord
from transom.target.etl.workers_status import EtlStatus, WorkerState, WorkerStatus, write_status
from transom.target.jobs.catalog import JobCatalog
from transom.target.store.memory import MemoryStore

CAT = "name: cat\nruntime: {command: cat}\n"
SHOUT = 'name: shout\nruntime: {code: "def transform(d): return d.upper()"}\ninit_timeout: 20s\n'


@dataclass
class Keepers:
    """Says of every worker that is wanted what `outcome` says of its target, in place of the keepers of all targets."""

    catalog: Catalog
    folder: Path
    targets: tuple[str, ...]
    outcome: dict[str, tuple[WorkerState, str]] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Keepers:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            snapshot = self.catalog.snapshot()
            for table in (snapshot.etls, snapshot.pending):
                for record in table.values():
                    if record.wants_worker:
                        self._tell(record)
            await asyncio.sleep(0.01)

    def _tell(self, record: EtlRecord) -> None:
        for target in self.targets:
            state, message = self.outcome.get(target, ("running", ""))
            worker = WorkerStatus(record.revision, state, launch_ns=record.launch_ns, message=message)
            write_status(self.folder, target, EtlStatus(record.name, (worker,)))


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    made = Catalog.open(tmp_path / "catalog.sqlite")
    yield made
    made.close()


@pytest.fixture
async def rest(catalog: Catalog, tmp_path: Path) -> AsyncIterator[Rest]:
    store = MemoryStore()
    jobs = JobCatalog.open(tmp_path)
    yield Rest(app_of(catalog, store, tmp_path, jobs, ("a", "b")))
    await store.close()
    jobs.close()


@pytest.fixture
async def keepers(catalog: Catalog, tmp_path: Path) -> AsyncIterator[Keepers]:
    async with Keepers(catalog, tmp_path, ("a", "b")) as keepers:
        yield keepers


Init = Callable[..., Coroutine[Any, Any, tuple[int, Any]]]


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it didn't come to that")


@pytest.fixture
def init(rest: Rest) -> Init:
    async def post(text: str, query: str = "") -> tuple[int, Any]:
        status, _, answer = await rest("POST", "/etls" + query, text.encode())
        return status, answer

    return post


async def test_one_that_needs_no_start_is_made_at_once(init: Init, rest: Rest) -> None:
    status, answer = await init(CAT)
    assert status == 201
    (made,) = answer["etls"]
    assert (made["name"], made["runtime"], made["state"], made["revision"]) == ("cat", "command", "running", 1)
    assert made["spec"] == {"name": "cat", "runtime": {"command": ["cat"]}, "communication": "io://"}
    assert (made["owner"], made["workers"], made["pending"]) == ("admin", [], None)
    assert await init(CAT) == (200, answer)
    assert (await rest("GET", "/etls/cat"))[2] == made


async def test_a_command_without_its_program_has_failed_and_is_tried_again_when_told(
    init: Init, rest: Rest, tmp_path: Path
) -> None:
    program = tmp_path / "mine"
    spec = f"name: mine\nruntime: {{command: {program}}}\n"
    missing = f"there is no program '{program}' on this target"
    for _ in range(2):
        status, answer = await init(spec)
        assert (status, answer["code"]) == (422, "EtlStartFailed")
        assert answer["message"] == f"ETL 'mine' failed to start: {missing}"
        shown = (await rest("GET", "/etls/mine"))[2]
        assert (shown["state"], shown["message"], shown["revision"]) == ("failed", missing, 1)
    for verb in ("start", "restart"):
        status, _, answer = await rest("POST", f"/etls/mine/{verb}")
        assert (status, answer["message"]) == (422, f"ETL 'mine' failed to start: {missing}")
        status, _, answer = await rest("POST", f"/etls/mine/{verb}?wait=false")
        assert (status, answer["state"], answer["message"]) == (200, "failed", missing)
    assert (await rest("GET", "/etls/mine/health"))[2]["message"] == missing
    program.write_text("")
    for again in (rest("POST", "/etls/mine/start"), rest("POST", "/etls", spec.encode())):
        status, _, answer = await again
        assert status == 200
    assert ((await rest("GET", "/etls/mine"))[2]["state"], answer["etls"][0]["revision"]) == ("running", 1)


async def test_a_failed_command_runs_once_its_program_is_there_and_the_same_is_asked_for(
    init: Init, tmp_path: Path
) -> None:
    program = tmp_path / "mine"
    spec = f"name: mine\nruntime: {{command: {program}}}\nio: persistent\n"
    assert (await init(spec, "?wait=false"))[1]["etls"][0]["state"] == "failed"
    program.write_text("")
    status, answer = await init(spec)
    assert (status, answer["etls"][0]["state"], answer["etls"][0]["message"]) == (200, "running", "")


async def test_a_change_to_a_program_that_is_not_there_leaves_the_old_one_serving(init: Init, rest: Rest) -> None:
    await init(CAT)
    status, answer = await init(CAT.replace("command: cat", "command: nosuchprogram"))
    assert (status, answer["message"]) == (
        422,
        "ETL 'cat' failed to start: there is no program 'nosuchprogram' on this target; revision 1 goes on serving",
    )
    shown = (await rest("GET", "/etls/cat"))[2]
    assert (shown["state"], shown["revision"], shown["spec"]["runtime"]) == ("running", 1, {"command": ["cat"]})
    assert shown["message"] == "revision 2 failed: there is no program 'nosuchprogram' on this target"


async def test_health_looks_for_the_program_and_asks_the_service(init: Init, rest: Rest, tmp_path: Path) -> None:
    async def health(name: str) -> tuple[str, str]:
        status, _, answer = await rest("GET", f"/etls/{name}/health")
        assert (status, answer["workers"]) == (200, [])
        return answer["health"], answer["message"]

    program = tmp_path / "mine"
    program.write_text("")
    await init(f"name: mine\nruntime: {{command: {program}}}\n")
    assert await health("mine") == ("ok", "")
    program.unlink()
    assert await health("mine") == ("failed", f"there is no program '{program}' on this target")
    assert await health("md5") == ("ok", "")
    with stub_worker(every_request(lambda wire, _: wire.answer(b"", "500 Oops"))) as service:
        await init(f"name: far\nruntime: {{url: http://127.0.0.1:{service.address.port}}}\n")
        word, message = await health("far")
        assert (word, "answers GET /health with 500" in message) == ("unavailable", True)
        served = service.served
        await rest("POST", "/etls/far/stop")
        assert await health("far") == ("stopped", "")  # and nobody is asked
        assert service.served == served
    await rest("POST", "/etls/far/start")
    word, message = await health("far")
    assert (word, "nobody listens there" in message) == ("unavailable", True)


async def test_a_served_one_is_answered_once_it_runs_on_all_targets(init: Init, rest: Rest, keepers: Keepers) -> None:
    keepers.outcome["b"] = ("initializing", "")
    waiting = asyncio.create_task(init(SHOUT))
    await until(lambda: keepers.catalog.snapshot().etls)
    assert (await rest("GET", "/etls/shout"))[2]["state"] == "initializing"
    keepers.outcome.clear()
    status, answer = await waiting
    (made,) = answer["etls"]
    assert (status, made["state"]) == (201, "running")
    assert made["spec"]["runtime"]["code"].startswith("sha256:")
    assert [(worker["target"], worker["state"]) for worker in made["workers"]] == [("a", "running"), ("b", "running")]


async def test_one_that_fails_on_a_target_runs_on_none_and_says_why(init: Init, rest: Rest, keepers: Keepers) -> None:
    keepers.outcome["b"] = ("failed", "No module named 'torch'")
    status, answer = await init(SHOUT)
    assert (status, answer["code"]) == (422, "EtlStartFailed")
    assert answer["message"] == "ETL 'shout' failed to start: on b: No module named 'torch'"
    shown = (await rest("GET", "/etls/shout"))[2]
    assert (shown["state"], shown["message"]) == ("failed", "on b: No module named 'torch'")
    keepers.outcome.clear()
    status, _, started = await rest("POST", "/etls/shout/start")
    assert (status, started["state"], started["message"]) == (200, "running", "")


async def test_a_change_that_fails_leaves_the_old_one_serving(init: Init, rest: Rest, keepers: Keepers) -> None:
    await init(SHOUT)
    keepers.outcome["a"] = ("failed", "boom")
    status, answer = await init(SHOUT.replace("upper", "lower"))
    assert status == 422
    assert answer["message"] == "ETL 'shout' failed to start: on a: boom; revision 1 goes on serving"
    shown = (await rest("GET", "/etls/shout"))[2]
    assert (shown["state"], shown["revision"], shown["pending"]) == ("running", 1, None)
    assert shown["message"] == "revision 2 failed: on a: boom"
    keepers.outcome.clear()
    status, answer = await init(SHOUT.replace("upper", "lower"))
    assert (status, answer["etls"][0]["revision"], answer["etls"][0]["message"]) == (200, 3, "")


async def test_what_does_not_start_in_time_has_failed(init: Init, keepers: Keepers) -> None:
    keepers.outcome["b"] = ("initializing", "")
    status, answer = await init(SHOUT, "?init_timeout=200ms")
    assert (status, answer["code"]) == (422, "EtlStartFailed")
    assert answer["message"].endswith("not up on b within init_timeout, 0.2 s")


async def test_without_waiting_the_answer_tells_what_is_starting(init: Init, rest: Rest, keepers: Keepers) -> None:
    keepers.outcome["b"] = ("initializing", "")
    status, answer = await init(SHOUT, "?wait=false")
    assert (status, answer["etls"][0]["state"]) == (202, "initializing")
    keepers.outcome.clear()
    assert (await rest("POST", "/etls/shout/start"))[0] == 200  # waits for the start under way
    keepers.outcome["b"] = ("initializing", "")
    status, answer = await init(SHOUT + "cache: false\n", "?wait=false")
    (shown,) = answer["etls"]
    assert (status, shown["state"], shown["revision"]) == (202, "running", 1)
    assert (shown["pending"]["revision"], shown["pending"]["spec"]["cache"]) == (2, False)


@pytest.mark.parametrize(("verb", "said"), [("stop", "changed or stopped meanwhile"), ("", "removed meanwhile")])
async def test_whoever_waits_is_told_of_a_stop_or_a_removal(
    init: Init, rest: Rest, keepers: Keepers, verb: str, said: str
) -> None:
    await init(SHOUT)
    keepers.outcome["b"] = ("initializing", "")
    waiting = asyncio.create_task(init(SHOUT + "cache: false\n"))
    await until(lambda: keepers.catalog.snapshot().pending)
    assert (await rest("POST" if verb else "DELETE", f"/etls/shout/{verb}".rstrip("/")))[0] < 300
    status, answer = await waiting
    assert (status, answer["code"]) == (409, "Conflict")
    assert said in answer["message"]


async def test_a_restart_is_answered_once_fresh_workers_run(
    init: Init, rest: Rest, keepers: Keepers, catalog: Catalog
) -> None:
    await init(SHOUT)
    before = catalog.etl("shout").launch_ns
    status, _, shown = await rest("POST", "/etls/shout/restart")
    assert (status, shown["state"], shown["revision"]) == (200, "running", 1)
    assert catalog.etl("shout").launch_ns > before
    keepers.outcome = {target: ("failed", "no more") for target in ("a", "b")}
    status, _, answer = await rest("POST", "/etls/shout/restart")
    assert (status, answer["message"]) == (422, "ETL 'shout' failed to start: on a: no more")
    assert (await rest("POST", "/etls/md5/restart"))[0] == 200
    assert (await rest("POST", "/etls/nope/restart"))[0] == 404


async def test_stop_and_start(init: Init, rest: Rest, keepers: Keepers) -> None:
    await init(SHOUT)
    assert (await rest("POST", "/etls/shout/stop"))[2]["state"] == "stopped"
    status, answer = await init(SHOUT + "cache: false\n")
    assert (status, answer["etls"][0]["state"], answer["etls"][0]["revision"]) == (200, "stopped", 2)
    assert (await rest("POST", "/etls/shout/start"))[2]["state"] == "running"
    status, _, shown = await rest("POST", "/etls/shout/start?wait=false")
    assert (status, shown["state"]) == (200, "running")


# --- what is posted ---------------------------------------------------------------------------


async def test_all_documents_are_checked_before_any_is_kept(init: Init, catalog: Catalog) -> None:
    for wrong, said in (
        ("name: x\nruntime: {imagee: a}\n", "document 2 (x), line 5: runtime.imagee"),
        ("name: x\nruntime: {plugin: nope}\n", "there is no transformer 'nope'"),
        ("name: x\nruntime: {process: image}\nargs: {widht: 1}\n", "widht"),
        ("name: x\nruntime: {url: http://127.0.0.2}\n", "127.0.0.2, which is not public, is not allowed"),
        ("name: x\nruntime: {url: http://169.254.169.254}\n", "metadata service"),
    ):
        status, answer = await init(f"{CAT}---\n{wrong}")
        assert (status, answer["code"]) == (400, "InvalidArgument"), answer
        assert said in answer["message"]
    assert not catalog.snapshot().etls


async def test_all_that_only_the_server_can_tell_is_told_at_once_each_with_its_spec(init: Init) -> None:
    none, misspelt = "name: x\nruntime: {plugin: nope}\n", "name: y\nruntime: {plugin: image}\nargs: {widht: 1}\n"
    status, answer = await init(f"{none}---\n{CAT}---\n{misspelt}")
    assert status == 400
    assert answer["message"].startswith("spec 'x': there is no transformer 'nope'")
    assert "; spec 'y': " in answer["message"] and "widht" in answer["message"]


async def test_several_are_made_and_failures_told_together(init: Init, keepers: Keepers, catalog: Catalog) -> None:
    status, answer = await init(f"{CAT}---\n{SHOUT}---\nname: md5ish\nruntime: {{plugin: md5}}\n")
    assert status == 201
    assert [(each["name"], each["runtime"]) for each in answer["etls"]] == [
        ("cat", "command"),
        ("shout", "code"),
        ("md5ish", "plugin"),
    ]
    assert answer["etls"][2]["spec"] == {}
    keepers.outcome["a"] = ("failed", "boom")
    changed = SHOUT + "cache: false\n"
    status, answer = await init(f"{changed}---\n{changed.replace('shout', 'other')}")
    assert (status, answer["message"].count("failed to start: on a: boom")) == (422, 2)
    assert catalog.etl("other").state == "failed"


async def test_a_url_that_is_allowed_is_taken(init: Init) -> None:
    status, answer = await init("name: x\nruntime: {url: http://127.0.0.1:1}\n")
    assert (status, answer["etls"][0]["runtime"], answer["etls"][0]["state"]) == (201, "url", "running")


async def test_what_is_given_beside_comes_first_and_what_is_unknown_is_refused(init: Init) -> None:
    status, answer = await init(CAT, "?name=dog&obj_timeout=5s&wait=true")
    assert (status, answer["etls"][0]["name"], answer["etls"][0]["timeout_s"]) == (201, "dog", 5.0)
    for query, said in (
        ("?nmae=x", "no parameter 'nmae'"),
        ("?wait=maybe", "wait is true or false"),
        ("?name=A", "name"),
    ):
        status, answer = await init(CAT, query)
        assert (status, answer["code"]) == (400, "InvalidArgument")
        assert said in answer["message"]


async def test_files_go_along_in_an_envelope(init: Init, catalog: Catalog) -> None:
    text = "name: shout\nruntime: {code: shout.py, requirements: needs.txt}\n"
    files = {"shout.py": "def transform(d):\n    return d\n", "needs.txt": "regex\n"}
    status, _ = await init(json.dumps({"spec": text, "files": files}), "?wait=false")
    assert status == 202
    runtime = catalog.etl("shout").spec["runtime"]
    assert runtime == {"code": files["shout.py"], "requirements": ["regex"]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "a text holds 1 to 100 specs"),
        (b"\xff", "UTF-8"),
        (b"{", "not YAML"),
        (b'{"spec": "a: 1", "file": {}}', "send a spec, or"),
        (b'{"spec": "a: 1", "files": []}', "send a spec, or"),
        (b'{"spec": "a: 1", "files": {"a": 1}}', "each is its text"),
        (b'{"spec": {"a": 1}}', "spec: there is no such key"),
        (b"[" * 100_000, "nested more than"),
    ],
)
async def test_a_body_that_is_none_is_refused(rest: Rest, body: bytes, said: str) -> None:
    status, _, answer = await rest("POST", "/etls", body)
    assert (status, answer["code"]) == (400, "InvalidArgument")
    assert said in answer["message"]


async def test_a_spec_may_be_longer_than_other_bodies(init: Init, rest: Rest) -> None:
    text = json.dumps({"name": "big", "runtime": {"code": "#" * 1_040_000 + "\n"}})
    status, answer = await init(text, "?wait=false")
    assert (status, len(json.dumps(answer)) < 2000) == (202, True)
    status, _, answer = await rest("POST", "/etls", b" " * (4 * 1024 * 1024 + 1))
    assert (status, answer["code"]) == (400, "MaxMessageLengthExceeded")


async def test_only_an_admin_may(rest: Rest, catalog: Catalog) -> None:
    for key in (None, USER):
        for method, path in (("POST", "/etls"), ("POST", "/etls/md5/restart"), ("GET", "/etls/md5")):
            status, _, answer = await rest.as_(key)(method, path, CAT.encode() if path == "/etls" else b"")
            assert (status, answer["code"]) == (403, "AccessDenied")
    assert not catalog.snapshot().etls


async def test_whoever_runs_a_service_is_told_its_secret_and_where_it_fetches(init: Init) -> None:
    _, answer = await init("name: x\nruntime: {url: http://127.0.0.1:1}\n---\nname: cat\nruntime: {command: cat}\n")
    pushed, command = answer["etls"]
    assert (len(pushed["service"]["secret"]), pushed["service"]["target_url"], command["service"]) == (64, "", None)
    status, answer = await init("name: y\nruntime: {url: http://127.0.0.1:1}\ncommunication: hrev\n")
    assert (status, answer["code"], "pull_listen under [etl]" in answer["message"]) == (400, "InvalidArgument", True)
