"""`transom view`: make, show and remove views."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.arguments import json_value, pairs
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.output import Json, show_json, show_record, show_table

if TYPE_CHECKING:
    from transom.client.records import View

app = typer.Typer(no_args_is_help=True, help="Make, show and remove views: read-only buckets of transformed objects.")

Name = Annotated[str, typer.Argument(help="The view's name: what clients use as a bucket.")]


class Sizes(StrEnum):
    """What a listing says of a result not yet made."""

    SOURCE = "source"
    MATERIALISE = "materialise"


@app.command()
def create(
    name: Name,
    bucket: Annotated[str, typer.Option("--of", help="The source bucket.", metavar="BUCKET")],
    etl: Annotated[str, typer.Option("--etl", help="An ETL, or a pipeline such as 'resize>>webp'.")],
    args: Annotated[
        str | None,
        typer.Option("--args", help="One ETL's arguments, or a list with one element a stage.", metavar="JSON"),
    ] = None,
    ext: Annotated[
        list[str] | None, typer.Option("--ext", help="List keys under another extension.", metavar="OLD=NEW")
    ] = None,
    sizes: Annotated[
        Sizes,
        typer.Option("--sizes", help="Sizes in listings: the true ones, made first where need be, or the sources'."),
    ] = Sizes.MATERIALISE,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Make a view, or change it."""
    arguments, extensions = json_value(args), pairs(ext or [], "--ext", "OLD=NEW")
    with admin(endpoint) as client:
        view = client.create_view(name, bucket, etl, args=arguments, ext=extensions, sizes=sizes.value)
    _show(view, as_json=as_json)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="One view; else all.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Show one view, or all."""
    with admin(endpoint) as client:
        if name is not None:
            _show(client.view(name), as_json=as_json)
            return
        views = client.views()
    if as_json:
        show_json(views)
        return
    rows = [(view.name, view.bucket, view.etl, view.args, _extensions(view), view.sizes) for view in views]
    show_table(["NAME", "BUCKET", "ETL", "ARGS", "EXT", "SIZES"], rows, empty="no views")


@app.command("rm")
def remove(name: Name, endpoint: Endpoint = DEFAULT_ENDPOINT) -> None:
    """Remove a view; its source bucket stays as it is."""
    with admin(endpoint) as client:
        client.remove_view(name)


def _show(view: View, *, as_json: bool) -> None:
    if as_json:
        show_json(view)
        return
    show_record(
        {
            "name": view.name,
            "bucket": view.bucket,
            "etl": view.etl,
            "args": view.args,
            "ext": _extensions(view),
            "sizes": view.sizes,
            "owner": view.owner,
        }
    )


def _extensions(view: View) -> str:
    return " ".join(f"{old}={new}" for old, new in view.ext.items())
