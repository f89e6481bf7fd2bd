"""Signed worker URLs: how a target lets a client talk to a worker directly, once and not for long.

The signature is the lower-case hex HMAC-SHA256, keyed with the ETL's secret, of five netstrings
(`LENGTH:BYTES,`, so that no two requests have the same form): `transom-worker-1`, the method, the path
(`/BUCKET/KEY` as UTF-8, without percent-encoding), the text of `etl_args` (empty for none), and `transom_expires`
in decimal: seconds since the epoch.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote

_VERSION = "transom-worker-1"


def sign(secret: bytes, method: str, path: str, etl_args: str, expires: int) -> str:
    """Return the signature of one request. `path` is not percent-encoded."""
    fields = (text.encode() for text in (_VERSION, method, path, etl_args, str(expires)))
    form = b"".join(b"%d:%s," % (len(field), field) for field in fields)
    return hmac.new(secret, form, hashlib.sha256).hexdigest()


def sign_url(base: str, secret: bytes, bucket: str, key: str, *, etl_args: str = "", expires: int) -> str:
    """Return the URL with which a client may GET one object's result from the worker at `base` (`http://HOST:PORT`)."""
    path = f"/{bucket}/{key}"
    signature = sign(secret, "GET", path, etl_args, expires)
    given = f"etl_args={quote(etl_args, safe='')}&" if etl_args else ""
    return f"{base}{quote(path)}?{given}transom_expires={expires}&transom_signature={signature}"


def is_valid(secret: bytes, method: str, path: str, etl_args: str, expires: str, signature: str) -> bool:
    """Whether a signature fits its request and has not expired."""
    if not (expires.isascii() and expires.isdigit() and len(expires) <= len("9999999999")):
        return False
    due = sign(secret, method, path, etl_args, int(expires))
    return hmac.compare_digest(due.encode(), signature.encode()) and time.time() < int(expires)
