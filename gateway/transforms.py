"""GetObject and HeadObject of what is transformed: through a view, an endpoint prefix or the `etl` parameter.

Authorises the source anew on every request, cached or not, then asks for the result where it is made.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from transom.cluster.catalog import Catalog
from transom.gateway.context import Call, GatewayContext, Transforms
from transom.gateway.handlers import access
from transom.gateway.handlers.reads import check_read
from transom.gateway.views import View, find_view
from transom.s3compat.operations import GetObject, HeadObject
from transom.s3compat.reply import Reply
from transom.target.answer import Ask, answer
from transom.target.errors import EtlChanged
from transom.target.etl.plan import Plan
from transom.target.handing import Handing
from transom.target.service import Target
from transom.target.store.base import ObjectInfo

_CHANGED_PAUSES_S = (0.0, 0.05, 0.5)


@dataclass(frozen=True, slots=True)
class EmbeddedTransforms:
    """The target in this process: no hop at all."""

    target: Target
    handing: Handing

    async def answer(self, ask: Ask, source: ObjectInfo, call: Call | None, *, explicit: bool) -> Reply:
        """See Transforms."""
        if call is not None and explicit:
            scheme, until = call.request.scheme, call.identity.expires_at
            handed = await self.handing.reply(self.target, ask, source, scheme=scheme, until=until)
            if handed is not None:
                return handed
        return await answer(self.target, ask, source)

    async def close(self) -> None:
        """Nothing to let go of: the target is closed by whoever built it."""


@dataclass(frozen=True, slots=True)
class TransformReads:
    """Serves reads of transformed objects."""

    catalog: Catalog
    target: Target
    transforms: Transforms

    def wants(self, op: GetObject | HeadObject) -> bool:
        """Whether the read is of a transformed object."""
        return op.transform is not None or find_view(self.catalog, op.bucket) is not None

    async def read(self, ctx: GatewayContext, call: Call, op: GetObject | HeadObject) -> Reply:
        """Answer the read; raises S3Error, TargetError."""
        check_read(call, op)
        bucket = await access.known_bucket(ctx, op)
        source = await access.readable_source(ctx, call, bucket, op.key)
        for pause_s in _CHANGED_PAUSES_S:
            try:
                return await self._answer(call, op, source)
            except EtlChanged:  # the plan is of a revision that has gone meanwhile
                await asyncio.sleep(pause_s)
        return await self._answer(call, op, source)

    async def _answer(self, call: Call, op: GetObject | HeadObject, source: ObjectInfo) -> Reply:
        view = find_view(self.catalog, op.bucket)
        ask = Ask(
            method="HEAD" if isinstance(op, HeadObject) else "GET",
            bucket=source.bucket,
            key=source.key,
            plan=self._plan(view, op),
            headers=call.request.headers,
            part_number=op.part_number,
            overrides=tuple(("response-" + name, value) for name, value in op.response_overrides.items()),
            streams=call.request.http_version not in ("1", "1.0"),
            checksums=op.checksum_mode,
            departure=call.departure,
        )
        return await self.transforms.answer(ask, source, call, explicit=view is None)

    def _plan(self, view: View | None, op: GetObject | HeadObject) -> Plan:
        registry, asked = self.target.registry, op.transform
        plan = None if view is None else registry.plan(view.pipeline, view.args_json)
        if asked is None:
            return plan or Plan(())
        then = registry.plan(asked.pipeline, asked.args_json, asked.options)
        return then if plan is None else plan + then
