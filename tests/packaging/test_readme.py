"""The examples of the README and the tutorial run as they stand, and the links of all pages lead somewhere."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xxhash
from PIL import Image

from tests.packaging.trees import ROOT

BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
PROVERB = "let in some light\n"
# What a reader has on PATH after the README's `pip install`, and nothing of this machine's own settings.
SHELL = {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "LANG": "C.UTF-8",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def example(name: str) -> str:
    """The README's block marked with `<!-- test: name -->`."""
    found = re.search(rf"<!-- test: {name} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert found is not None, name
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell(script: str, environment: dict[str, str], cwd: Path) -> str:
    """Run a block as a reader pastes it, except that it stops at an error; return what it printed."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def served(command: str, cwd: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run the `transom serve` of a block on a free port; yield the environment of the blocks after it."""
    log = (cwd / "server.log").open("ab")
    child = subprocess.Popen(
        [*shlex.split(command), "--port", "0", "--processes", "1"],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert child.stdout is not None
    made: dict[str, str] = {}
    try:
        for line in child.stdout:
            made.update(re.findall(r"^export (\w+)=(\S+)$", line))
            ready = re.fullmatch(r"transom: listening on (\S+)\n", line)
            if ready:
                break
        else:
            pytest.fail((cwd / "server.log").read_text())
        known = {**environment, **made}
        yield {
            **known,
            "AWS_ACCESS_KEY_ID": known["TRANSOM_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": known["TRANSOM_SECRET_KEY"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": ready[1],
            "TRANSOM_ENDPOINT": ready[1],
        }
    finally:
        child.terminate()
        child.wait(20)
        child.stdout.close()
        log.close()


def photo(folder: Path) -> Path:
    folder.mkdir()
    Image.linear_gradient("L").resize((800, 600)).save(folder / "cat.jpg")
    return folder


def serve_command() -> str:
    (command,) = [block for block in blocks(README, "sh") if block.startswith("transom serve")]
    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    photo(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def reader(place: Path) -> Iterator[dict[str, str]]:
    """The environment of a reader who served the README's folders and made the README's first objects."""
    with served(serve_command(), place, {**SHELL, "HOME": str(place)}) as environment:
        environment["MADE"] = shell(example("aws"), environment, place)
        yield environment


def test_aws_example(reader: dict[str, str]) -> None:
    assert reader["MADE"].endswith(hashlib.md5(PROVERB.encode()).hexdigest() + PROVERB.upper())


def test_boto3_example(reader: dict[str, str], place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example("boto3")], env=reader, cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ONE\nTWO\n\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_example(reader: dict[str, str], place: Path) -> None:
    output = shell(example("curl"), reader, place)
    assert output.strip() == xxhash.xxh64(PROVERB.encode(), seed=123).hexdigest()


def test_view_example(reader: dict[str, str], place: Path) -> None:
    output = shell(example("view"), reader, place)
    assert "cat.webp" in output
    with Image.open(place / "cat.webp") as image:
        assert (image.format, image.size) == ("WEBP", (224, 168))


def test_job_example(reader: dict[str, str], place: Path) -> None:
    output = shell(example("job"), reader, place)
    assert re.search(r"^job \w+ done: 1 written; ", output, re.MULTILINE)
    assert output.endswith(" cat.webp\n")


def test_command_example(reader: dict[str, str], place: Path) -> None:
    output = shell(example("command"), reader, place)
    assert output.endswith("let\nLIGHT\n")
    assert "This prints `let` and `LIGHT`" in README


def test_exports_of_the_readme_are_those_the_clients_read(reader: dict[str, str]) -> None:
    exports = re.findall(r"^export .*$", README, re.MULTILINE)
    assert exports[0] == "export TRANSOM_ACCESS_KEY=... TRANSOM_SECRET_KEY=..."
    named = set(re.findall(r"(AWS_\w+)=", "\n".join(exports[1:])))
    assert named == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}
    assert named <= set(reader)


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/plugins.md"])
def test_plugin_of_ten_lines(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    code = next(block for block in blocks(text, "python") if block.startswith("# shout.py"))
    project = next(block for block in blocks(text, "toml") if block.startswith("# pyproject.toml"))
    assert len([line for line in code.splitlines() if line and not line.startswith("#")]) <= 10
    assert tomllib.loads(project)["project"]["dependencies"] == ["transom"]
    package, site = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    (package / "shout.py").write_text(code)
    (package / "pyproject.toml").write_text(project)
    pip = f"{sys.executable} -m pip install --quiet --no-deps --no-build-isolation --target {site} ."
    shell(pip, {**SHELL, "HOME": str(tmp_path)}, package)
    environment = {**SHELL, "HOME": str(tmp_path), "PYTHONPATH": str(site)}
    with served("transom serve ./data", tmp_path, environment) as reader:
        shell("aws s3 mb s3://notes", reader, tmp_path)
        shell("echo 'let in some light' | aws s3 cp - s3://notes/proverb.txt", reader, tmp_path)
        output = shell("aws s3 cp s3://notes--etl--shout/proverb.txt -", reader, tmp_path)
    assert output == "LET IN SOME LIGHT!\n"
    if page == "README.md":
        assert "`aws s3 cp s3://notes--etl--shout/proverb.txt -` answers `LET IN SOME LIGHT!`" in text


def test_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    photo(tmp_path / "Pictures")
    written = [block for block in blocks(TUTORIAL.partition("## Objects")[2], "sh")]
    serve = next(block for block in written if block.startswith("transom serve"))
    rest = [block for block in written if block is not serve]
    environment = {**SHELL, "HOME": str(tmp_path)}
    with served(serve.replace("$HOME", str(tmp_path)), tmp_path, environment) as reader:
        output = [shell(block, reader, tmp_path) for block in rest]
    assert output[0].endswith("one\ntwo\nthree\n")
    assert output[1] == "ONE\nTWO\nTHREE\ntwo\nthree\n"
    assert output[2] == hashlib.md5(b"ONE\nTWO\n").hexdigest()
    assert output[3].startswith("name") and "one\ntwo\n" in output[3]
    assert output[4].endswith("ONE\nTWO\n")
    with Image.open(tmp_path / "thumbs" / "cat.jpg") as image:
        assert image.size == (224, 168)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    written = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)  # code has brackets of its own
    for target in re.findall(r"\]\(([^)\s]+)\)", written):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        linked = page if not name else page.parent / name
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_commands_of_the_readme_exist() -> None:
    for script in re.findall(r"`?(scripts/\w+)", README):
        assert (ROOT / script).exists(), script
