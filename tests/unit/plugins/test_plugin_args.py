"""Arguments: what a request says becomes the model, or an error that tells what to write instead."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import Enum
from typing import Literal

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator

from transom.plugins import Context, NoArgs, Transformer
from transom.plugins.args import canonical, has_defaults, parse_args, schema
from transom.plugins.errors import ArgsError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Args(BaseModel):
    width: int = Field(default=100, ge=1, le=1000, json_schema_extra={"first": True})
    fit: Literal["inside", "cover"] = "inside"
    keep: bool = False
    ratio: float | None = None
    box: tuple[int, int] | None = None
    tags: frozenset[str] = frozenset()
    colour: Colour = Colour.RED
    text: str = ""

    @model_validator(mode="after")
    def _cover_is_wide(self) -> Args:
        if self.fit == "cover" and self.width < 10:
            raise ValueError("cover needs a width of 10 or more")
        return self


def taking(model: type[BaseModel]) -> Transformer:
    class Made(Transformer):
        name = "thumb"
        Args = model

        def transform(self, data: bytes, context: Context) -> bytes:
            return data

    return Made()


THUMB = taking(Args)


def test_nothing_given_means_the_defaults() -> None:
    assert parse_args(THUMB, None) == Args()
    assert parse_args(taking(NoArgs), None, {}) == NoArgs()


@pytest.mark.parametrize("value", [224, "224", {"width": 224}, {"width": "224"}])
def test_a_bare_scalar_sets_the_first_argument(value: object) -> None:
    assert parse_args(THUMB, value) == Args(width=224)


def test_options_are_strings_made_to_fit() -> None:
    options = {"width": "7", "keep": "true", "ratio": "1.5", "box": "[1, 2]", "tags": '["b","a"]', "colour": "blue"}
    expected = Args(width=7, keep=True, ratio=1.5, box=(1, 2), tags=frozenset("ab"), colour=Colour.BLUE)
    assert parse_args(THUMB, None, options) == expected


def test_options_join_the_arguments() -> None:
    assert parse_args(THUMB, {"width": 7}, {"keep": "1"}) == Args(width=7, keep=True)
    assert parse_args(THUMB, 7, {"keep": "no"}) == Args(width=7, keep=False)


def test_a_text_that_looks_like_json_stays_a_text() -> None:
    assert parse_args(THUMB, None, {"text": "[1]"}) == Args(text="[1]")
    assert parse_args(THUMB, None, {"text": "null"}) == Args(text="null")
    assert parse_args(THUMB, None, {"ratio": "null"}) == Args(ratio=None)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (0, {}, "argument 'width': input should be greater than or equal to 1, got 0; allowed: integer from 1 to 1000"),
        (
            "wide",
            {},
            "argument 'width': input should be a valid integer, unable to parse string as an integer, got 'wi",
        ),
        (None, {"width": "1e3"}, "argument 'width': input should be a valid integer"),
        (None, {"fit": "fill"}, "argument 'fit': input should be 'inside' or 'cover', got 'fill'; allowed: one of ins"),
        (None, {"colour": "pink"}, "argument 'colour': .*; allowed: one of red, blue"),
        (
            {"widht": 5},
            {},
            "argument 'widht': there is no such argument \\(did you mean 'width'\\?\\); it takes width, fit,",
        ),
        (None, {"zzz": "5"}, "argument 'zzz': there is no such argument; it takes width, fit, keep"),
        ({"width": 5}, {"width": "6"}, "argument 'width': given twice, as an option and in the arguments"),
        (5, {"width": "6"}, "argument 'width': given twice"),
        ({"width": 5, "fit": "cover"}, {}, "ETL 'thumb': cover needs a width of 10 or more$"),
        (None, {"box": "[1"}, "argument 'box': input should be a valid tuple, got '\\[1'"),
        (None, {"box": "[1,2,3]"}, "argument 'box'.*at most 2 items"),
        ({"ratio": "x" * 5000}, {}, "argument 'ratio': .{10,200}$"),
        ([1, 2], {}, "argument 'width': input should be a valid integer, got \\[1, 2\\]"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(value: object, options: dict[str, str], message: str) -> None:
    with pytest.raises(ArgsError, match=message) as caught:
        parse_args(THUMB, value, options)
    assert caught.value.etl == "thumb"
    assert str(caught.value) == caught.value.message


def test_the_message_names_the_etl_and_not_the_transformer_behind_it() -> None:
    with pytest.raises(ArgsError, match=r"^ETL 'small', argument 'width'"):
        parse_args(THUMB, 0, etl="small")


def test_a_transformer_without_arguments_takes_none() -> None:
    with pytest.raises(ArgsError, match="ETL 'thumb': it takes no arguments, got 5"):
        parse_args(taking(NoArgs), 5)
    with pytest.raises(ArgsError, match=r"argument 'x': it takes no arguments"):
        parse_args(taking(NoArgs), None, {"x": "5"})


def test_a_bare_value_needs_an_argument_marked_first() -> None:
    class Unmarked(BaseModel):
        a: int = 1
        b: int = 2

    with pytest.raises(ArgsError, match=r"it takes an object of a, b, not the bare value 5"):
        parse_args(taking(Unmarked), 5)


def test_a_required_argument_is_asked_for() -> None:
    class Required(BaseModel):
        path: str

    with pytest.raises(ArgsError, match="argument 'path': it is required; allowed: string"):
        parse_args(taking(Required), None)
    assert not has_defaults(taking(Required))


def test_unknown_arguments_are_refused_even_where_the_model_would_ignore_them() -> None:
    class Ignoring(BaseModel):
        model_config = ConfigDict(extra="ignore")
        a: int = 1

    with pytest.raises(ArgsError, match="no such argument"):
        parse_args(taking(Ignoring), {"b": 1})


def test_a_model_may_take_any_argument() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int = 1

    assert parse_args(taking(Open), {"b": 1}).model_dump() == {"a": 1, "b": 1}


def test_aliases_are_the_names_to_give() -> None:
    class Aliased(BaseModel):
        width: int = Field(default=1, alias="w", ge=0, json_schema_extra={"first": True})
        height: int = Field(default=1, ge=0, validation_alias=AliasChoices("h", "tall"))

    assert parse_args(taking(Aliased), 5).model_dump() == {"width": 5, "height": 1}
    assert parse_args(taking(Aliased), {"w": 5}, {"tall": "6"}).model_dump() == {"width": 5, "height": 6}
    with pytest.raises(ArgsError, match=r"argument 'width': there is no such argument.*; it takes w, h"):
        parse_args(taking(Aliased), {"width": 5})
    with pytest.raises(ArgsError, match=r"argument 'w': .*; allowed: integer from 0"):
        parse_args(taking(Aliased), -5)


def test_defaults_that_do_not_hold_together_count_as_none() -> None:
    class Either(BaseModel):
        a: int | None = None

        @model_validator(mode="after")
        def _given(self) -> Either:
            if self.a is None:
                raise ValueError("give a")
            return self

    assert not has_defaults(taking(Either))
    assert has_defaults(THUMB)


def test_the_schema_marks_the_first_argument() -> None:
    document = schema(THUMB)
    assert document["properties"]["width"]["first"] is True
    assert json.loads(json.dumps(document)) == document


def test_canonical_is_the_same_however_the_arguments_were_given() -> None:
    texts = {
        canonical(parse_args(THUMB, 7)),
        canonical(parse_args(THUMB, {"keep": False, "width": 7})),
        canonical(parse_args(THUMB, None, {"width": "7", "fit": "inside"})),
    }
    assert texts == {
        '{"box":null,"colour":"red","fit":"inside","keep":false,"ratio":null,"tags":[],"text":"","width":7}'
    }


def test_canonical_tells_different_arguments_apart() -> None:
    class Odd(BaseModel):
        data: bytes = b""
        secret: SecretStr = SecretStr("")
        number: float = 0.0

    values: list[Odd] = [
        Odd(), Odd(data=b"\xff"), Odd(data=b"\xfe"), Odd(secret=SecretStr("a")), Odd(secret=SecretStr("b")),
        Odd(number=float("inf")), Odd(number=float("nan")), Odd(number=float("-inf")),
    ]  # fmt: skip
    assert len({canonical(value) for value in values}) == len(values)
    assert "hunter2" not in canonical(Odd(secret=SecretStr("hunter2")))


def test_canonical_of_a_set_does_not_depend_on_hash_order() -> None:
    program = (
        "from pydantic import BaseModel\n"
        "from transom.plugins.args import canonical\n"
        "class A(BaseModel):\n"
        "    s: frozenset[str] = frozenset(map(str, range(50)))\n"
        "    m: dict[int, set[str]] = {1: {'x', 'y', 'z'}}\n"
        "print(canonical(A()))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
