"""The body and query of a call that makes ETLs of specs: a spec's text, or that with the files it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transom.gateway.admin.errors import ApiError

OVERRIDES = ("name", "communication", "init_timeout", "obj_timeout")
WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Posted:
    """What was sent: the spec's text, what comes before it, the files it names, and whether to wait for the start."""

    text: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    wait: bool = True


def posted(body: bytes, query: Mapping[str, str]) -> Posted:
    """Read body and query. Raises ApiError."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, "InvalidArgument", "a spec is UTF-8 text") from error
    text, files = _apart(text)
    wait = query.get(WAIT, "true")
    if wait not in ("true", "false"):
        raise ApiError(400, "InvalidArgument", f"wait is true or false, not {wait!r}")
    overrides = {name: query[name] for name in OVERRIDES if name in query}
    return Posted(text, overrides, files, wait == "true")


def _apart(text: str) -> tuple[str, dict[str, str]]:
    """A bare spec, or {"spec": its text, "files": {name: text}}: no spec has a text under that key."""
    sent = _object(text)
    spec, files = sent.get("spec"), sent.get("files", {})
    if not isinstance(spec, str):
        return text, {}
    if sent.keys() - {"spec", "files"} or not isinstance(files, dict):
        raise ApiError(400, "InvalidArgument", 'send a spec, or {"spec": TEXT, "files": {NAME: TEXT}}')
    if not all(isinstance(each, str) for each in files.values()):
        raise ApiError(400, "InvalidArgument", "files: each is its text")
    return spec, files


def _object(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
