"""Checksums as response headers."""

from __future__ import annotations

from collections.abc import Mapping


def checksum_headers(checksums: Mapping[str, str], checksum_type: str) -> list[tuple[str, str]]:
    """Return x-amz-checksum-* for each, and their type; nothing where there are none."""
    if not checksums:
        return []
    headers = [(f"x-amz-checksum-{name.lower()}", value) for name, value in checksums.items()]
    return [*headers, ("x-amz-checksum-type", checksum_type)] if checksum_type else headers
