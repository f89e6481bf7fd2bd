"""Who signed a request: what any of the signature schemes says, in one value. Authorisation is not decided here."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Scheme = Literal["anonymous", "v4-header", "v4-query", "v2-query"]
SecretOf = Callable[[str], str | None]

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class ChunkSigner:
    """What the chunks of a signed aws-chunked body are signed with; each signature takes in the one before."""

    key: bytes = field(repr=False)
    timestamp: str
    scope: str
    seed: str

    def chunk(self, previous: str, sha256_hex: str) -> str:
        """Return the signature of a chunk whose data has this SHA-256."""
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", previous, f"{_EMPTY_SHA256}\n{sha256_hex}")

    def trailer(self, previous: str, canonical: bytes) -> str:
        """Return the signature of the trailer, given as 'name:value' lines."""
        return self._sign("AWS4-HMAC-SHA256-TRAILER", previous, hashlib.sha256(canonical).hexdigest())

    def _sign(self, algorithm: str, previous: str, last: str) -> str:
        text = f"{algorithm}\n{self.timestamp}\n{self.scope}\n{previous}\n{last}"
        return hmac.digest(self.key, text.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed, and what the signature says of the body.

    `payload` is x-amz-content-sha256: a hex hash, UNSIGNED-PAYLOAD, STREAMING-…, or "" where nothing was said.
    `chunk` signs the chunks of a signed aws-chunked body. `expires_at` is when a presigned URL ends (epoch seconds).
    """

    access_key: str
    scheme: Scheme
    payload: str = ""
    chunk: ChunkSigner | None = None
    expires_at: float | None = None
