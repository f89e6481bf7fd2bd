"""What uploaded code runs with: a Python, the packages that it requires installed once, and the worker SDK.

Environments are kept in the data folder, by what they were made of, and shared by every process.
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import transom
from transom.target.errors import EtlUnavailable
from transom.target.etl.runtimes.pip_install import Pip, open_up
from transom.target.etl.sandbox.launch import Sandbox
from transom.target.etl.sandbox.program import Limits, Program
from transom.target.etl.spec import Spec

READY = "ready"  # in an environment's folder: written when all is installed
_LOCK_PAUSE_S = 0.1
_PACKAGE, _SDK = "__init__.py", "worker"  # what of our own package is shown to code


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python to run code with, and what has to be shown of the disk for it."""

    python: Path
    read: tuple[Path, ...] = ()


class Environments:
    """Makes environments and finds those that were made. Callable from any thread."""

    def __init__(self, folder: Path, sandbox: Sandbox, pip: Pip | None = None) -> None:
        self._folder = folder
        self._pip = pip or Pip(sandbox)
        self._sdk: Path | None = None

    def get(self, requirements: Sequence[str]) -> Environment:
        """The environment with these requirements: Transom's own Python for none. Blocking, and for long at first.

        Raises EtlUnavailable with pip's last words.
        """
        if not requirements:
            return Environment(Path(sys.executable))
        folder = self._folder / _key(requirements)
        if not (folder / READY).exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_suffix(".lock"), self._pip.timeout_s):
                if not (folder / READY).exists():
                    self._make(folder, requirements)
        return Environment(folder / "bin" / "python", (folder,))

    def sdk(self) -> Path:
        """A folder with `transom.worker` in it and nothing else, for PYTHONPATH."""
        if self._sdk is None:
            self._sdk = self._made_sdk()
        return self._sdk

    def _made_sdk(self) -> Path:
        source = Path(transom.__file__).parent
        folder = self._folder / f"sdk-{_digest(source)}"
        if not folder.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".sdk.", dir=self._folder) as made:
                copy = Path(made) / "sdk"  # the folder around it is for its maker only
                _copy(source, copy / transom.__name__)
                open_up(copy)
                with contextlib.suppress(OSError):  # another process was first
                    copy.rename(folder)
        return folder

    def _make(self, folder: Path, requirements: Sequence[str]) -> None:
        # In its place at once, for scripts in it have its path; until it is ready it counts for nothing.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
            self._pip.install(folder, requirements)
        except OSError as error:
            raise EtlUnavailable(f"its requirements could not be installed: {error}") from error
        ready = folder / ".ready"
        ready.unlink(missing_ok=True)  # what a package's build may have put there, a link perhaps
        with ready.open("x") as written:
            written.write("\n".join(requirements))
        ready.rename(folder / READY)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a code worker has its things: `folder` is its own to write to, `files` has the objects it may read."""

    folder: Path
    files: Path | None = None


def code_launch(
    spec: Spec, environment: Environment, sdk: Path, place: Place, env: Mapping[str, str], limits: Limits
) -> Program:
    """How to run uploaded code: our SDK's server with the code's file, which is written to the worker's folder."""
    file = place.folder / "transformer.py"
    file.unlink(missing_ok=True)
    with file.open("x", encoding="utf-8") as written:  # the worker before may have put a link in its place
        written.write(spec.runtime.code or "")
        os.fchmod(written.fileno(), 0o644)
    path = os.pathsep.join(filter(None, (str(sdk), env.get("PYTHONPATH"))))
    entry = ("--class", spec.runtime.entry) if spec.runtime.entry else ()
    return Program(
        # -P: its scratch folder is no place to import from
        argv=(str(environment.python), "-P", "-m", "transom.worker", str(file), *entry),
        env={"PYTHONUNBUFFERED": "1", **env, "PYTHONPATH": path},
        read=(*environment.read, sdk, *([place.files] if place.files else [])),
        write=(place.folder,),
        network=spec.network,
        limits=limits,
    )


def _sdk_files(source: Path) -> list[Path]:
    return [source / _PACKAGE, *sorted((source / _SDK).rglob("*.py"))]


def _digest(source: Path) -> str:
    digest = hashlib.sha256(str(sys.implementation.cache_tag).encode())
    for file in _sdk_files(source):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _copy(source: Path, folder: Path) -> None:
    for file in _sdk_files(source):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    compileall.compile_dir(folder, quiet=2)


def _key(requirements: Sequence[str]) -> str:
    """The name of an environment: what it is made of, and the Python it is made with."""
    made_of = [sys.implementation.cache_tag, platform.python_version(), platform.machine(), sys.base_prefix]
    return hashlib.sha256(json.dumps([made_of, list(requirements)]).encode()).hexdigest()


@contextlib.contextmanager
def _locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a file's lock: another process may be making the same environment."""
    give_up = time.monotonic() + timeout_s
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise EtlUnavailable("its requirements are being installed by another process, for long") from None
                time.sleep(_LOCK_PAUSE_S)
        yield
