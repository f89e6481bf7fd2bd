"""The text of specs: values with lines, and what no text can do to its reader."""

from __future__ import annotations

import json
from typing import Any

import pytest

from transom.target.etl.spec_text import MAX_CHARS, SpecTextError, documents


def values(text: str) -> list[Any]:
    return [document.value for document in documents(text)]


def test_several_documents_and_empty_ones_left_out() -> None:
    assert values("---\na: 1\n---\n---\n# nothing\n---\nb: [1, {c: d}]\n...\n") == [{"a": 1}, {"b": [1, {"c": "d"}]}]
    assert values("") == values("# nothing\n") == values("---\n---\n") == []


def test_every_key_and_element_knows_its_line() -> None:
    (first, second) = documents(
        "a: 1\nb:\n  - x\n  -\n    c: {d: 1,\n      e: 2}\n---\nf:\n  g: |\n    one\n    two\n  h: 1\n"
    )
    lines = {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 5, ("b", 1, "c", "e"): 6, ("b", 1, "zzz"): 5, ("z",): 1}
    assert {path: first.line(path) for path in lines} == lines
    assert second.line(("f", "h")) == 12


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("True", True),
        ("false", False),
        ("0", 0),
        ("-12", -12),
        ("0x1f", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("no", "no"),
        ("on", "on"),
        ("2026-01-02", "2026-01-02"),
        ("1:30", "1:30"),
        ("007", "007"),
        ("1e999", "1e999"),
        (".nan", ".nan"),
        ("9" * 40, 10**40 - 1),
        ("9" * 4200, "9" * 4200),
        ("1e-300", 1e-300),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("5m", "5m"),
        ("|\n    two\n    lines", "two\nlines\n"),
    ],
)
def test_what_a_word_means(word: str, value: object) -> None:
    ((read),) = values(f"a: {word}\n")
    assert read == {"a": value}
    assert type(read["a"]) is type(value)


def test_json_is_read_as_json() -> None:
    value = {"a": "\U0001f600\x07\u2028", "b": [1.5, None, True], "c": {"d": "x\ty"}}
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, indent="\t")):
        assert values(text) == [value]
    (document,) = documents('{"a": 1,\n "b": {\n  "c": 2}}')
    assert document.line(("b", "c")) == 3
    assert values("{a: b}") == [{"a": "b"}]  # YAML that begins like it


def test_aliases_stand_for_what_they_name() -> None:
    assert values("a: &x [1]\nb: *x\nc: {d: *x}\n") == [{"a": [1], "b": [1], "c": {"d": [1]}}]
    assert values("a: &x word\nb: *x\n") == [{"a": "word", "b": "word"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("a: b: c\n", "line 1: not YAML"),
        ("a: 1\n\tb: 2\n", "line 2: not YAML"),
        ("a: 1\nb: \x00\n", r"line 2: the character '\\x00' can't stand in YAML"),
        ("a: *b\n", r"line 1: '\*b' stands for nothing"),
        ("a: &b [*b]\n", r"line 1: '\*b' stands for nothing"),
        ("a: &b\n  - 1\n---\nc: *b\n", "line 4"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: the tag .* isn't used here"),
        ("a: !thing {}\n", "line 1: the tag '!thing' isn't used here"),
        ("a: !!int 5\n", "line 1: the tag .* isn't used here"),
        ("a: 1\n<<: {b: 2}\n", "line 2: '<<' isn't used here"),
        ("? [a]\n: b\n", "line 1: a key is a word"),
        ("{? {a: 1} : b}\n", "line 1: a key is a word"),
        ("a:\n  " + "[" * 100, "line 2: nested more than 32 deep"),
        ("[" * 100_000, "line 1: nested more than 32 deep"),
        ('{"a":' * 100_000, "line 1: nested more than 32 deep"),
        ('{"a": NaN}', "NaN isn't a value of JSON"),
        ('{"a": 1e999}', "1e999 isn't a value of JSON"),
        ("- x\n" * 30_000, "at most 20000 values"),
        ("x" * (MAX_CHARS + 1), f"at most {MAX_CHARS} characters"),
    ],
)
def test_what_can_not_be_read_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(SpecTextError, match=said):
        documents(text)


def test_aliases_of_aliases_can_not_grow_without_bound() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for n in range(1, 30):
        bomb += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n"
    with pytest.raises(SpecTextError, match="line 5: a spec has at most 20000 values"):
        documents(bomb)


def test_a_long_text_is_read_in_no_time() -> None:
    source = "    return data  # and so on\n" * 70_000
    ((value),) = values("code: |\n" + source)
    assert len(value["code"].splitlines()) == 70_000
