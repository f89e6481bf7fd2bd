"""Waits before what can't be had is tried again."""

from __future__ import annotations

import time

import pytest

from transom.target.jobs.wait import Wait


def test_each_is_twice_as_long_as_the_one_before_up_to_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    wait, lengths = Wait(), []
    assert wait.is_over
    for _ in range(5000):
        wait.begin("full", 5.0)
        assert not wait.is_over
        lengths.append(wait.until - 1000.0)
    assert lengths[:7] == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0]
    assert set(lengths[7:]) == {300.0}
    monkeypatch.setattr(time, "monotonic", lambda: 1300.0)
    assert wait.is_over


def test_only_another_reason_is_news() -> None:
    wait = Wait()
    assert [wait.begin(reason, 0.0) for reason in ("full", "full", "gone", "gone", "full")] == [
        *(True, False, True, False, True)
    ]
