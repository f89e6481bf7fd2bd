"""Signed redirects: a URL by which a client may fetch one transformed object from a target, for a minute at most.

A grant says what may be read and by whose leave; the range and the conditions are the client's. How the plan
reads inside is the gateway's and the target's affair: here it is an opaque string.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

MAX_LIFETIME_S = 60
LIFETIME_S = 50  # what `expiry` gives: the rest is for clocks that differ
SECRET_BYTES = 32
MAX_QUERY_CHARS = 64 * 1024

_METHODS = frozenset({"GET", "HEAD"})
_PLAN, _EXPIRES, _PRINCIPAL, _SIGNATURE = "t-plan", "t-exp", "t-principal", "t-sig"
_VERSION, _REQUEST = "versionId", "t-request"
_REQUIRED = frozenset({_PLAN, _EXPIRES, _PRINCIPAL, _SIGNATURE})
_OVERRIDE_PREFIX = "response-"
_TAG = b"transom grant 1"


class GrantError(Exception):
    """A grant that gives nothing."""


class GrantInvalid(GrantError):
    """No grant, a damaged one, one for something else, or one that lives too long."""


class GrantExpired(GrantError):
    """A true grant, too late."""


class SecretError(Exception):
    """The secret's file is readable by others, or holds too little."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One read that a target may answer.

    `plan` is canonical JSON of pipeline, revisions and args; `overrides` are `response-*` parameters in the order
    sent; `expires_at` is in whole seconds since the epoch. `request_id` is the gateway's: both write it in their logs.
    """

    method: str
    bucket: str
    key: str
    plan: str
    principal: str
    expires_at: int
    version_id: str = ""
    overrides: tuple[tuple[str, str], ...] = ()
    request_id: str = ""


def expiry(now: float, no_later_than: float | None = None) -> int:
    """When a grant made at `now` should end; `no_later_than` is the end of the URL it stands in for."""
    latest = now + LIFETIME_S
    return int(latest if no_later_than is None else min(latest, no_later_than))


def sign(grant: Grant, secret: bytes, now: float | None = None) -> str:
    """The path and query that carry `grant`. Raises GrantInvalid, GrantExpired for one no target would take."""
    _check(grant, time.time() if now is None else now)
    query = [(_PLAN, base64.urlsafe_b64encode(grant.plan.encode()).rstrip(b"=").decode())]
    query += [(_EXPIRES, str(grant.expires_at)), (_PRINCIPAL, grant.principal)]
    if grant.version_id:
        query.append((_VERSION, grant.version_id))
    if grant.request_id:
        query.append((_REQUEST, grant.request_id))
    query += [*grant.overrides, (_SIGNATURE, _signature(grant, secret))]
    encoded = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    return f"/{quote(grant.bucket, safe='')}/{quote(grant.key, safe='/')}?{encoded}"


def verify(method: str, raw_path: str, query_string: str, secret: bytes, now: float) -> Grant:
    """The grant in a request line, `raw_path` and `query_string` as sent. Raises GrantInvalid, GrantExpired."""
    bucket, key = _parse_path(raw_path)
    fields, overrides = _parse_query(query_string)
    grant = Grant(
        method=method,
        bucket=bucket,
        key=key,
        plan=_parse_plan(fields[_PLAN]),
        principal=fields[_PRINCIPAL],
        expires_at=_parse_time(fields[_EXPIRES]),
        version_id=fields.get(_VERSION, ""),
        overrides=overrides,
        request_id=fields.get(_REQUEST, ""),
    )
    if not hmac.compare_digest(_signature(grant, secret).encode(), fields[_SIGNATURE].encode()):
        raise GrantInvalid("the signature is not of this request")
    _check(grant, now)
    return grant


def load_secret(path: Path) -> bytes:
    """The secret in `path`, made there if there is none: processes that race get the same one.

    Raises SecretError when others than its owner can read it, or it is shorter than 32 bytes.
    """
    if not path.exists():
        _create_secret(path)
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise SecretError(f"{path} is no file")
        if found.st_mode & 0o077:
            raise SecretError(f"{path} can be read by others (mode {found.st_mode & 0o777:04o}); run chmod 600 on it")
        secret = file.read()
    if len(secret) < SECRET_BYTES:
        raise SecretError(f"{path} holds {len(secret)} bytes; a secret has at least {SECRET_BYTES}")
    return secret


def _create_secret(path: Path) -> None:
    # mkstemp opens with O_EXCL and mode 0600; the link then appears whole, or not at all if another process was first.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _check(grant: Grant, now: float) -> None:
    if grant.method not in _METHODS:
        raise GrantInvalid(f"a grant is for GET or HEAD, not {grant.method}")
    if not grant.bucket or "/" in grant.bucket or not grant.key:
        raise GrantInvalid("a grant names a bucket and a key")
    if any(not name.startswith(_OVERRIDE_PREFIX) for name, _ in grant.overrides):
        raise GrantInvalid("overrides are response-* parameters")
    if grant.expires_at - now > MAX_LIFETIME_S:
        raise GrantInvalid(f"a grant lives for {MAX_LIFETIME_S} s at most")
    if grant.expires_at <= now:
        raise GrantExpired("the redirect has expired; ask the gateway again")


def _signature(grant: Grant, secret: bytes) -> str:
    fields = [grant.method, grant.bucket, grant.key, grant.version_id, grant.plan, grant.principal]
    fields.append(grant.request_id)
    fields += [str(grant.expires_at), str(len(grant.overrides))]
    fields += [text for pair in grant.overrides for text in pair]
    mac = hmac.new(secret, _TAG, hashlib.sha256)
    for field in fields:
        data = field.encode()
        # A length before each field: no two grants have one encoding.
        mac.update(len(data).to_bytes(8, "big") + data)
    return mac.hexdigest()


def _parse_path(raw_path: str) -> tuple[str, str]:
    bucket, slash, key = raw_path.removeprefix("/").partition("/")
    if not raw_path.startswith("/") or not slash:
        raise GrantInvalid("the path is not /BUCKET/KEY")
    return _unquote(bucket), _unquote(key)


def _parse_query(query_string: str) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    if len(query_string) > MAX_QUERY_CHARS:
        raise GrantInvalid("the query is too long")
    fields: dict[str, str] = {}
    overrides: list[tuple[str, str]] = []
    for item in query_string.split("&") if query_string else ():
        raw_name, _, raw_value = item.partition("=")
        name, value = _unquote(raw_name), _unquote(raw_value)
        if name.startswith(_OVERRIDE_PREFIX):
            overrides.append((name, value))
        elif name in fields or name not in {*_REQUIRED, _VERSION, _REQUEST}:
            raise GrantInvalid(f"unexpected parameter {name!r}")
        else:
            fields[name] = value
    if missing := sorted(_REQUIRED - fields.keys()):
        raise GrantInvalid(f"no {missing[0]} parameter: targets answer signed redirects only")
    return fields, tuple(overrides)


def _parse_plan(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise GrantInvalid("t-plan can't be read") from error


def _parse_time(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len("9999999999")):
        raise GrantInvalid("t-exp is no time")
    return int(text)


def _unquote(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise GrantInvalid("the URL is not UTF-8") from error
