"""An answer on its way out: status, headers, body. It knows nothing of the server that will send it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """One response. A streamed body that raises must leave the response visibly unfinished."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] = b""
