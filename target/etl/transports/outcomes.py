"""What a worker's refusals and failures mean to the target. Every message here may be shown to the client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import unquote

from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlDisconnected, EtlFailed, EtlUnavailable
from transom.target.etl.transports.base import Unreachable, WorkerLost

MAX_TEXT = 1000
_NO_CONTENT = 204
_BUSY = 429  # says nothing against the object, whether it names a time or not
_UNAVAILABLE = 503
_LONGEST_WAIT_S, _DIGITS = 3600, 10
_RETRY_HEADERS = (b"ais-etl-retry-reason", b"retry-after")


def of_status(etl: str, status: int, headers: Mapping[bytes, bytes], message: str) -> Exception:
    """The error that an answer is which is no result. Header names are in lower case."""
    if status == _NO_CONTENT:
        if headers.get(b"transom-outcome", b"").lower() == b"skip":
            return Skip(public(unquote(headers.get(b"transom-message", b"").decode("latin-1"))))
        return failed(etl, "its worker delivered the result elsewhere (204), which was not asked for")
    if status == _BUSY or (status == _UNAVAILABLE and any(name in headers for name in _RETRY_HEADERS)):
        return busy(etl, message, headers.get(b"retry-after", b""))
    if 400 <= status < 500:  # noqa: PLR2004 - HTTP's classes of statuses
        return Reject(message)
    if status >= 500:  # noqa: PLR2004
        return failed(etl, message)
    return failed(etl, f"its worker answered with the status {status}, which is no result")


def of_text(etl: str, text: str, *, ours: bool) -> Exception:
    """The error that a text message is; our own workers say in it which kind."""
    said = _as_object(text) if ours else {}
    message = public(str(said.get("error", text)))
    outcome = said.get("outcome")
    if outcome == "skip":
        return Skip(message)
    if outcome == "reject":
        return Reject(message)
    return failed(etl, message if ours else f"its worker answered with a text, which is no result: {message}")


def failed(etl: str, message: str) -> EtlFailed:
    """The worker said that the transform failed, or something that is no answer at all."""
    return EtlFailed(f"ETL '{etl}' failed: {message}", etl=etl)


def lost(etl: str, why: str = "") -> WorkerLost:
    """The connection broke with none of the result handed on; `why`, if more is known."""
    message = f"ETL '{etl}' lost its worker: {why or 'the connection broke before the result was there'}"
    return WorkerLost(EtlDisconnected(message, etl=etl))


def busy(etl: str, why: str, retry_after: bytes = b"") -> WorkerLost:
    """The worker asks to be asked again; nothing is wrong with it or with the object."""
    is_number = retry_after.isdigit() and len(retry_after) < _DIGITS
    wait_s = min(int(retry_after), _LONGEST_WAIT_S) if is_number else 1
    return WorkerLost(
        EtlUnavailable(f"ETL '{etl}' is unavailable for the moment: {why}", retry_after_s=wait_s, etl=etl)
    )


def broken(etl: str, why: str = "") -> EtlDisconnected:
    """The connection broke in the middle of the result; `why`, if more is known."""
    message = f"ETL '{etl}' lost its worker: {why or 'it broke off in the middle of the result'}"
    return EtlDisconnected(message, etl=etl)


def unreachable(etl: str, error: OSError) -> Exception:
    """No connection could be made."""
    if isinstance(error, PermissionError):
        # the system's own message would name the address
        why = "the server may not connect to its worker" if error.errno else str(error)
        return EtlUnavailable(f"ETL '{etl}' is unavailable: {why}", etl=etl)
    return Unreachable(EtlDisconnected(f"ETL '{etl}' lost its worker: nobody answers at its address", etl=etl))


def message_of(body: bytes, content_type: bytes, reason: str) -> str:
    """What an error's body says: plain text, FastAPI's `detail` or Flask's `error`; a page of HTML says nothing."""
    text = "" if b"html" in content_type.lower() else body.decode(errors="replace").strip()
    said = _as_object(text)
    for name in ("detail", "error", "message"):
        if name in said:
            value = said[name]
            text = value if isinstance(value, str) else json.dumps(value)
            break
    return public(text or reason)


def public(text: str) -> str:
    """One bounded line, without what can't be shown."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).split())[:MAX_TEXT]


def _as_object(text: str) -> dict[str, object]:
    if not text.startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
