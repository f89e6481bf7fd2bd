"""What `transom transform`, `inspect` and `sort` take alike: which objects, how many at once, how it is watched."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from transom.cli.errors import CliError

STDIN = "-"


class Engine(StrEnum):
    """What performs a job's work."""

    LOCAL = "local"
    RAY = "ray"


Args = Annotated[
    str | None,
    typer.Option("--args", help="One ETL's arguments, or a list with one element a stage.", metavar="JSON"),
]
Prefix = Annotated[str, typer.Option("--prefix", help="Only keys that go on so, after the source's own prefix.")]
Match = Annotated[
    str | None, typer.Option("--match", help="Only keys that fit, such as '*.jpg'; after the source's prefix.")
]
Keys = Annotated[
    str | None,
    typer.Option(
        "--keys", help="Only the keys in a file, one a line, after the source's prefix; - is stdin. Or a template."
    ),
]
Template = Annotated[
    str | None, typer.Option("--template", help="Only the keys of a template, such as 'shard-{0001..0999..2}.tar'.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many objects, the first.")]
Where = Annotated[
    str | None,
    typer.Option("--where", help="Only objects for which this is true, such as 'size > 1024'.", metavar="PREDICATE"),
]
WhereEtl = Annotated[
    str, typer.Option("--where-etl", help="The pipeline whose output the predicate sees, in place of the job's.")
]
WhereArgs = Annotated[str | None, typer.Option("--where-args", help="Beside --where-etl: arguments.", metavar="JSON")]
Concurrency = Annotated[
    int | None,
    typer.Option(
        *("--concurrency", "--num-workers"),
        min=1,
        max=1024,
        help="Objects at once; else one a core. Without Ray 64 at the most.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do all of it but writing; say what would be written.")]
Force = Annotated[bool, typer.Option("--force", help="Do what is up to date too; let a bucket be its own destination.")]
GoOn = Annotated[
    bool, typer.Option("--continue-on-error/--fail-fast", help="Go on after an object that fails, or stop.")
]
Timeout = Annotated[str | None, typer.Option("--timeout", help="How long the job may take, such as 2h.")]
ObjectTimeout = Annotated[
    str | None,
    typer.Option("--object-timeout", help="How long an object may take, such as 45s; else as its ETLs say."),
]
EngineOption = Annotated[Engine, typer.Option("--engine", help="Where it runs: beside the objects, or on Ray.")]
Wait = Annotated[bool, typer.Option("--wait/--detach", help="Wait for the end, or leave it to the server.")]
JobJson = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line; the last is the result.")]


def named_keys(keys: str | None, template: str | None) -> tuple[list[str] | None, str | None]:
    """The keys that --keys names, and the template that it or --template gives; None for none. Raises CliError."""
    if keys is None:
        return None, template
    if template is not None:
        raise CliError("give --keys or --template, not both", exit_code=2)
    if keys != STDIN and not Path(keys).exists() and "{" in keys:
        return None, keys
    return [line for line in _text(keys).split("\n") if line], None


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CliError(f"--keys: can't read {file}: {error.strerror}", exit_code=2) from error
    except UnicodeDecodeError as error:
        raise CliError(f"--keys: {file} is not UTF-8 text", exit_code=2) from error
