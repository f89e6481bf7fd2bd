"""Continuation tokens: opaque to clients, a position in a listing to us."""

from __future__ import annotations

import base64
import binascii

from transom.s3compat.errors import S3Error


def encode(after: str) -> str:
    """Return the token of the page that starts after the key or prefix `after`."""
    return base64.urlsafe_b64encode(b"1" + after.encode()).decode()


def decode(token: str) -> str:
    """Return what a token stands for; one we never gave out is refused."""
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if raw[:1] == b"1":
            return raw[1:].decode()
    except (binascii.Error, UnicodeError):
        pass
    raise S3Error(
        "InvalidArgument",
        "The continuation token provided is incorrect",
        ArgumentName="continuation-token",
        ArgumentValue=token,
    )
