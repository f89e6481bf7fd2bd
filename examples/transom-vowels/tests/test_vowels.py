from pathlib import Path

import pytest
from transom_vowels import Vowels

from transom.plugins import Context, Transformer
from transom.plugins.args import parse_args
from transom.plugins.conformance import TransformerConformance
from transom.plugins.errors import ArgsError
from transom.plugins.shapes import stream


class TestVowels(TransformerConformance):
    @pytest.fixture
    def transformer(self) -> Transformer:
        return Vowels()


@pytest.mark.parametrize(("by", "expected"), [("*", b"H*ll*, w*rld"), ("_", b"H_ll_, w_rld"), ("", b"Hll, wrld")])
def test_vowels_are_replaced_or_removed(by: str, expected: bytes, tmp_path: Path) -> None:
    context = Context(bucket="b", key="k", etl="vowels", args=parse_args(Vowels(), by))
    assert b"".join(stream(Vowels(), [b"Hel", b"lo, world"], context, scratch=tmp_path)) == expected


def test_more_than_one_character_is_refused() -> None:
    with pytest.raises(ArgsError, match="at most 1 char"):
        parse_args(Vowels(), "**")
