"""The `transom` command: puts the nouns together. What a command needs is imported when it runs, so help is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from transom.cli.errors import Commands
from transom.cli.etl import app as etl
from transom.cli.get import get
from transom.cli.inspect import inspect
from transom.cli.job import app as job
from transom.cli.plugins import plugins
from transom.cli.serve import serve
from transom.cli.sort import sort
from transom.cli.transform import transform
from transom.cli.view import app as view

app = typer.Typer(
    name="transom",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An S3-compatible gateway that transforms objects on GET, next to where they are stored.",
)
app.command()(serve)
app.command(no_args_is_help=True)(get)
app.command(no_args_is_help=True)(transform)
app.command(no_args_is_help=True)(inspect)
app.command(no_args_is_help=True)(sort)
app.add_typer(job, name="job")
app.add_typer(etl, name="etl")
app.add_typer(view, name="view")
app.command()(plugins)


def _show_version(wanted: bool) -> None:
    if wanted:
        from transom import __version__

        typer.echo(f"transom {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Keep the options that stand before a command."""


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def bench(ctx: typer.Context) -> None:
    """Measure an S3 endpoint: the load generator."""
    # Its options are its own: they pass through unread, so that its libraries stay out of every other command.
    from transom.bench.command import app as bench_app

    typer.main.get_command(bench_app).main(args=ctx.args, prog_name="transom bench")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our stdout left, as `head` does. Nothing more can be written, the flush at exit included.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
