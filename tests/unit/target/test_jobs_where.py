from __future__ import annotations

import pickle
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from transom.target.errors import JobRefused, WhereFailed
from transom.target.jobs.where import MAX_DEPTH, MAX_OUTPUT, MAX_VALUES, Predicate
from transom.target.jobs.where_rules import FUNCTIONS, MAX_CHARS, MAX_LOOPS, MAX_SUMS, VARIABLES
from transom.target.store.base import Attributes, ObjectInfo

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "where.md"
_2024_05_02 = 1_714_608_000 * 10**9


def an_object(
    key: str = "a/cat.jpg",
    size: int = 10,
    *,
    modified_ns: int = _2024_05_02,
    content_type: str = "image/jpeg",
    tags: dict[str, str] | None = None,
    **metadata: str,
) -> ObjectInfo:
    attributes = Attributes({"content-type": content_type}, metadata, tags or {})
    return ObjectInfo("b", key, size, "e" * 32, modified_ns, attributes)


@dataclass(frozen=True)
class Case:
    """An object, and what is made of it if that is asked for."""

    info: ObjectInfo
    output: bytes = b""

    def kept_by(self, predicate: Predicate) -> bool:
        return predicate.before(self.info) and predicate.after(self.info, self.output, len(self.output))


ONE = an_object()
# what each example of the page keeps, and what it leaves out
EXAMPLES = {
    'size > 1024 * 1024 && key.matches("[.](jpe?g|png)$")': (
        Case(an_object("x/y.jpeg", 2 << 20)),
        Case(an_object("x/y.jpeg.txt", 2 << 20)),
    ),
    'modified >= timestamp("2024-01-01T00:00:00Z") && modified < timestamp("2025-01-01T00:00:00Z")': (
        Case(ONE),
        Case(an_object(modified_ns=_2024_05_02 + 365 * 86400 * 10**9)),
    ),
    'modified > timestamp("2024-05-03T00:00:00Z") - duration("48h")': (
        Case(ONE),
        Case(an_object(modified_ns=_2024_05_02 - 2 * 86400 * 10**9)),
    ),
    'content_type.startsWith("image/")': (Case(ONE), Case(an_object(content_type="text/image/"))),
    '"split" in tags && tags.split == "train"': (Case(an_object(tags={"split": "train"})), Case(ONE)),
    '"camera-model" in metadata && metadata["camera-model"] in ["X100", "GR"]': (
        Case(an_object(**{"camera-model": "GR"})),
        Case(an_object(**{"camera-model": "GR2"})),
    ),
    '!["tmp/", "trash/"].exists(folder, key.startsWith(folder))': (Case(ONE), Case(an_object("trash/a"))),
    "size(output.faces) == 2": (Case(ONE, b'{"faces": [{}, {}]}'), Case(ONE, b'{"faces": [{}]}')),
    'output.labels.exists(l, l.name == "cat" && l.score > 0.9)': (
        Case(ONE, b'{"labels": [{"name": "dog", "score": 0.99}, {"name": "cat", "score": 0.95}]}'),
        Case(ONE, b'{"labels": [{"name": "cat", "score": 0.5}]}'),
    ),
    "output_size < size": (Case(ONE, b"123456789"), Case(ONE, b"1234567890")),
    'type(output) == string && output.contains("TODO")': (Case(ONE, b"a TODO"), Case(ONE, b'["TODO"]')),
}


def test_the_page_has_these_examples() -> None:
    assert re.findall(r"```cel\n(.*?)\n```", PAGE.read_text(), re.DOTALL) == list(EXAMPLES)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_keeps_what_the_page_says(text: str) -> None:
    predicate = Predicate.parse(text)
    kept, left_out = EXAMPLES[text]
    assert kept.kept_by(predicate)
    assert not left_out.kept_by(predicate)


