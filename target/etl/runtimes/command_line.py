"""What a command ETL's program is told, and what of the disk it is shown: pure, but for looking at paths.

Placeholders in its words: `{input}` and `{output}` for files, `{args.NAME}` for an argument. Each stays in its word.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transom.plugins.contract import Reject
from transom.target.errors import EtlArgsInvalid, EtlFailed
from transom.target.etl.sandbox import system
from transom.target.etl.sandbox.program import PATH
from transom.target.etl.spec import Spec
from transom.target.etl.transports.base import Call

_HOLDER = re.compile(r"\{(?:(input|output)|args\.([A-Za-z_][A-Za-z0-9_-]*))\}")


def takes(words: Sequence[str], name: str) -> bool:
    """Whether the command names its input or its output as a file."""
    return any(match[1] == name for word in words for match in _HOLDER.finditer(word))


def filled(words: Sequence[str], call: Call, files: Mapping[str, Path]) -> tuple[str, ...]:
    """The command for one object. Raises EtlArgsInvalid for an argument that is not given."""
    if not any(_HOLDER.search(word) for word in words):
        return tuple(words)
    args = _args(call.etl_args)

    def fill(match: re.Match[str]) -> str:
        return str(files[match[1]]) if match[1] else _text(call.etl, args, match[2])

    return tuple(_HOLDER.sub(fill, word) for word in words)


def environment(spec: Spec, call: Call) -> dict[str, str]:
    """The environment for one object. Raises Reject, or EtlArgsInvalid, for what no environment can hold."""
    if "\0" in call.key:
        raise Reject("a program can't be told of a key with a NUL character in it")
    if "\0" in call.etl_args:
        raise _no_nul(call.etl)
    return {
        **spec.runtime.env,
        "TRANSOM_ETL": call.etl,
        "TRANSOM_BUCKET": call.bucket,
        "TRANSOM_KEY": call.key,
        "TRANSOM_ARGS": call.etl_args,
        "TRANSOM_CONTENT_TYPE": call.content_type,
    }


def shown(words: Sequence[str], hidden: Path) -> tuple[Path, ...]:
    """The files that the command names by their absolute path: scripts, models. Nothing of the data folder's.

    Of a program in a Python environment it is all of that environment, and of the Python it was made with.
    """
    seen_anyway = (*system.FOLDERS, *system.python(), hidden)
    named = [Path(word) for word in words if word.startswith("/") and not _HOLDER.search(word)]
    found = dict.fromkeys(path for file in named if file.is_file() for path in _environment_of(file) or [file])
    return tuple(
        path for path in found if not any(map(path.is_relative_to, seen_anyway)) and not hidden.is_relative_to(path)
    )


def check_program(etl: str, words: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise EtlFailed if the command's program is not installed here."""
    problem = lacking(words, env)
    if problem:
        raise EtlFailed(f"ETL '{etl}' failed: {problem}", etl=etl)


def lacking(words: Sequence[str], env: Mapping[str, str]) -> str:
    """That the command's program is not installed here, in words; "" where it is."""
    name = words[0]
    # Path.exists raises for a path that nobody may look at: it is none then
    found = os.path.exists(name) if "/" in name else shutil.which(name, path=env.get("PATH", PATH))  # noqa: PTH110
    return "" if found else f"there is no program '{name}' on this target"


def _environment_of(program: Path) -> list[Path]:
    """The folders of the Python environment that a program is in; none if it is in none."""
    folder = program.parent.parent
    if program.parent.name != "bin" or not (folder / "pyvenv.cfg").is_file():
        return []
    made_with = (folder / "bin" / "python").resolve().parent
    return [folder, made_with.parent] if made_with.name == "bin" and made_with != Path("/bin") else [folder]


def _args(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _text(etl: str, args: Any, name: str) -> str:
    if not isinstance(args, dict) or args.get(name) is None:
        raise EtlArgsInvalid(f"ETL '{etl}' needs the argument '{name}', which its command names", etl=etl)
    value = args[name]
    text = value if isinstance(value, str) else json.dumps(value)
    if "\0" in text:
        raise _no_nul(etl)
    return text


def _no_nul(etl: str) -> EtlArgsInvalid:
    return EtlArgsInvalid(f"ETL '{etl}': a program can't be given a NUL character", etl=etl)
