"""Installs packages into an environment, by pip and in a sandbox: a package that is built runs code of its own.

It knows nothing of ETLs, or of which environments there are.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from transom.target.errors import EtlUnavailable
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.sandbox.launch import Sandbox
from transom.target.etl.sandbox.program import GIB, MIB, Limits, Program, in_words

_LIMITS = Limits(memory=4 * GIB, pids=512, output=4 * GIB, scratch=256 * MIB, files=4096)
_OPTIONS = ("--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-color", "--progress-bar", "off")
_LAST_LINES = 6
_EMPTY_TALK = re.compile(r"note:|hint:|\[notice\]|\[end of output\]|\W*See above for output")
_BLOCK = 512  # what st_blocks counts in
_LAST_CHARS = 1000
# What pip, and what it fetches with, is told by the environment.
_TOLD = re.compile(
    r"PIP_\w+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE
)
_CONFIGURATION = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_PATH = re.compile(r"(?:file://|(?<![^\s=,\"']))(/[^\s;#,\"']+)")  # a file's URL, or its absolute path as a word


class Pip:
    """Runs pip. Callable from any thread."""

    def __init__(
        self, sandbox: Sandbox, *, timeout_s: float = 900.0, max_bytes: int = 8 * GIB, look_s: float = 2.0
    ) -> None:
        """An installation may take so long, and grow so large; it is looked after every `look_s`."""
        self.timeout_s = timeout_s
        self._look_s = look_s
        self._max_bytes = max_bytes
        self._sandbox = sandbox

    def install(self, environment: Path, requirements: Sequence[str]) -> None:
        """Install into a virtual environment, which has none of its files open to writing afterwards.

        Blocking. Raises EtlUnavailable with pip's last words.
        """
        if find_spec("pip") is None:
            raise EtlUnavailable("its requirements can't be installed: there is no pip beside Transom")
        scratch = environment / "tmp"  # on disk: packages are unpacked there
        scratch.mkdir()
        log = environment / "pip.log"
        program = self._program(environment, requirements, scratch)
        user = self._sandbox.user
        if user is not None:
            _hand_over(environment, user)
        with (
            log.open("w+b") as written,
            contextlib.closing(self._sandbox.start(program, stdout=written, stderr=subprocess.STDOUT)) as confined,
        ):
            self._attend(confined, environment)
            written.seek(0)  # not by its name: a package's build may have put a link there
            said = written.read().decode(errors="replace")
            ending = confined.wait(words=said[-_LAST_CHARS:])
        if not ending.good:
            raise EtlUnavailable(f"its requirements could not be installed: pip ended with {ending}: {_last(said)}")
        shutil.rmtree(scratch, ignore_errors=True)
        if user is not None:
            _hand_over(environment, os.getuid())
            open_up(environment)

    def _program(self, environment: Path, requirements: Sequence[str], scratch: Path) -> Program:
        told = {name: value for name, value in os.environ.items() if _TOLD.fullmatch(name)}
        configuration = [path for name in _CONFIGURATION if (path := Path(name).expanduser()).is_file()]
        texts = [*told.values(), *requirements, *(path.read_text(errors="replace") for path in configuration)]
        python = str(environment / "bin" / "python")
        return Program(
            argv=(sys.executable, "-m", "pip", "--python", python, "install", *_OPTIONS, "--", *requirements),
            env={**told, "HOME": str(Path.home()), "TMPDIR": str(scratch)},
            read=(*configuration, *_named(texts)),
            write=(environment,),
            network=True,
            limits=_LIMITS,
        )

    def _attend(self, confined: Confined, environment: Path) -> None:
        """Wait until it has ended, within bounds."""
        give_up = time.monotonic() + self.timeout_s
        while True:
            with contextlib.suppress(TimeoutError):
                confined.wait(self._look_s)
                return
            if time.monotonic() > give_up:
                raise EtlUnavailable(f"its requirements could not be installed within {self.timeout_s:g} s")
            if _size(environment) > self._max_bytes:
                raise EtlUnavailable(f"its requirements take more than {in_words(self._max_bytes)} of the disk")


def open_up(folder: Path) -> None:
    """Let everybody read what is in a folder, whatever umask it was made with. Who may come to it is decided above."""
    folder.chmod(folder.stat().st_mode | 0o555)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))


def _named(texts: Sequence[str]) -> list[Path]:
    """What is there of the paths that pip is told: wheels, folders of them, certificates, constraints."""
    paths = [Path(unquote(path)) for text in texts for path in _PATH.findall(text)]
    return [path for path in dict.fromkeys(paths) if path != Path("/") and path.exists()]


def _hand_over(folder: Path, user: int) -> None:
    """Make somebody the owner of all there is in a folder."""
    os.chown(folder, user, user)
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(above, name), user, user, follow_symlinks=False)  # noqa: PTH118 - many


def _size(folder: Path) -> int:
    """How many bytes of the disk a folder takes."""
    size = 0
    for above, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):  # pip moves them about
                size += os.lstat(os.path.join(above, name)).st_blocks * _BLOCK  # noqa: PTH118
    return size


def _last(said: str) -> str:
    """The last lines that say something."""
    lines = [line.strip() for line in said.splitlines()]
    return " / ".join([line for line in lines if line and not _EMPTY_TALK.match(line)][-_LAST_LINES:])[-_LAST_CHARS:]
