"""`transom serve`: gathers what the command line says and hands it to the composition root.

It knows no defaults but the server's: only options that were given are passed on, over the config file's.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from transom.cli.arguments import pairs
from transom.cli.errors import CliError


class Server(StrEnum):
    """The HTTP servers that can carry the app."""

    HYPERCORN = "hypercorn"
    GRANIAN = "granian"


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    directory: Annotated[
        Path | None, typer.Argument(help="The data folder, made if it isn't there.", file_okay=False, metavar="[DIR]")
    ] = None,
    *,
    folder: Annotated[
        list[str] | None,
        typer.Option("--folder", help="Serve a folder, read-only, as a bucket. Repeatable.", metavar="NAME=PATH"),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = None,
    processes: Annotated[int | None, typer.Option("--processes", min=1, help="Server processes; one a core.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file.", exists=True, dir_okay=False, metavar="FILE")
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Serve BUCKET.NAME, virtual-host style. Repeatable.", metavar="NAME"),
    ] = None,
    advertise: Annotated[
        str | None, typer.Option("--advertise", help="The host that redirects name.", metavar="HOST")
    ] = None,
    server: Annotated[Server | None, typer.Option("--server", help="The HTTP server.")] = None,
    targets: Annotated[int | None, typer.Option("--targets", min=1, help="Run that many target processes.")] = None,
    gateways: Annotated[int | None, typer.Option("--gateways", min=1, help="Gateway processes before them.")] = None,
    log_level: Annotated[LogLevel | None, typer.Option("--log-level", help="How much to log.")] = None,
) -> None:
    """Run a gateway and its targets on this machine."""
    if gateways is not None and targets is None:
        raise CliError("--gateways needs --targets", exit_code=2)
    folders = {name: Path(path) for name, path in pairs(folder or [], "--folder", "NAME=PATH").items()}
    for path in folders.values():
        if not path.is_dir():
            raise CliError(f"--folder: {path} is no folder", exit_code=2)
    given: dict[str, object] = {
        "folders": folders or None,
        "host": host,
        "port": port,
        "processes": processes,
        "domains": domain or None,
        "advertise": advertise,
        "server": None if server is None else server.value,
        "targets": targets,
        "gateways": gateways,
        "log_level": None if log_level is None else log_level.value,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    from transom.gateway.serve import run

    raise typer.Exit(run(directory, config, overrides))
