"""ETLs over the management REST: list, show, make, change, start, stop, restart, remove.

What is started is waited for here, but decided by `transom.target.etl.lifecycle`: should this process die, keepers
finish it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any, Literal

from starlette.requests import Request

from transom.cluster.records import BadRecord, EtlRecord, check_etl
from transom.gateway.admin.context import Admin
from transom.gateway.admin.errors import ApiError
from transom.gateway.admin.looking import problem_of
from transom.gateway.admin.models import EtlBody, EtlShown, NumbersShown, PendingShown, ServiceShown, WorkerShown
from transom.gateway.admin.spec_body import Posted, posted
from transom.gateway.context import Principal
from transom.target.errors import TargetError
from transom.target.etl.lifecycle import init_timeout_s, is_up, settle, statuses_of
from transom.target.etl.spec import Spec, record_of
from transom.target.etl.spec_load import load
from transom.target.etl.workers_status import read_statuses

_POLL_S = 0.05
_SPARE_S = 5.0  # beyond init_timeout, in which somebody must have decided


async def etls(admin: Admin, _r: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """List ETLs, the implicit ones too."""
    return 200, {"etls": await asyncio.to_thread(_all_shown, admin, admin.registry.records())}


async def etl(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Show one ETL."""
    return 200, await _shown_now(admin, find(admin, request.path_params["name"]))


async def put_etl(admin: Admin, request: Request, principal: Principal, body: EtlBody) -> tuple[int, Any]:
    """Make an ETL of an installed transformer, or change one: a new revision."""
    admin.registry.check(body.plugin, body.args)
    record = EtlRecord(name=request.path_params["name"], owner=principal.owner, **body.model_dump())
    kept, new = await asyncio.to_thread(admin.catalog.put_etl, record)
    return (201 if new else 200), await _shown_now(admin, kept)


async def init_etls(admin: Admin, request: Request, principal: Principal, body: bytes) -> tuple[int, Any]:
    """Make ETLs of a spec's text, or change them: all are checked before any is kept, and started unless stopped."""
    asked = posted(body, request.query_params)
    specs = await asyncio.to_thread(load, asked.text, overrides=asked.overrides, files=asked.files)
    records = [record_of(spec, principal.owner) for spec in specs]
    await _check_all(admin, specs, records)
    proposed = [await asyncio.to_thread(_proposed, admin, record) for record in records]
    kept = await _all_settled(admin, [record for record, _ in proposed], asked)
    current = [find(admin, record.name) for record in kept]  # beside which a new revision may be starting
    shown = await asyncio.to_thread(_all_shown, admin, current)
    return _status(kept, new=any(new for _, new in proposed)), {"etls": shown}


async def start_etl(admin: Admin, request: Request, principal: Principal, _b: bytes) -> tuple[int, Any]:
    """Let a stopped or failed ETL run again."""
    record = find(admin, request.path_params["name"])
    kept = await asyncio.to_thread(_tried, admin, await _set_state(admin, record, principal, "running"))
    return await _started(admin, request, kept)


async def stop_etl(admin: Admin, request: Request, principal: Principal, _b: bytes) -> tuple[int, Any]:
    """Refuse new runs of an ETL; those under way end as they would."""
    record = find(admin, request.path_params["name"])
    return 200, await _shown_now(admin, await _set_state(admin, record, principal, "stopped"))


async def restart_etl(admin: Admin, request: Request, principal: Principal, _b: bytes) -> tuple[int, Any]:
    """Replace an ETL's workers by fresh ones; the old serve until these do."""
    record = find(admin, request.path_params["name"])
    kept = await asyncio.to_thread(admin.catalog.restart, record.name, owner=principal.owner)
    kept = await asyncio.to_thread(_tried, admin, kept)
    return await _started(admin, request, kept)


async def remove_etl(admin: Admin, request: Request, _p: Principal, _b: bytes) -> tuple[int, Any]:
    """Forget an ETL that no view uses; its workers end."""
    name = request.path_params["name"]
    await asyncio.to_thread(admin.catalog.remove_etl, name)
    await asyncio.to_thread(admin.monitor.forget, name)
    return 204, None


def find(admin: Admin, name: str) -> EtlRecord:
    """An ETL by name, an implicit one too. Raises ApiError."""
    record = {each.name: each for each in admin.registry.records()}.get(name)
    if record is None:
        raise ApiError(404, "NotFound", f"no ETL named '{name}'")
    return record


# --- starting -----------------------------------------------------------------------------------


async def _check_all(admin: Admin, specs: Sequence[Spec], records: Sequence[EtlRecord]) -> None:
    """Raise unless all could be made, with all that is wrong: of several, each with the name of its spec."""
    wrong: list[tuple[str, Exception]] = []
    for spec, record in zip(specs, records, strict=True):
        try:
            await _check(admin, spec, record)
        except (BadRecord, TargetError) as error:
            wrong.append((record.name, error))
    if wrong and len(specs) == 1:
        raise wrong[0][1]
    if wrong:
        raise ApiError(400, "InvalidArgument", "; ".join(f"spec '{name}': {error}" for name, error in wrong))


async def _check(admin: Admin, spec: Spec, record: EtlRecord) -> None:
    """Raise unless the ETL could be made, as far as that is known without making it."""
    check_etl(record)
    if record.plugin:
        admin.registry.check(record.plugin, record.args)
    if spec.runtime.url is not None:
        await asyncio.to_thread(admin.url_rules.check, spec.runtime.url)
        admin.services.check(record)


def _proposed(admin: Admin, record: EtlRecord) -> tuple[EtlRecord, bool]:
    return admin.catalog.propose(record, problem=problem_of(record))


