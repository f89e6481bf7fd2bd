"""Predicates made at random: what is decided before an output is known stays so once it is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from transom.target.errors import JobRefused, WhereFailed
from transom.target.jobs.where import Predicate
from transom.target.jobs.where_rules import FUNCTIONS, LOOPS, VARIABLES
from transom.target.store.base import Attributes, ObjectInfo

INFO = ObjectInfo("b", "k", 5, "e", 0, Attributes(metadata={"m": "1"}))
atoms = st.sampled_from(
    [
        *("true", "false", "size > 3", "size > 7", "metadata.m == '1'", "metadata.none == ''", "1 / 0 == 1"),
        *("output == 1", "output.n > 1", "has(output.n)", "output_size > 1", "output_size < 1", "output.x.y == 2"),
        *("output.l.exists(x, x > 1)", "[1, 2].all(x, x > output.n)", "[output, 2].exists(x, x == 2)"),
    ]
)
predicates = st.recursive(
    atoms,
    lambda inner: st.one_of(
        inner.map("!({})".format),
        st.tuples(inner, st.sampled_from(["&&", "||", "==", "!="]), inner).map(
            lambda each: "(({}) {} ({}))".format(*each)
        ),
        st.tuples(inner, inner, inner).map(lambda each: "(({}) ? ({}) : ({}))".format(*each)),
    ),
    max_leaves=5,
)
outputs = st.sampled_from([b"1", b"text", b"null", b"\xff", b'{"n": 2}', b'{"n": 0, "l": [1, 2], "x": {"y": 2}}'])


@settings(deadline=None)  # the first of all imports the library
@given(predicates, outputs)
def test_what_is_left_out_before_would_be_after(text: str, output: bytes) -> None:
    predicate = Predicate.parse(text)
    if predicate.needs_output:
        if not predicate.before(INFO):
            assert not predicate.after(INFO, output, len(output))
        return
    try:
        before = predicate.before(INFO)
    except WhereFailed:
        before = None
    try:
        assert predicate.after(INFO, output, len(output)) is before
    except WhereFailed:
        assert before is None


pieces = st.sampled_from(
    [
        *VARIABLES,
        *FUNCTIONS,
        *LOOPS,
        *("(", ")", "[", "]", "{", "}", ",", ".", "?", ":", "!", "+", "-", "*", "/", "%", "<", "==", "&&", "||", "in"),
        *(
            "x",
            "map",
            "true",
            "null",
            "0",
            "1.5",
            "9223372036854775807",
            "1u",
            "'a'",
            '"b"',
            r"r'\d'",
            "b'x'",
            "'",
            "//",
        ),
        *("size > 1", "key.startsWith('k')", "output.l.filter(x, x == 1)", "modified", "duration('1h')"),
    ]
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=12).map(" ".join), outputs)
def test_whatever_the_text_it_is_refused_fails_or_is_judged(text: str, output: bytes) -> None:
    try:
        predicate = Predicate.parse(text)
        assert isinstance(predicate.before(INFO), bool)
        assert isinstance(predicate.after(INFO, output, len(output)), bool)
    except (JobRefused, WhereFailed) as error:
        assert error.message.startswith("where: ")
