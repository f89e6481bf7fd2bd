"""Turns: one at a time makes a result, in all processes, and the others see it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.etl.turns import Turns

ID, OTHER = "0" * 31 + "1", "1" + "0" * 31


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Turns]:
    made = Turns(tmp_path)
    yield made
    made.close()


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Turns]:
    """Another process's."""
    made = Turns(tmp_path)
    yield made
    made.close()


async def test_others_see_a_turn_for_as_long_as_it_lasts(ours: Turns, theirs: Turns) -> None:
    assert not theirs.under_way(ID)
    async with ours.turn(ID, lambda: False) as is_ours:
        assert is_ours
        assert theirs.under_way(ID) and not theirs.under_way(OTHER)
        assert not ours.under_way(ID)  # what this process itself makes, it knows
    assert not theirs.under_way(ID)


async def test_a_turn_is_waited_for_until_the_result_is_there(ours: Turns, theirs: Turns) -> None:
    made: list[str] = []

    async def wait() -> bool:
        async with theirs.turn(ID, lambda: bool(made)) as is_theirs:
            return is_theirs

    async with ours.turn(ID, lambda: False):
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        made.append("it")
        assert await waiting is False
    async with theirs.turn(ID, lambda: False) as is_theirs:  # whoever waited in vain kept nothing
        assert is_theirs


async def test_what_the_look_raises_gives_the_turn_back(ours: Turns, theirs: Turns) -> None:
    def refused() -> bool:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        async with ours.turn(ID, refused):
            raise AssertionError("unreachable")
    assert not theirs.under_way(ID)
    async with theirs.turn(ID, lambda: False) as is_theirs:
        assert is_theirs
