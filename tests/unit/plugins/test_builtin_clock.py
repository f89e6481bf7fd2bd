"""The clock of a long run stands still while the consumer holds a piece, and is past its deadline at it."""

from __future__ import annotations

import pytest

from transom.plugins import Context
from transom.plugins.builtin import clock
from transom.plugins.builtin.clock import Clock


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock, "time", made)
    return made


def test_the_deadline_is_kept(time: Time) -> None:
    running = Clock(Context(bucket="b", key="k", etl="e", deadline=103))
    time.now += 2.5
    running.check()
    assert running.left_s() == 0.5
    time.now += 0.5
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        running.check()


def test_a_slow_consumer_takes_no_time_from_the_run(time: Time) -> None:
    running = Clock(Context(bucket="b", key="k", etl="e", deadline=103))
    for _ in running.over(range(5)):
        time.now += 60
    assert running.left_s() == 3


def test_without_a_deadline_there_is_always_time() -> None:
    running = Clock(Context(bucket="b", key="k", etl="e"))
    running.check()
    assert list(running.over("ab")) == ["a", "b"]
    assert running.left_s() == float("inf")
