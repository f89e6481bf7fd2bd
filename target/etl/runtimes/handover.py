"""Hands a client over to the worker itself, where an ETL's spec asks for that: a signed way to one object's result.

The result is then the worker's affair: no cache, no ranges, no ETag. It knows nothing of HTTP's answers.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from transom.target.etl.plan import Plan, Stage
from transom.target.etl.runtimes.served import ServedRuntime, is_served
from transom.target.etl.runtimes.services import secret_of
from transom.target.etl.spec import from_json
from transom.target.etl.stand_in import args_text
from transom.target.store.base import ObjectInfo
from transom.worker.signing import sign_url

LIFETIME_S = 60.0
_DOTS = (".", "..")  # parts of a path that clients resolve on their way


@dataclass(frozen=True, slots=True)
class Door:
    """A worker's way in for one client: the port where it listens, and the signed path and query to ask for.

    `held` is what the worker needs meanwhile; let go of it after `lasts_s` seconds.
    """

    port: int
    target: str
    lasts_s: float
    held: ExitStack


@dataclass(frozen=True, slots=True)
class Handover:
    """Opens doors. `master` is the secret that those of ETLs are derived from."""

    served: ServedRuntime
    master: bytes

    def wanted(self, plan: Plan) -> bool:
        """Whether a plan's only stage is to be left to the worker and its client."""
        return len(plan.stages) == 1 and _is_handed_over(plan.stages[0])

    def door(self, plan: Plan, source: ObjectInfo, until: float | None) -> Door | None:
        """Open one for an object, no longer than `until` in epoch seconds; None where there is no such worker now."""
        (stage,) = plan.stages
        port = self.served.public_port(stage)
        now = time.time()
        expires = int(min(now + LIFETIME_S, until if until is not None else float("inf")))
        if not port or expires <= now or any(part in _DOTS for part in source.key.split("/")):
            return None
        secret = secret_of(self.master, stage.etl).encode()
        target = sign_url("", secret, source.bucket, source.key, etl_args=args_text(stage.args), expires=expires)
        return Door(port, target, expires - now, self.served.lend(stage, source))


def _is_handed_over(stage: Stage) -> bool:
    return is_served(stage) and from_json(stage.spec).redirect == "worker"
