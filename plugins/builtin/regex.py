"""Compiles the regular expressions that clients send, on RE2: its time is linear in the text, whatever the pattern."""

from __future__ import annotations

from typing import Any

import re2  # type: ignore[import-untyped]

MAX_LENGTH = 1000  # of a pattern, in characters
_MEMORY = 8 * 1024 * 1024


def compiled(pattern: str, *, ignore_case: bool = False) -> Any:
    """Compile a pattern for bytes that hold UTF-8: re2's own search of a str counts characters. Raises ValueError."""
    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "unknown"
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"not a regular expression of RE2's kind ({shown})") from error
