"""A target's listener: serves transformed objects to whoever holds a signed grant, and nothing to anybody else."""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog
from starlette.types import Receive, Scope, Send

from transom.cluster.grants import Grant, GrantExpired, GrantInvalid, verify
from transom.s3compat.errors import ERROR_HEADER, S3Error, from_target, in_header, render
from transom.s3compat.reply import Reply
from transom.target.access_log import AccessLog, new_request_id
from transom.target.answer import Ask, answer
from transom.target.errors import EtlChanged, TargetError
from transom.target.etl.plan import Plan
from transom.target.handing import Handing
from transom.target.respond import ClientLeftError, Departure, UnfinishedBodyError, lifespan, respond
from transom.target.service import Target

REQUEST_ID = "x-amz-request-id"
PART_NUMBER = "x-transom-part-number"
CHECKSUM_MODE = "x-amz-checksum-mode"
NO_STREAM = "x-transom-no-stream"  # the relay's client takes no body without a length
CHANGED = "x-transom-changed"  # tells a relay to plan anew
RELAY_AGENT = "transom-relay"  # what a gateway calls itself
_XML = ("content-type", "application/xml")
_log = structlog.get_logger("transom.target")


@dataclass(slots=True)
class TargetApp:
    """The ASGI app of a target process."""

    target: Target
    secret: bytes
    target_id: str
    access_log: AccessLog
    handing: Handing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        started = time.perf_counter()
        departure = Departure(receive)
        try:
            reply, request_id = await self._reply(scope, headers, departure)
        except ClientLeftError:
            return
        reply.headers.append((REQUEST_ID, request_id))
        reply.headers.append(("x-transom-target", self.target_id))
        try:
            sent = await respond(reply, scope, departure, send)
        except UnfinishedBodyError as error:
            _log.error("unfinished", request_id=request_id, reason=str(error))
            raise
        self.access_log.request(
            started,
            request_id=request_id,
            target=self.target_id,
            method=scope["method"],
            path=scope["path"],
            status=reply.status,
            bytes=sent,
        )

    async def _reply(self, scope: Scope, headers: dict[str, str], departure: Departure) -> tuple[Reply, str]:
        """The answer, and the request's id: the gateway's where it signed one."""
        request_id = new_request_id()
        if scope["path"] == "/-/health":
            return Reply(200, [("content-type", "text/plain")], b"ok\n"), request_id
        try:
            grant = self._grant(scope)
            request_id = grant.request_id or request_id
            plan = self.target.registry.again(grant.plan)
            ask = _ask(grant, plan, scope, headers, departure)
            return await self._handed_over(ask, grant, scope) or await answer(self.target, ask), request_id
        except ClientLeftError:
            raise
        except (S3Error, TargetError) as failure:
            error = from_target(failure)
            if isinstance(failure, EtlChanged):
                error.headers[CHANGED] = "1"
        except Exception:
            _log.exception("internal error", request_id=request_id)
            error = S3Error("InternalError")
        body = render(error, resource=scope["path"], request_id=request_id)
        return Reply(error.status, [_XML, (ERROR_HEADER, in_header(error)), *error.headers.items()], body), request_id

    async def _handed_over(self, ask: Ask, grant: Grant, scope: Scope) -> Reply | None:
        """Send a client on to the worker; a relay asks for somebody who would not follow."""
        if ask.headers.get("user-agent") == RELAY_AGENT:
            return None
        return await self.handing.reply(self.target, ask, None, scheme=scope["scheme"], until=grant.expires_at)

    def _grant(self, scope: Scope) -> Grant:
        try:
            return verify(
                scope["method"],
                scope["raw_path"].decode("latin-1"),
                scope["query_string"].decode("latin-1"),
                self.secret,
                time.time(),
            )
        except GrantExpired as error:
            raise S3Error("AccessDenied", "The redirect has expired. Ask the gateway again.") from error
        except GrantInvalid as error:
            raise S3Error("AccessDenied", f"A target serves only what a gateway signed: {error}.") from error


def _ask(grant: Grant, plan: Plan, scope: Scope, headers: dict[str, str], departure: Departure) -> Ask:
    part = headers.get(PART_NUMBER)
    return Ask(
        method=grant.method,
        bucket=grant.bucket,
        key=grant.key,
        plan=plan,
        headers=headers,
        version_id=grant.version_id,
        part_number=int(part) if part and part.isdigit() else None,
        overrides=grant.overrides,
        streams=scope["http_version"] not in ("1", "1.0") and NO_STREAM not in headers,
        checksums=headers.get(CHECKSUM_MODE, "").upper() == "ENABLED",
        departure=departure,
    )
