"""Whatever the text: a spec is read, or refused in the way that is promised, and what is kept reads back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from transom.target.etl.spec import from_json
from transom.target.etl.spec_load import SpecError, load
from transom.target.etl.spec_text import SpecTextError, documents

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
WORDS = st.sampled_from([*"{}[]:,&*!|>'\"%#-?\n ", "name", "runtime", "image", "<<", "---\n", "a", "5", "&a", "*a"])


@settings(max_examples=60)
@given(st.text() | st.lists(WORDS, max_size=40).map("".join))
@example("{? : b}")
@example("- - - - a")
@example("&a a: *a")
def test_no_text_gets_past_its_reader(text: str) -> None:
    try:
        found = documents(text)
    except SpecTextError:
        return
    for document in found:
        json.dumps(document.value)  # plain values, and no loops
        assert all(1 <= line <= text.count("\n") + 2 for line in document.lines.values())


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES, max_size=5), st.sampled_from([None, 2]))
def test_json_means_what_it_says(value: dict[str, Any], indent: int | None) -> None:
    for text in (json.dumps(value, indent=indent), json.dumps(value, indent=indent, ensure_ascii=False)):
        (document,) = documents(text)
        assert json.dumps(document.value) == json.dumps(value)


KEYS = st.sampled_from(
    ["name", "runtime", "communication", "args", "init_timeout", "resources", "io", "port", "redirect", "max_output"]
)
LIKELY = VALUES | st.sampled_from(
    ["x", {"image": "a"}, {"command": ["a"]}, {"code": "x"}, {"url": "http://a"}, {"plugin": "a"}, "ws://", "5m", "1Gi"]
)


@given(st.dictionaries(KEYS, LIKELY, max_size=6), st.booleans())
def test_any_value_is_a_spec_that_reads_back_or_is_refused(value: dict[str, Any], whole: bool) -> None:
    value = {"name": "x", "runtime": {"command": ["cat"]}, **value} if whole else value
    try:
        (spec,) = load(json.dumps(value))
    except SpecError as error:
        assert str(error)
        return
    assert from_json(spec.to_json()) == spec
    assert load(spec.to_json()) == [spec]
