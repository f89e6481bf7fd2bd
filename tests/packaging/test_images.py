"""deploy/images/build makes the same image of the same files, and leaves alone what has not changed."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

from tests.packaging.trees import ROOT, run


def built(output: Path, *options: str) -> str:
    """Build an image; its id."""
    program = ROOT / "deploy/images/build"
    command: list[str | Path] = ["--tag", "localhost/made:1", "--output", output, *options]
    done = run(program, *command, cwd=output.parent, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_files_make_the_same_image_and_nothing_is_done_twice(tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text("given")
    given.chmod(0o600)
    options = ("--add", f"{given}:/app/given.txt", "--entrypoint", '["/usr/bin/python3", "-V"]')
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    image = built(first, *options)
    written = first.stat().st_mtime_ns
    assert built(first, *options) == image
    assert first.stat().st_mtime_ns == written
    assert built(second, *options) == image
    assert digest(second) == digest(first)
    given.write_text("changed")
    assert built(first, *options) != image


def test_an_image_holds_python_and_what_it_was_given(tmp_path: Path) -> None:
    tree = tmp_path / "package"
    (tree / "__pycache__").mkdir(parents=True)
    (tree / "__init__.py").write_text("")
    (tree / "__pycache__" / "stale.pyc").write_text("")
    output = tmp_path / "made.tar"
    image = built(output, "--add", f"{tree}:given", "--env", "A=1", "--cmd", '["-V"]')
    with tarfile.open(output) as archive:
        (manifest,) = json.loads(read(archive, "manifest.json"))
        config = json.loads(read(archive, manifest["Config"]))
        base, extra = (read(archive, name) for name in manifest["Layers"])
    assert manifest["RepoTags"] == ["localhost/made:1"] and manifest["Config"] == f"{image}.json"
    assert config["config"]["User"] == "65534:65534" and config["config"]["Env"][1:] == ["A=1"]
    assert config["config"]["Cmd"] == ["-V"]
    names = {member.name: member for member in members(base)}
    assert names["usr/bin/python3"].issym() and names["tmp"].mode == 0o1777
    assert all(member.uid == member.gid == 0 and not member.uname for member in names.values())
    files = [member.name for member in members(extra) if member.isfile()]
    assert len(files) == 1 and files[0].endswith("/given/__init__.py")


def members(layer: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return archive.getmembers()


def read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
