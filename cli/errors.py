"""What ends a command badly: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class CliError(Exception):
    """The command failed; the message is for the user. Exit code 1 for a failure, 2 for a wrong use."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Commands(TyperGroup):
    """The top group, and the one place where a CliError becomes a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command named in `ctx`."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            typer.echo(f"transom: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_code) from error
