"""The suite that every runtime x transport must pass, over a real server: a class to inherit from.

    class TestMine(EtlContract):
        @pytest.fixture(scope="class")
        @classmethod
        def site(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]: ...

with the fixtures `combo` and `thorough` beside it. A new runtime or transport is a line in a list of `Combo`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from xml.sax.saxutils import unescape

import pytest

from tests.conformance.etl_peaks import Peaks
from tests.conformance.etl_site import BRIEF_S, BUCKET, DEFAULTS, Combo, Site
from tests.processes import timed
from tests.wire import Raw, at

MIB = 1024 * 1024
NOISE = random.Random(3).randbytes(MIB)
MORE = NOISE * 5  # than any buffer on the way holds
LARGE = 64 * MIB
MOST_GROWTH = 48 * MIB
SOME = 100_000  # so much of a result that the target has some of it before its end
BEGUN = 3 * MIB  # and so much that the client is being answered
CROWD = 50
SECRET = b"these are the object's own bytes, which no error shows"
WORDS = "the worker's own words: ü & <b>"
SIZES = {"nothing": b"", "a byte": b"\xff", "a MiB": NOISE}
KEYS = (
    "plain.txt",
    "a b",
    "100%",
    "a%2Fb%20c",
    "a+b",
    "what?",
    "no#1",
    "ü/日本語/🚪.png",
    ".hidden",
    "...",
    "a/../b",
    "./a",
    "//",
    "a//b",
    "/lead",
    "~home/~",
    "trail/",
    "quo'te\"d",
    "back\\slash",
    "a&b=c;d,e:f@g!h$i*j(k)",
    "{input} {args.x}",
    "[1]^`|<x>",
    "two\nlines\tand\x7f",
)
ARGS = {
    "an object": {"a": [1, None, True], "ü": "é & = % + # ?", "nested": {"b": {}}},
    "an empty object": {},
    "a number": 7,
    "a text": "plain words, 100% & more = ü?",
    "a list": [[1, 2], "x"],
}
DEATHS: Mapping[str, dict[str, Any]] = {
    "once": {"do": "flaky"},
    "soon": {"do": "late", "size": SOME, "then": "crash"},
    "halfway": {"do": "late", "size": BEGUN, "then": "crash"},
    "always": {"do": "crash"},
}
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a client gets for what a worker does; `words` tells whether the worker's are among the error's.

    The `code` "" of an error stands for that of the runtime's failures.
    """

    does: dict[str, Any]
    status: int
    code: str = ""
    words: bool = False


OUTCOMES = {
    "an empty result": Outcome({"do": "empty"}, 200),
    "an error": Outcome({"do": "raise", "message": WORDS}, 500, words=True),
    "an error without words": Outcome({"do": "raise"}, 500),
    "an object rejected": Outcome({"do": "reject", "message": WORDS}, 422, "EtlInputRejected", words=True),
    "one rejected without words": Outcome({"do": "reject"}, 422, "EtlInputRejected"),
    "an object left out": Outcome({"do": "skip"}, 404, "NoSuchKey"),
}


@dataclass(frozen=True)
class Ordeal:
    """What came of something that takes waiting, and of the next request; the pids of kept workers before and after."""

    answer: Raw
    took_s: float
    then: Raw
    before: list[int]
    after: list[int]


def soaking(combos: Sequence[Combo]) -> list[Any]:
    """The same as parameters of heavy checks: only the thorough ones outside of the soak."""
    return [combo if combo.thorough else pytest.param(combo, marks=pytest.mark.soak) for combo in combos]


