"""Durations, sizes and shares of a CPU as specs spell them: ours, Go's and Kubernetes' forms. Raises ValueError."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|k|K|Ki|KiB|M|Mi|MiB|G|Gi|GiB|T|Ti|TiB)?")
_BYTES = {
    "B": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")


def seconds(value: object) -> float:
    """Read "45s", "5m", "1h", "1m30s", "500ms", or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    raise ValueError('write a duration such as "45s", "5m" or "1h", or a number of seconds')


def size(value: object) -> int:
    """Read "1Gi", "512MiB", "100M", or a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('write a size such as "512Mi", "1Gi" or "64 MiB", or a number of bytes')
    return int(float(match[1]) * _BYTES[match[2] or "B"])


def cpus(value: object) -> float:
    """Read "500m", "2", or a number of CPUs."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _CPU.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('write CPUs such as "500m" or 2')
    return float(match[1]) / (1000 if match[2] else 1)