def test_the_page_names_all_variables_and_functions_and_no_others() -> None:
    names, functions = PAGE.read_text().split("## Variables")[1].split("## Operators")
    told = functions.split("## Functions")[1].split("There are no others")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", names, re.MULTILINE)) != ()
    assert set(re.findall(r"^\| `(\w+)` \|", names, re.MULTILINE)) == set(VARIABLES)
    rows = [line.split("|")[1] + (line.split("|")[2] if "getDate" in line else "") for line in told.splitlines()[4:-1]]
    named = set(re.findall(r"(?:^|[`. ])(\w+)(?=[(`])", "\n".join(rows)))
    assert set(FUNCTIONS) <= named
    assert named - set(FUNCTIONS) <= {"all", "exists", "exists_one", "filter", "size"}


# what works, one line each: every function and operator of the page
TRUE = [
    "size == 10 && size != 11 && size >= 10 && size <= 10 && !(size < 10)",
    'key == "a/cat.jpg" && key < "b"',
    'size("日本") == 6 && "ab".size() == 2 && size([1, 2]) == 2 && size({"a": 1}) == 1',
    'key.contains("cat") && key.startsWith("a/") && key.endsWith(".jpg")',
    r'key.matches(r"^a/\w+\.jpg$") && key.matches("cat")',
    'has(metadata.name) && !has(metadata.other) && metadata.name == "v" && "name" in metadata',
    'int("3") == 3 && int(1.9) == 1 && uint(3) == 3u && double(size) / 4.0 == 2.5 && double("1.5") == 1.5',
    'string(size) == "10" && bytes("a") == b"a" && string(duration("90s")) == "1m30s"',
    "type(size) == int && type(key) == string && type([]) == list && type({}) == map && type(null) == null_type",
    "type(1.5) == double && type(true) == bool && type(1u) == uint && type(b'') == bytes",
    "modified.getFullYear() == 2024 && modified.getMonth() == 4 && modified.getDate() == 2",
    "modified.getDayOfMonth() == 1 && modified.getDayOfWeek() == 4 && modified.getDayOfYear() == 122",
    "modified.getHours() == 0 && modified.getMinutes() == 0 && modified.getSeconds() == 0",
    "modified.getMilliseconds() == 0",
    "[1, 2].exists(x, x > 1) && [1, 2].all(x, x > 0) && [1, 2].exists_one(x, x > 1)",
    "[1, 2, 3].filter(x, x > 1) == [2, 3] && [1, 2][0] == 1",
    '{"a": 1}["a"] == 1 && {"a": 1}.exists(k, k == "a")',
    "1 == 1.0 && 1 < 1.5 && 0x1F == 31 && 1e3 == 1000.0 && 7 % 4 == 3 && 7 / 2 == 3 && 2 * 3 - 1 == 5",
    '"a" + "b" == "ab" && [1] + [2] == [1, 2] && duration("1h30m") > duration("89m")',
    "(size > 5 ? key : etag) == key // the end",
    '1 != "1" && null != 0',
    "false && metadata.nothing == '' || true",
    "metadata.nothing == '' || true",
    "content_type == 'image/jpeg' && etag.size() == 32 && size(tags) == 0",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_the_page_says_works(text: str) -> None:
    assert Predicate.parse(text).before(an_object(name="v"))


def test_a_predicate_without_output_is_decided_before_and_says_the_same_after() -> None:
    predicate = Predicate.parse("size > 10")
    assert not predicate.needs_output
    for size in (10, 11):
        info = an_object(size=size)
        assert predicate.before(info) == predicate.after(info, None, 0) == (size > 10)


def test_what_needs_no_output_is_decided_before_it_is_made() -> None:
    predicate = Predicate.parse('size > 100 && output.n == 1 || key == "always"')
    assert predicate.needs_output
    assert predicate.reads_output
    assert not predicate.before(an_object(size=10))
    assert predicate.before(an_object(size=101))  # open yet
    assert not predicate.after(an_object(size=101), b'{"n": 2}', 8)
    assert predicate.before(an_object("always"))


def test_the_output_size_needs_no_output_read() -> None:
    predicate = Predicate.parse("output_size > 5")
    assert (predicate.needs_output, predicate.reads_output) == (True, False)
    assert predicate.after(ONE, None, 6)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b'{"n": 1}', "output.n == 1"),
        (b"[1, 2]", "output[1] == 2"),
        (b"1.5", "output == 1.5"),
        (b"true", "output"),
        (b"null", "output == null"),
        (b"plain words", 'output == "plain words"'),
        (b"NaN", 'output == "NaN"'),
        (b"", 'output == ""'),
        (b"\xff\x00", "output == null"),
        (b'"\xc3\xa9\\u0000"', r'output == "é\u0000"'),
    ],
)
def test_an_output_is_its_json_or_its_text_or_null(output: bytes, text: str) -> None:
    assert Predicate.parse(text).after(ONE, output, len(output))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (b" " * (MAX_OUTPUT + 1), "reads up to"),
        (b"[" * 50 + b"]" * 50, f"more than {MAX_DEPTH} deep"),
        (b"[" * 100_000 + b"]" * 100_000, f"more than {MAX_DEPTH} deep"),
        (b"[" + b"1," * MAX_VALUES + b"1]", f"more than {MAX_VALUES} values"),
        (b'"\\ud800"', "can't"),
        (b"1" * 400, "can't"),
        (b'{"m": 1}', "there is no 'n'"),
        (b"[1]", "Unexpected type"),
    ],
)
def test_an_output_that_cannot_be_judged_is_a_failure_and_not_false(output: bytes, reason: str) -> None:
    with pytest.raises(WhereFailed, match=reason):
        Predicate.parse("output.n == 1").after(ONE, output, len(output))