class EtlContract:
    """Checks each combo of a site; override the fixtures `site`, `combo` and `thorough`."""

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls) -> Site:
        """Return the running site."""
        raise NotImplementedError("override the fixture 'site'")

    @pytest.fixture
    def combo(self) -> Combo:
        """Return the combo to check."""
        raise NotImplementedError("override the fixture 'combo'")

    @pytest.fixture
    def thorough(self) -> Combo:
        """Return the combo for a heavy check."""
        raise NotImplementedError("override the fixture 'thorough'")

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls, site: Site) -> dict[str, bytes]:
        """The objects by key."""
        objects = {**SIZES, "more": MORE, "secret": SECRET}
        objects |= {f"crowd/{number}": b"number %d" % number for number in range(CROWD)}
        for key, data in objects.items():
            site.put(data, key)
        for key in KEYS:
            site.put(b"named", key, "text/x-named")
        return objects

    # --- what goes in comes out -------------------------------------------------------------------

    @pytest.mark.parametrize("size", SIZES)
    def test_every_byte_goes_in_and_comes_out(
        self, site: Site, combo: Combo, objects: dict[str, bytes], size: str
    ) -> None:
        """Also none, and one."""
        echo = site.get(combo.name, size, {"do": "echo"})
        assert outcome(echo) == (200, shown(SIZES[size]))
        assert echo.headers["content-type"] == "text/plain"
        assert outcome(site.get(combo.name, size, {"do": "length"})) == (200, str(len(SIZES[size])))

    @pytest.mark.parametrize("given", ARGS)
    def test_arguments_come_as_they_were_given(
        self, site: Site, combo: Combo, objects: dict[str, bytes], given: str
    ) -> None:
        """An object's members lie over those of the spec; anything else takes their place."""
        value: Any = ARGS[given]
        assert outcome(site.get(combo.name, "secret", value)) == (200, _told(combo, value))
        if not isinstance(value, dict) and not combo.installed:
            assert outcome(site.get(combo.brief, "secret", value)) == (200, _told(combo, value))
        if isinstance(value, dict):
            over = {**value, "do": "args", "over": 3}
            assert json.loads(site.get(combo.brief, "secret", over).body) == {**DEFAULTS, **over}

    def test_a_key_is_told_as_it_is(self, site: Site, combo: Combo, objects: dict[str, bytes]) -> None:
        """Whatever characters it has; its bucket and its content type too."""
        for key in KEYS:
            told = outcome(site.get(combo.name, key, {"do": "told"}))
            assert told == (200, f"{BUCKET}\n{key}\ntext/x-named\nnamed")

    def test_a_result_may_come_slowly(self, site: Site, combo: Combo, objects: dict[str, bytes]) -> None:
        """Byte by byte."""
        assert outcome(site.get(combo.name, "crowd/1", {"do": "trickle"})) == (200, "number 1")

    @pytest.mark.parametrize("key", ["nothing", "more"])
    def test_a_result_may_come_without_its_input_being_read(
        self, site: Site, combo: Combo, objects: dict[str, bytes], key: str
    ) -> None:
        """And be longer than that."""
        answer = site.get(combo.name, key, {"do": "grow", "size": BEGUN + 1})
        assert outcome(answer) == (200, shown(b"g" * (BEGUN + 1)))

    def test_heads_and_ranges_are_those_of_the_result(
        self, site: Site, combo: Combo, objects: dict[str, bytes]
    ) -> None:
        """Through a view."""
        view = f"{combo.name}-view"
        site.admin.create_view(view, BUCKET, combo.name, args={"do": "upper"})
        path = at(view, "a MiB")
        wanted = NOISE.upper()
        head = site.wire.head(path)
        assert (head.status, int(head.headers["content-length"])) == (200, len(wanted))
        for header, part in (("bytes=1000-1999", wanted[1000:2000]), ("bytes=-500", wanted[-500:])):
            answer = site.wire.get(path, {"Range": header, "If-Match": head.etag})
            assert (*outcome(answer), answer.etag) == (206, shown(part), head.etag)

    # --- every outcome is told from every other ---------------------------------------------------

    @pytest.mark.parametrize("key", ["secret", "nothing", "more"])
    @pytest.mark.parametrize("does", OUTCOMES)
    def test_an_error_is_no_empty_result_and_an_empty_result_no_error(
        self, site: Site, combo: Combo, objects: dict[str, bytes], does: str, key: str
    ) -> None:
        """Nor does any error have a byte of the object."""
        wanted = OUTCOMES[does]
        answer = site.get(combo.name, key, wanted.does)
        if wanted.status == 200:
            assert (*outcome(answer), answer.headers["content-length"]) == (200, "", "0")
        else:
            code = wanted.code or combo.failure
            assert (answer.status, answer.code, answer.ended) == (wanted.status, code, True), outcome(answer)
            assert is_clean(answer)
            assert f"'{combo.name}'" in outcome(answer)[1]
            assert (WORDS in outcome(answer)[1]) is wanted.words
        after = site.get(combo.name, key, {"do": "length", "after": does})
        assert outcome(after) == (200, str(len(objects[key])))

    @pytest.mark.parametrize("size", [1000, BEGUN])
    @pytest.mark.parametrize("then", ["raise", "reject", "skip"])
    def test_half_a_result_is_none(
        self, site: Site, combo: Combo, objects: dict[str, bytes], then: str, size: int
    ) -> None:
        """Whatever the worker raises in the middle: an error, or a broken answer if that has begun."""
        answer = site.get(combo.name, "secret", {"do": "late", "size": size, "then": then, "message": WORDS})
        assert is_no_result(answer), outcome(answer)
        after = site.get(combo.name, "secret", {"do": "length", "after": f"{then} at {size}"})
        assert outcome(after) == (200, str(len(SECRET)))

    # --- what takes waiting, asked of all at once -------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def overdue(cls, site: Site, objects: dict[str, bytes]) -> dict[str, Ordeal]:
        """What came of a sleep of ten seconds where an object has three."""
        sleep = {"do": "slow", "seconds": 10}
        return _of_all(site.combos, lambda combo: _ordeal(site, combo.brief, sleep, key="more"))

    @pytest.fixture(scope="class")
    @classmethod
    def deaths(cls, site: Site, objects: dict[str, bytes]) -> dict[str, dict[str, Ordeal]]:
        """What came of deaths, one after the other."""

        def die(combo: Combo) -> dict[str, Ordeal]:
            # on two ETLs: a worker that dies again and again is started again ever later. What is tried again has time
            etls = {"once": combo.name, "soon": combo.brief, "halfway": combo.brief, "always": combo.name}
            if not combo.kept:
                del etls["once"]
            return {death: _ordeal(site, etl, DEATHS[death]) for death, etl in etls.items()}

        return _of_all([combo for combo in site.combos if combo.mortal], die)

    def test_one_past_its_deadline_is_given_up_promptly(self, combo: Combo, overdue: dict[str, Ordeal]) -> None:
        """And its worker lives on, where one is kept."""
        found = overdue[combo.name]
        assert (found.answer.status, found.answer.code) == (504, "EtlTimeout"), outcome(found.answer)
        assert unescape(found.answer.message) == f"ETL '{combo.brief}' passed its deadline of {BRIEF_S:g} s"
        assert BRIEF_S * 0.9 <= found.took_s < BRIEF_S + 5
        assert outcome(found.then) == (200, str(len(MORE)))
        assert found.after == found.before

    def test_a_worker_that_dies_but_once_is_not_noticed(
        self, combo: Combo, deaths: dict[str, dict[str, Ordeal]]
    ) -> None:
        """The run is tried again, from the source."""
        if not combo.kept:
            pytest.skip("nobody starts another in time")
        assert outcome(deaths[combo.name]["once"].answer) == (200, SECRET.decode())

    def test_a_dead_worker_is_an_error_and_the_next_request_finds_another(
        self, combo: Combo, deaths: dict[str, dict[str, Ordeal]]
    ) -> None:
        """It was tried again, and died again."""
        found = _of(combo, deaths)["always"]
        assert (found.answer.status, found.answer.code) in combo.death, outcome(found.answer)
        assert is_clean(found.answer)
        assert f"'{combo.name}'" in outcome(found.answer)[1]
        assert outcome(found.then) == (200, str(len(SECRET)))
        assert len(found.after) == len(found.before)
        assert not combo.kept or found.after != found.before

    @pytest.mark.parametrize("death", ["soon", "halfway"])
    def test_half_a_result_of_a_dead_worker_is_none(
        self, combo: Combo, deaths: dict[str, dict[str, Ordeal]], death: str
    ) -> None:
        """Of one that dies in the middle."""
        found = _of(combo, deaths)[death]
        assert is_no_result(found.answer), outcome(found.answer)
        assert found.answer.status == 200 or (found.answer.status, found.answer.code) in combo.death
        assert outcome(found.then) == (200, str(len(SECRET)))

    # --- much, and many ---------------------------------------------------------------------------

    def test_a_crowd_is_served_each_its_own(self, site: Site, thorough: Combo, objects: dict[str, bytes]) -> None:
        """Fifty at once."""
        with ThreadPoolExecutor(CROWD) as pool:
            answers = list(pool.map(lambda n: site.get(thorough.name, f"crowd/{n}", {"do": "upper"}), range(CROWD)))
        assert [outcome(answer) for answer in answers] == [(200, f"NUMBER {number}") for number in range(CROWD)]

    def test_a_large_object_streams_in_constant_memory(self, site: Site, thorough: Combo) -> None:
        """64 MiB of it, through the server's processes and the worker's."""
        data = NOISE * (LARGE // MIB)
        key = site.put(data, "large")
        site.get(thorough.name, site.put(b"warm"), {"do": "echo"})
        with Peaks(lambda: site.pids(thorough)) as peaks:
            answer = site.get(thorough.name, key, {"do": "echo"})
        assert outcome(answer) == (200, shown(data))
        assert max(peaks.growth.values()) <= MOST_GROWTH, peaks.growth


def outcome(answer: Raw) -> tuple[int, str]:
    """The status, and what there is to compare: a whole result, an error's code and message, or that it broke off."""
    if not answer.ended:
        return answer.status, f"broke off after {len(answer.body)} bytes"
    if answer.status in (200, 206):
        return answer.status, shown(answer.body)
    return answer.status, f"{answer.code}: {unescape(answer.message)}"


def shown(data: bytes) -> str:
    """A text as it is; anything else by its length and digest, which tell as much."""
    if len(data) < 1000:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return f"{len(data)} bytes, {hashlib.md5(data).hexdigest()}"


def is_clean(answer: Raw) -> bool:
    """Whether an error has nothing of the object, or of what was made of it."""
    said = answer.body + "".join(answer.headers.values()).encode("latin-1")
    return b"own bytes" not in said and b"ggg" not in said


def is_no_result(answer: Raw) -> bool:
    """Whether nobody can take it for one: an error, or an answer that never comes to its end."""
    return not answer.ended if answer.status == 200 else is_clean(answer)


def _told(combo: Combo, value: Any) -> str:
    """The text that a worker is told arguments as; installed transformers take them by name."""
    if combo.installed:
        value = value or None if isinstance(value, dict) else {"word": value}
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _ordeal(site: Site, etl: str, does: dict[str, Any], key: str = "secret") -> Ordeal:
    before = site.workers(etl)
    answer, took_s = timed(lambda: _joined(site, etl, key, does))
    site.ready()
    then = site.get(etl, key, {"do": "length", "after": f"{does['do']} {does.get('size')}"})
    return Ordeal(answer, took_s, then, before, site.workers(etl))


def _joined(site: Site, etl: str, key: str, does: dict[str, Any]) -> Raw:
    """What comes of a run that a busy machine may need longer for than one request waits."""
    for _ in range(4):
        answer = site.get(etl, key, does)
        if answer.code != "SlowDown":
            break
    return answer


def _of_all(combos: Sequence[Combo], work: Callable[[Combo], T]) -> dict[str, T]:
    """Do it to all at once: it is waiting, most of it."""
    with ThreadPoolExecutor(len(combos)) as pool:
        return dict(zip([combo.name for combo in combos], pool.map(work, combos), strict=True))


def _of(combo: Combo, deaths: dict[str, dict[str, Ordeal]]) -> dict[str, Ordeal]:
    if not combo.mortal:
        pytest.skip("its end would be the server's")
    return deaths[combo.name]
