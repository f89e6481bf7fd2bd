"""`transom etl`: make, show, start, stop and remove ETLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.arguments import json_object
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.output import Json, show_json, show_record, show_table

if TYPE_CHECKING:
    from transom.client.records import Etl

app = typer.Typer(no_args_is_help=True, help="Make, show, start, stop and remove ETLs.")

Name = Annotated[str, typer.Argument(help="The ETL's name.")]


@app.command()
def init(
    *,
    plugin: Annotated[str, typer.Option("--plugin", help="The transformer, as `transom plugins` names it.")],
    name: Annotated[str | None, typer.Option("--name", help="The ETL's name; else the transformer's.")] = None,
    args: Annotated[str | None, typer.Option("--args", help="Its arguments.", metavar="JSON")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep results.")] = True,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--not-deterministic",
            help="Whether equal input gives equal output; else what the transformer declares.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", min=1, help="Objects at once.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Seconds an object may take.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Make an ETL of a plugin's transformer, or change its configuration."""
    configuration = json_object(args)
    with admin(endpoint) as client:
        etl = client.init_etl(
            name or plugin,
            plugin,
            configuration,
            cache=cache,
            deterministic=deterministic,
            concurrency=concurrency,
            timeout_s=timeout_s,
        )
    _show(etl, as_json=as_json)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="One ETL; else all.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Show one ETL, or all."""
    with admin(endpoint) as client:
        if name is not None:
            _show(client.etl(name), as_json=as_json)
            return
        etls = client.etls()
    if as_json:
        show_json(etls)
        return
    rows = [(etl.name, etl.plugin, etl.kind, etl.state, etl.revision, etl.args) for etl in etls]
    show_table(["NAME", "PLUGIN", "KIND", "STATE", "REVISION", "ARGS"], rows, empty="no ETLs")


@app.command()
def start(name: Name, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Let a stopped ETL take requests again."""
    with admin(endpoint) as client:
        _show(client.start_etl(name), as_json=as_json)


@app.command()
def stop(name: Name, endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: Json = False) -> None:
    """Refuse requests for an ETL until it is started."""
    with admin(endpoint) as client:
        _show(client.stop_etl(name), as_json=as_json)


@app.command("rm")
def remove(name: Name, endpoint: Endpoint = DEFAULT_ENDPOINT) -> None:
    """Remove an ETL that no view uses."""
    with admin(endpoint) as client:
        client.remove_etl(name)


def _show(etl: Etl, *, as_json: bool) -> None:
    if as_json:
        show_json(etl)
        return
    show_record(
        {
            "name": etl.name,
            "plugin": etl.plugin,
            "kind": etl.kind,
            "state": etl.state,
            "revision": etl.revision,
            "args": etl.args,
            "cache": etl.cache,
            "deterministic": "as declared" if etl.deterministic is None else etl.deterministic,
            "concurrency": "default" if etl.concurrency is None else etl.concurrency,
            "timeout": "default" if etl.timeout_s is None else f"{etl.timeout_s:g} s",
            "owner": etl.owner,
        }
    )