def test_an_output_too_large_to_be_at_hand_is_a_failure() -> None:
    with pytest.raises(WhereFailed, match="has 5000000 bytes"):
        Predicate.parse("output == 1").after(ONE, None, 5_000_000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('metadata.camera == "X"', "there is no 'camera'"),
        ("int(key) > 1", "invalid digit"),
        ("10 / (size - 10) > 1", "division by zero"),
        ("key.matches(metadata.pattern)", "not a valid regex"),
        ("size > 5 ? size : true", "gives a number, not true or false"),
        ("9223372036854775807 + size > 0", "overflow"),
        ('["a"][size] == "a"', "out of bounds"),
    ],
)
def test_an_error_on_an_object_is_its_failure(text: str, reason: str) -> None:
    predicate = Predicate.parse(text) if "size > 5" not in text else Predicate.parse(text.replace("5", "6"))
    with pytest.raises(WhereFailed, match=reason):
        predicate.before(an_object(pattern="("))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "can't be read"),
        ("size >", r"line 1, column 7: mismatched input"),
        ("size > 1\n && (", "line 2, column 6: mismatched input"),
        ("sise > 1", "line 1, column 1: there is no 'sise'; a predicate knows key, size"),
        ("true &&\n  nope == 1", "line 2, column 3: there is no 'nope'"),
        ("key.lower() == 'a'", "column 5: there is no function 'lower'"),
        (".key == 'a'", "without a dot"),
        ("size", "gives a number; a predicate gives true or false"),
        ("'true'", "gives a text"),
        ("key + 1 == ''", "string . int"),
        ("size > '1'", "not defined"),
        ("key.startsWith(1)", "'startsWith' doesn't take"),
        ("key.matches('(')", "unclosed group"),
        ("key.matches('a{1,1000}{1,1000}{1,100}')", "exceeds size limit"),
        ("Foo{a: 1} == 1", "no messages"),
        ("'''a''' == key", "not in three"),
        ("key == 'unclosed", "column 8: the text that begins here has no end"),
        ("size > 1" + " " * MAX_CHARS, "at most 1000 characters"),
    ],
)
def test_what_can_be_no_predicate_is_refused_at_once_with_the_place(text: str, reason: str) -> None:
    with pytest.raises(JobRefused, match=reason):
        Predicate.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1].map(x, x) == [1]", "no 'map'"),
        ("[1].all(x, [2].exists(y, x == y))", "'exists' within another loop"),
        ("[1].all(x, ([(2)].all(y, true)))", "'all' within another loop"),
        ("[1] . filter /*", "mismatched|token|extraneous"),
        ("[1].all(x, [2] . // a comment\n all (y, true))", "'all' within another loop"),
        (r"""r"\" == "x" && [1].all(x, [2].all(y, true)) || "" == "" """, "within another loop"),
        ("key" + " + key" * (MAX_SUMS + 1) + " == ''", f"adds at most {MAX_SUMS}"),
        ("[1].all(x, x == 1) && " * MAX_LOOPS + "[1].all(x, true)", f"at most {MAX_LOOPS} loops"),
        ("[key].exists(k, k.matches('a{2}'))", "within a loop, 'matches'"),
        (r"[key].exists(k, k.matches('a\x7b2}'))", "within a loop, 'matches'"),
        ("[key].exists(k, k.matches(k))", "within a loop, 'matches'"),
        ("[key].exists(k, matches(k, 'a'))", "within a loop, 'matches'"),
        ("[key].exists(k, k.matches('a' + 'b'))", "within a loop, 'matches'"),
    ],
)
def test_what_could_run_away_is_refused(text: str, reason: str) -> None:
    with pytest.raises(JobRefused, match=reason):
        Predicate.parse(text)


