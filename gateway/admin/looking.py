"""Looks at ETLs that nobody keeps a worker for: whether the program is installed here, and the service answers.

It changes nothing, and knows no catalog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from transom.cluster.records import EtlRecord
from transom.gateway.admin.context import Admin
from transom.target.etl.runtimes.command_line import lacking
from transom.target.etl.runtimes.url_health import seen_in_time
from transom.target.etl.spec import canonical_spec, from_json


def problem_of(record: EtlRecord) -> str:
    """Why an ETL that needs no start can't run on this machine, as far as can be seen; "" for nothing. Blocking."""
    if record.runtime != "command" or record.served:
        return ""
    runtime = from_json(canonical_spec(record.spec)).runtime
    return lacking(runtime.command or (), runtime.env)


async def looked_at(admin: Admin, record: EtlRecord) -> Mapping[str, str]:
    """The health of an ETL that should run, and what was seen: one of a service elsewhere may take some seconds."""
    if record.runtime == "url":
        seen = await seen_in_time(_url(record), admin.url_rules, admin.services.secret(record.name))
        return {"health": "ok" if seen.well else "unavailable", "message": seen.message}
    problem = await asyncio.to_thread(problem_of, record)
    return {"health": "failed" if problem else "ok", "message": problem}


def _url(record: EtlRecord) -> str:
    return from_json(canonical_spec(record.spec)).runtime.url or ""
