"""`transom etl`: make, show, start, stop and remove ETLs, and see how they fare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from transom.cli import etl_monitor
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.errors import CliError
from transom.cli.etl_init import Wait, init
from transom.cli.etl_show import show_all, show_many, show_one
from transom.cli.output import Json, show_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transom.client.admin import AdminClient

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Make, show, start, stop and remove ETLs, and see how they fare.")

Name = Annotated[str, typer.Argument(help="The ETL's name.")]
Names = Annotated[list[str] | None, typer.Argument(help="The ETLs' names.", metavar="NAME...")]
All = Annotated[bool, typer.Option("--all", help="Every ETL made by init.")]


app.command()(init)
app.command("update", help="The same as init: change an ETL, or make it.")(init)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="One ETL; else all.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Show one ETL, or all."""
    with admin(endpoint) as client:
        if name is not None:
            show_one(client.etl(name), as_json=as_json)
            return
        etls = client.etls()
    if as_json:
        show_json(etls)
    else:
        show_many(etls)


@app.command()
def start(
    names: Names = None,
    every: All = False,
    wait: Wait = True,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Let stopped or failed ETLs take requests again."""
    with admin(endpoint) as client:
        etls = _for_each(client, names, lambda name: client.start_etl(name, wait=wait), every=every)
    show_all(etls, as_json=as_json)


@app.command()
def stop(names: Names = None, every: All = False, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Refuse requests for ETLs until they are started."""
    with admin(endpoint) as client:
        etls = _for_each(client, names, client.stop_etl, every=every)
    show_all(etls, as_json=as_json)


@app.command()
def restart(name: Name, wait: Wait = True, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Replace the workers that are kept for an ETL by fresh ones; where none are, nothing is replaced."""
    with admin(endpoint) as client:
        show_one(client.restart_etl(name, wait=wait), as_json=as_json)


@app.command("rm")
def remove(names: Names = None, every: All = False, endpoint: Endpoint = DEFAULT_ENDPOINT) -> None:
    """Remove ETLs that no view uses."""
    with admin(endpoint) as client:
        _for_each(client, names, client.remove_etl, every=every)


app.command()(etl_monitor.logs)
app.command()(etl_monitor.errors)
app.command()(etl_monitor.metrics)
app.command()(etl_monitor.health)


def _for_each(
    client: AdminClient, names: Sequence[str] | None, act: Callable[[str], T], *, every: bool
) -> tuple[T, ...]:
    if bool(names) == every:
        raise CliError("name ETLs, or give --all", exit_code=2)
    chosen = names or [etl.name for etl in client.etls() if etl.kind == "explicit"]
    return tuple(act(name) for name in chosen)