def test_loops_beside_each_other_and_patterns_in_them_are_fine() -> None:
    text = r"""[key].exists(k, k.matches(r"\.jpg$")) && [1].filter(x, x > 0).all(x, x == 1)"""
    assert Predicate.parse(text).before(ONE)


@pytest.mark.parametrize(
    "text",
    [
        "!" * 990 + "true",
        "-" * 990 + "1 == 1",
        "output" + ".a" * 490 + " == 1",
        "output" + "[0]" * 300 + " == 1",
        "size == 1" + "&&size==1" * 100,
        "size" + "*1" * 490 + " == 1",
        "size(" * 190 + "key" + ")" * 190 + " == 1",
        "(" * 490 + "true" + ")" * 490,
        "[" * 450 + "]" * 450 + " == []",
        "true ? true : " * 70 + "true",
    ],
)
def test_deep_text_is_judged_or_refused_even_on_a_small_stack(text: str) -> None:
    ended: list[str] = []

    def judge() -> None:
        try:
            Predicate.parse(text).after(ONE, b"[[[]]]", 6)
        except (JobRefused, WhereFailed) as error:
            ended.append(type(error).__name__)
        else:
            ended.append("judged")

    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=judge)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join(60)
    assert len(ended) == 1


def test_the_dearest_predicates_end_within_seconds() -> None:
    output = b"[" + b"1," * (MAX_VALUES - 2) + b"1]"
    assert Predicate.parse("output.all(x, x in output)").after(ONE, output, len(output))
    assert Predicate.parse("size(output.filter(x, x == 1)) > 1").after(ONE, output, len(output))
    text = b"a" * MAX_OUTPUT
    longest = "output" + " + output" * MAX_SUMS
    assert Predicate.parse(f"size({longest}) == {(MAX_SUMS + 1) * MAX_OUTPUT}").after(ONE, text, len(text))


def test_it_pickles_as_its_text() -> None:
    predicate = Predicate.parse("output.n == 1")
    again = pickle.loads(pickle.dumps(predicate))
    assert again == predicate
    assert again.after(ONE, b'{"n": 1}', 8)


def test_threads_share_one() -> None:
    predicate = Predicate.parse("size > 50 && output.n == 1")
    wrong: list[int] = []

    def judge() -> None:
        for n in range(200):
            info = replace(ONE, size=n)
            if predicate.after(info, b'{"n": 1}', 8) != (n > 50):
                wrong.append(n)

    threads = [threading.Thread(target=judge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("modified_ns", [-(10**20), 0, 10**20])
def test_odd_times_are_times(modified_ns: int) -> None:
    assert Predicate.parse("modified.getFullYear() > 0").before(an_object(modified_ns=modified_ns))
