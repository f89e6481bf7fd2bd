"""`transom etl logs`, `errors`, `metrics` and `health`: what an ETL and its workers have to say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.errors import CliError
from transom.cli.output import Json, show_json, show_record, show_table

_LOCAL = "local"  # the one target of a server that is gateway and target in one

Name = Annotated[str, typer.Argument(help="The ETL's name.")]


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is printed from now on.")] = False,
    target: Annotated[str | None, typer.Option("--target", help="One target's; else all.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
) -> None:
    """Show the end of what an ETL's workers printed."""
    shown = target or _LOCAL
    with admin(endpoint) as client:
        for piece in client.follow_logs(name, target=target) if follow else client.etl_logs(name, target=target):
            if piece.target != shown:
                typer.echo(f"==> {piece.target} <==")
                shown = piece.target
            # what is followed may be half a line, whose end comes later
            typer.echo(piece.text, nl=not follow and bool(piece.text) and not piece.text.endswith("\n"))


def errors(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 100,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Show the objects that an ETL failed on, the newest first."""
    with admin(endpoint) as client:
        found = client.etl_errors(name, limit=limit)
    if as_json:
        show_json(found)
        return
    rows = [
        (_time(each.time), f"{each.bucket}/{each.key}", each.code, each.stage, " ".join(each.message.split()))
        for each in found
    ]
    show_table(["TIME", "OBJECT", "CODE", "STAGE", "MESSAGE"], rows, empty="no errors")


def metrics(name: Name, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Show an ETL's numbers, and what its workers use."""
    with admin(endpoint) as client:
        found = client.etl_metrics(name)
    if as_json:
        show_json(found)
    else:
        show_record(found)


def health(name: Name, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Show whether an ETL is well; the exit code is 1 where it isn't."""
    with admin(endpoint) as client:
        found = client.etl_health(name)
    if as_json:
        show_json(found)
    else:
        show_record(found)
    if found.get("health", "ok") != "ok":
        raise CliError(f"ETL {name!r} is {found['health']}")


def _time(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
