"""The commands of docs/how-to/jobs.md run as they stand, from top to bottom, and do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.test_readme import SHELL, served, shell
from tests.packaging.trees import ROOT

PAGE = (ROOT / "docs" / "how-to" / "jobs.md").read_text()
MARKED = re.findall(r"<!-- test: (\w+) -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SAID = re.compile(r"^job \w+ done: (.*?);", re.MULTILINE)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What each marked block of the page printed."""
    folder = tmp_path_factory.mktemp("jobs-page")
    with served("transom serve ./data", folder, {**SHELL, "HOME": str(folder)}) as reader:
        yield {name: _run(language, text, reader, folder) for name, language, text in MARKED}


def _run(language: str, text: str, reader: dict[str, str], folder: Path) -> str:
    if language == "sh":
        return shell(text, reader, folder)
    done = subprocess.run(
        [sys.executable, "-c", text], env=reader, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("first", ["9 written"]),
        ("pipeline", ["9 written"]),
        ("again", ["0 written, 9 up to date already", "1 written, 8 up to date already"]),
        ("sync", ["0 written, 8 up to date already, 2 deleted"]),
        ("try", ["8 would be written", "8 good", "8 good"]),
        ("choose", ["2 written", "3 written", "1 written, 1 up to date already"]),
        ("sort", ["2 shards written", "2 shards written"]),
    ],
)
def test_jobs_do_what_the_page_says(printed: dict[str, str], block: str, said: list[str]) -> None:
    assert SAID.findall(printed[block]) == said


def test_what_the_page_makes_is_there(printed: dict[str, str]) -> None:
    assert printed["first"].endswith("NOTE 1\n")
    assert "s3://loud/copied.txt" in printed["copy"]
    assert re.findall(r"\S+$", printed["sort"], re.MULTILINE)[-4:] == [
        "by-key/notes-00.tar",
        "by-key/notes-01.tar",
        "shuffled/shard-000000.tar",
        "shuffled/shard-000001.tar",
    ]
    assert printed["python"] == "done 5 0\n"
    assert re.search(r"^state +done$", printed["detach"], re.MULTILINE)


def test_a_predicate_chooses(printed: dict[str, str]) -> None:
    first, second = SAID.findall(printed["where"])
    assert re.fullmatch(r"6 written, 2 left out", first), first  # note-1 has grown
    assert "left out" in second


def test_options_of_the_page_are_options_of_the_commands() -> None:
    for command, options in (("transform", PAGE.partition("## Sort")[0]), ("sort", PAGE.partition("## Sort")[2])):
        known = subprocess.run(
            [sys.executable, "-c", "from transom.cli.main import main; main()", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**SHELL, "COLUMNS": "300"},
        ).stdout
        # aws, curl and serve have options of their own on the page
        said = set(re.findall(r"`(--[a-z-]+)", options))
        assert said
        assert {option for option in said if option not in known} == set()
