"""Templates against counting by hand, globs against the standard library's."""

from __future__ import annotations

import fnmatch
import itertools

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from transom.target.errors import JobRefused
from transom.target.jobs.templates import MAX_CHARS, MAX_NAMES, Glob, Template

plain = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="{}"), max_size=5)
numbers = st.integers(0, 120)
steps = st.integers(1, 7)


@given(plain, numbers, numbers, steps, st.integers(1, 5), plain)
def test_a_range_counts_from_start_to_end(
    before: str, start: int, more: int, step: int, width: int, after: str
) -> None:
    first, last = str(start).zfill(width), str(start + more).zfill(width)
    names = list(Template.parse(f"{before}{{{first}..{last}..{step}}}{after}"))
    padded = max(len(first), len(last)) if any(len(t) > 1 and t[0] == "0" for t in (first, last)) else 1
    assert names == [f"{before}{n:0{padded}}{after}" for n in range(start, start + more + 1, step)]


@given(st.lists(st.tuples(plain, st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4), plain)
def test_several_multiply_the_last_counting_fastest(parts: list[tuple[str, int, int]], after: str) -> None:
    text = "".join(f"{before}{{{start}..{start + more}}}" for before, start, more in parts) + after
    template = Template.parse(text)
    choices = [[f"{before}{n}" for n in range(start, start + more + 1)] for before, start, more in parts]
    assert list(template) == ["".join(chosen) + after for chosen in itertools.product(*choices)]
    assert [template[at] for at in range(template.count)] == list(template)


def test_the_template_of_the_manual() -> None:
    names = list(Template.parse("shard-{0001..0999..2}.tar"))
    assert (len(names), names[0], names[1], names[-1]) == (500, "shard-0001.tar", "shard-0003.tar", "shard-0999.tar")


def test_a_million_names_cost_nothing_until_they_are_asked_for() -> None:
    template = Template.parse("shard-{000000..999999}.tar")
    assert template.count == MAX_NAMES
    assert template[123_456] == "shard-123456.tar"
    with pytest.raises(IndexError):
        template[MAX_NAMES]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("plain", "no {START..END}"),
        ("", "no {START..END}"),
        ("a{1..2", "a brace is open"),
        ("a1..2}", "a brace is open"),
        ("{{1..2}}", "a brace is open"),
        ("{a..b}", "no range of numbers"),
        ("{}", "no range of numbers"),
        ("{1,2}", "no range of numbers"),
        ("{-1..2}", "no range of numbers"),
        ("{1..2..}", "no range of numbers"),
        ("{\u0661..\u0662}", "no range of numbers"),  # digits, but not ours
        ("{2..1}", "counts up"),
        ("{1..2..0}", "counts up"),
        ("{0..1000000}", "makes 1000001 names"),
        ("{0..999}{0..999}{0..1}", "makes 2000000 names"),
        ("{0..9999999999999999}", "at most 15 digits"),
        ("{1..2}" + "a" * MAX_CHARS, f"at most {MAX_CHARS} characters"),
    ],
)
def test_what_is_no_template_is_refused(text: str, reason: str) -> None:
    with pytest.raises(JobRefused, match=reason.replace("{", r"\{")):
        Template.parse(text)


# patterns and names of few letters, so that they often meet; every sign of a pattern among them
glob_text = st.text(st.sampled_from("ab/*?[]!-^\\.ß\n"), max_size=8)
name_text = st.text(st.sampled_from("ab/*?[]!-^\\.ß\n"), max_size=6)


@given(glob_text, name_text)
@example("[]]", "]")
@example("[!]a]", "b")
@example("[a-]", "-")
@example("[!a]", "\n")
@example("[^a]", "^")
def test_without_braces_a_glob_is_the_standard_librarys(pattern: str, name: str) -> None:
    try:
        glob = Glob(pattern)
    except JobRefused:  # a range the wrong way round, which the library takes for an empty one
        assume(False)
    assert glob(name) == fnmatch.fnmatchcase(name, pattern)


@given(
    st.lists(st.text("ab*?", max_size=3), min_size=2, max_size=4), st.text("ab", max_size=3), st.text("ab", max_size=4)
)
def test_braces_are_alternatives(choices: list[str], after: str, name: str) -> None:
    glob = Glob("{" + ",".join(choices) + "}" + after)
    assert glob(name) == any(fnmatch.fnmatchcase(name, each + after) for each in choices)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.jpg", ["a.jpg", "a/b.jpg", ".jpg", "a\nb.jpg", "..//x.jpg"], ["a.JPG", "a.jpg2", "jpg"]),
        ("cat-{0,1}?.{jpg,png}", ["cat-01.jpg", "cat-12.png"], ["cat-22.jpg", "cat-0.jpg", "cat-01.gif"]),
        ("{a,b{c,d}e}", ["a", "bce", "bde"], ["b", "be", "bcde"]),
        ("{a}", ["{a}"], ["a"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("{a,b", ["{a,b"], ["a", "b"]),
        ("a}b", ["a}b"], ["ab"]),
        ("[{]a,b}", ["{a,b}"], ["a", "b"]),
        ("{[,],b}", [",", "b"], ["[", "]", ""]),
        ("{,x}y", ["y", "xy"], ["x"]),
        ("[*][?]", ["*?"], ["ab"]),
        ("日?", ["日本", "日\n"], ["日", "日本語"]),
        ("[日-月]", ["日", "月"], ["木" + "木"]),
        ("", [""], ["a"]),
        ("*[!/]", ["a", "a/b"], ["a/", ""]),
    ],
)
def test_globs_by_hand(pattern: str, matching: list[str], others: list[str]) -> None:
    glob = Glob(pattern)
    assert [name for name in (*matching, *others) if glob(name)] == matching


def test_a_range_the_wrong_way_round_is_refused_with_the_right_one() -> None:
    with pytest.raises(JobRefused, match=r"\[z-a\] is the wrong way round: write \[a-z\]"):
        Glob("x[z-a]")


def test_a_glob_takes_linear_time() -> None:
    assert not Glob("*a" * 300 + "b")("a" * 1000)


def test_a_glob_too_long_is_refused() -> None:
    with pytest.raises(JobRefused, match=f"at most {MAX_CHARS}"):
        Glob("*" * (MAX_CHARS + 1))
