"""The answer that sends a client on to an ETL's worker: a temporary redirect, for those known to follow it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transom.s3compat.reply import Reply
from transom.target.answer import Ask
from transom.target.service import Target
from transom.target.store.base import ObjectInfo

_PORT = re.compile(r":\d+$")
_OWN_AFFAIR = ("range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


@dataclass(frozen=True, slots=True)
class Handing:
    """Which clients are sent on, and by which host name; `advertise` empty is the one that they asked for.

    `follows` judges a client by its headers.
    """

    follows: Callable[[Mapping[str, str]], bool]
    advertise: str = ""

    async def reply(
        self, target: Target, ask: Ask, source: ObjectInfo | None, *, scheme: str, until: float | None
    ) -> Reply | None:
        """Send the client to the worker; None where the target is to answer: a worker knows no ranges or conditions.

        The answer is never sent over TLS: the worker's own would not be.
        """
        if scheme != "http" or ask.method != "GET" or not target.hands_over(ask.plan) or not self._is_plain(ask):
            return None
        source = source or await target.store.head(ask.bucket, ask.key)
        door = target.door(ask.plan, source, until)
        if door is None:
            return None
        asyncio.get_running_loop().call_later(door.lasts_s, door.held.close)
        host = self.advertise or _PORT.sub("", ask.headers.get("host", ""))
        location = f"{scheme}://{host}:{door.port}{door.target}"
        return Reply(307, [("location", location), ("cache-control", "no-store")])

    def _is_plain(self, ask: Ask) -> bool:
        own = any(name in ask.headers for name in _OWN_AFFAIR)
        return not (own or ask.part_number or ask.overrides or ask.checksums) and self.follows(ask.headers)
