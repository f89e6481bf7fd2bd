"""Specs as `transom etl init` sends them: read from a file with the files it names, or made of a few options.

It checks only which options go together: the server knows specs, and says on which line one is wrong.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transom.cli.errors import CliError

_FILE_NAME = re.compile(r"[^\n]+\.(py|txt)")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say; None is not said. `settings` and `overrides` are keys of a spec."""

    runtime: Mapping[str, Any]
    deps: Path | None
    entry: str | None
    env: Mapping[str, str]
    settings: Mapping[str, Any]
    overrides: Mapping[str, str | None]

    def check(self, file: Path | None) -> None:
        """Raise CliError for options that don't go together."""
        given = [kind for kind, value in self.runtime.items() if value is not None]
        if len(given) + (file is not None) != 1:
            options = ", ".join(f"--{kind}" for kind in ("file", *self.runtime))
            raise CliError(f"give exactly one of {options}", exit_code=2)
        if (self.deps is not None or self.entry is not None) and "code" not in given:
            raise CliError("--deps and --class go with --code", exit_code=2)
        said = [key for key, value in {"env": self.env or None, **self.settings}.items() if value is not None]
        if file is not None and said:
            raise CliError(f"write it in the spec, not beside it: {', '.join(said)}", exit_code=2)
        worker = [key for key in ("communication", "init_timeout") if self.overrides[key] is not None]
        worker += [key for key in ("env", "network") if key in said]
        if "plugin" in given and worker:
            raise CliError(f"an installed transformer has no worker to set up: {', '.join(worker)}", exit_code=2)

    def text(self, name: str | None) -> str:
        """A spec that says the same. Raises CliError."""
        runtime = {**self._runtime(), **({"env": dict(self.env)} if self.env else {})}
        settings = {key: value for key, value in self.settings.items() if value is not None}
        return json.dumps({"name": name or self._default_name(runtime), "runtime": runtime, **settings})

    def _runtime(self) -> dict[str, Any]:
        (kind,) = (kind for kind, value in self.runtime.items() if value is not None)
        value = self.runtime[kind]
        if kind == "command":
            return {"command": _words(value)}
        if kind != "code":
            return {kind: value}
        requirements = {} if self.deps is None else {"requirements": _text_of(self.deps)}
        return {"code": _text_of(value), **requirements, **({} if self.entry is None else {"entry": self.entry})}

    def _default_name(self, runtime: Mapping[str, Any]) -> str:
        """A name by what runs: the code's file, the program, or the image without registry and tag."""
        if "code" in runtime:
            told = Path(self.runtime["code"]).stem
        elif "command" in runtime:
            told = Path(runtime["command"][0]).name
        elif "image" in runtime:
            told = runtime["image"].rpartition("/")[2].partition("@")[0].partition(":")[0]
        else:
            raise CliError("give the ETL a --name", exit_code=2)
        return re.sub(r"[^a-z0-9_]+", "-", told.lower()).strip("-_")[:32]


def read(file: Path) -> tuple[str, dict[str, str]]:
    """A file of specs, and the texts of the files they name beside it. Raises CliError."""
    if str(file) == "-":
        return sys.stdin.read(), {}
    text = _text_of(file)
    return text, {name: _text_of(file.parent / name) for name in sorted(_named(text))}


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CliError(f"--command: {error}", exit_code=2) from error
    if not words:
        raise CliError("--command: name a program", exit_code=2)
    return words


def _named(text: str) -> set[str]:
    """The files that specs name as code and requirements; none where the text is no YAML."""
    import yaml

    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, RecursionError):
        return set()
    runtimes = [document.get("runtime") for document in documents if isinstance(document, dict)]
    said = [each.get(key) for each in runtimes if isinstance(each, dict) for key in ("code", "requirements")]
    return {name for name in said if isinstance(name, str) and _FILE_NAME.fullmatch(name)}


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise CliError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is not UTF-8 text") from error
