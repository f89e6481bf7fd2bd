"""Durations, sizes and CPUs as specs spell them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from transom.target.etl.spec_units import cpus, seconds, size


@pytest.mark.parametrize(
    ("read", "value", "wanted"),
    [
        (seconds, "45s", 45.0),
        (seconds, "5m", 300.0),
        (seconds, "1h", 3600.0),
        (seconds, "1m30s", 90.0),
        (seconds, "500ms", 0.5),
        (seconds, "1.5s", 1.5),
        (seconds, 2, 2.0),
        (seconds, 0.25, 0.25),
        (size, "512Mi", 512 * 2**20),
        (size, "1Gi", 2**30),
        (size, "1.5GiB", 3 * 2**29),
        (size, "64 MiB", 2**26),
        (size, "100M", 10**8),
        (size, "8k", 8000),
        (size, "1T", 10**12),
        (size, 4096, 4096),
        (size, "77", 77),
        (size, "77 B", 77),
        (cpus, "500m", 0.5),
        (cpus, "2", 2.0),
        (cpus, 0.5, 0.5),
        (cpus, 3, 3.0),
    ],
)
def test_what_is_read(read: Callable[[object], float], value: object, wanted: float) -> None:
    assert read(value) == pytest.approx(wanted)


@pytest.mark.parametrize("read", [seconds, size, cpus])
@pytest.mark.parametrize("value", ["", "x", "5 m5", "-1", "1e3", "1GB ", "5d", True, None, [], "m", "5ss", "1Gi1"])
def test_what_is_not_is_told_what_to_write(read: Callable[[object], float], value: object) -> None:
    with pytest.raises(ValueError, match=r"^write "):
        read(value)
