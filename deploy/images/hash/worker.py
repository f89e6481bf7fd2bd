"""The digest of an object, in hex. Which one is the ETL's argument: `etl_args=sha512` or `{"algorithm": "sha512"}`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from transom.worker import Context, Reject, Worker


class Hash(Worker):
    """A digest; the algorithm is ALGORITHM's where the request names none."""

    content_type = "text/plain"

    def start(self) -> None:
        """Read the default, once."""
        self._default = os.environ.get("ALGORITHM", "sha256")

    def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
        """Digest the pieces as they come."""
        digest = _new(_asked(context.args) or self._default)
        for chunk in chunks:
            digest.update(chunk)
        yield digest.hexdigest().encode()


def _asked(args: Any) -> Any:
    return args.get("algorithm") if isinstance(args, dict) else args


def _new(algorithm: object) -> Any:
    if algorithm not in hashlib.algorithms_guaranteed or str(algorithm).startswith("shake"):
        raise Reject(f"there is no digest {algorithm!r}")
    return hashlib.new(str(algorithm))