def _tried(admin: Admin, kept: EtlRecord) -> EtlRecord:
    """An ETL that was told to run, which fails at once where it is seen that it can't."""
    problem = problem_of(kept)
    return admin.catalog.fail(kept.name, kept.revision, problem) if problem else kept


async def _set_state(
    admin: Admin, record: EtlRecord, principal: Principal, state: Literal["running", "stopped"]
) -> EtlRecord:
    return await asyncio.to_thread(admin.catalog.put_state, record.name, state, owner=principal.owner)


async def _started(admin: Admin, request: Request, kept: EtlRecord) -> tuple[int, Any]:
    (kept,) = await _all_settled(admin, [kept], posted(b"", request.query_params))
    return _status([kept], new=False), await _shown_now(admin, kept)


async def _all_settled(admin: Admin, kept: Sequence[EtlRecord], asked: Posted) -> list[EtlRecord]:
    if not asked.wait:
        return list(kept)
    settled = await asyncio.gather(*(_settled(admin, record) for record in kept), return_exceptions=True)
    failed = [each for each in settled if isinstance(each, BaseException)]
    for each in failed:
        if not isinstance(each, ApiError) or len(failed) == 1:
            raise each
    if failed:
        raise ApiError(422, "EtlStartFailed", "; ".join(map(str, failed)))
    return [each for each in settled if isinstance(each, EtlRecord)]


async def _settled(admin: Admin, kept: EtlRecord) -> EtlRecord:
    """Wait until a revision that was told to start runs on all targets; raise ApiError with why it doesn't."""
    give_up = time.monotonic() + init_timeout_s(kept) + _SPARE_S
    while (record := await asyncio.to_thread(_progress, admin, kept)) is None:
        if time.monotonic() > give_up:
            raise ApiError(504, "EtlTimeout", f"nobody started ETL '{kept.name}' in time")
        await asyncio.sleep(_POLL_S)
    return record


def _progress(admin: Admin, kept: EtlRecord) -> EtlRecord | None:
    """The ETL once the revision in `kept` runs, None while it is starting. Raises ApiError."""
    if not kept.served:
        _check_failed(admin, kept)
        return kept
    targets = admin.targets()
    settle(admin.catalog, admin.folder, targets, kept.name)
    snapshot = admin.catalog.snapshot()
    record, pending = snapshot.etls.get(kept.name), snapshot.pending.get(kept.name)
    if pending is not None and pending.revision == kept.revision:
        return None
    if record is None:
        raise ApiError(409, "Conflict", f"ETL '{kept.name}' was removed meanwhile")
    words = record.failure_of(kept.revision)
    if words is not None:
        raise _start_failed(kept.name, words, record)
    if record.revision != kept.revision:
        raise ApiError(409, "Conflict", f"ETL '{kept.name}' was changed or stopped meanwhile")
    if record.state == "failed":
        raise _start_failed(kept.name, record.message)
    running = record.state == "running" and is_up(record, statuses_of(admin.folder, targets, record.name), targets)
    return record if running or record.state == "stopped" else None


def _check_failed(admin: Admin, kept: EtlRecord) -> None:
    """Raise ApiError for one that failed without being started."""
    if kept.state == "failed":
        current = admin.catalog.snapshot().etls.get(kept.name)
        older = current is not None and current.revision != kept.revision and current.state == "running"
        raise _start_failed(kept.name, kept.message, current if older else None)


def _start_failed(name: str, words: str, serving: EtlRecord | None = None) -> ApiError:
    goes_on = f"; revision {serving.revision} goes on serving" if serving else ""
    return ApiError(422, "EtlStartFailed", f"ETL '{name}' failed to start: {words}{goes_on}")


def _status(kept: Sequence[EtlRecord], *, new: bool) -> int:
    """202 where something is still starting."""
    starting = any(record.state == "initializing" for record in kept)
    return 202 if starting else 201 if new else 200


# --- showing ------------------------------------------------------------------------------------


async def _shown_now(admin: Admin, record: EtlRecord) -> dict[str, Any]:
    (shown,) = await asyncio.to_thread(_all_shown, admin, [record])
    return shown


def _all_shown(admin: Admin, records: Sequence[EtlRecord]) -> list[dict[str, Any]]:
    pending = admin.catalog.snapshot().pending
    numbers = admin.monitor.numbers([record.name for record in records])
    return [_shown(admin, record, pending.get(record.name), numbers[record.name]) for record in records]


def _shown(admin: Admin, record: EtlRecord, pending: EtlRecord | None, numbers: dict[str, Any]) -> dict[str, Any]:
    workers = read_statuses(admin.folder, record.name) if record.served or pending is not None else []
    own = ("args", "spec", "pending", "workers", "numbers", "service", "confinement")
    fields = {name: getattr(record, name) for name in EtlShown.model_fields if name not in own}
    return EtlShown(
        **fields,
        args=dict(record.args),
        spec=_without_code(record),
        pending=None if pending is None else PendingShown(revision=pending.revision, spec=_without_code(pending)),
        workers=[WorkerShown.model_validate(worker) for worker in workers],
        numbers=NumbersShown(**numbers),
        service=_service(admin, record) if record.runtime == "url" else None,
        confinement=admin.sandbox() if record.runtime == "command" and not record.served else "",
    ).model_dump()


def _service(admin: Admin, record: EtlRecord) -> ServiceShown:
    services = admin.services
    return ServiceShown(secret=services.secret(record.name), target_url=services.target_url(record))


def _without_code(record: EtlRecord) -> dict[str, Any]:
    """A record's spec; source code is told by its digest alone."""
    spec = dict(record.spec)
    runtime = spec.get("runtime", {})
    if "code" in runtime:
        digest = hashlib.sha256(runtime["code"].encode()).hexdigest()
        spec["runtime"] = {**runtime, "code": f"sha256:{digest}"}
    return spec
