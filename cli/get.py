"""`transom get`: read one object, through a pipeline if asked, into a file or onto stdout."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from transom.cli.arguments import json_value, s3_url
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, s3
from transom.cli.errors import CliError

CHUNK_BYTES = 1024 * 1024
STDOUT = "-"
_TEXT_TYPES = ("text/", "application/json", "application/xml")


def get(
    url: Annotated[str, typer.Argument(help="The object.", metavar="s3://BUCKET/KEY")],
    etl: Annotated[str | None, typer.Option("--etl", help="An ETL, or a pipeline such as 'resize>>webp'.")] = None,
    args: Annotated[
        str | None,
        typer.Option("--args", help="One ETL's arguments, or a list with one element a stage.", metavar="JSON"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file or a folder; '-' is stdout, the default.", metavar="FILE|-"),
    ] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
) -> None:
    """Read an object, transformed on the way. A file appears whole or not at all."""
    bucket, key = s3_url(url)
    arguments = json_value(args)
    if arguments is not None and etl is None:
        raise CliError("--args needs --etl", exit_code=2)
    with s3(endpoint) as client:
        response = _ask(client, bucket, key, etl, arguments)
        body = response["Body"]
        try:
            _refuse_binary_on_terminal(output, response.get("ContentType", ""))
            with _destination(output, key) as file:
                _copy(body.iter_chunks(CHUNK_BYTES), file, response.get("ContentLength"))
        finally:
            body.close()


def _ask(client: Any, bucket: str, key: str, etl: str | None, arguments: Any) -> dict[str, Any]:
    if etl is None:
        response: dict[str, Any] = client.get_object(Bucket=bucket, Key=key)
        return response
    from transom.client.boto import get_object

    return get_object(client, etl=etl, etl_args=arguments, Bucket=bucket, Key=key)


def _refuse_binary_on_terminal(output: str | None, content_type: str) -> None:
    if output is None and sys.stdout.isatty() and not content_type.startswith(_TEXT_TYPES):
        raise CliError(f"{content_type or 'unknown content'} on a terminal; give -o FILE, or -o - to have it anyway")


@contextmanager
def _destination(output: str | None, key: str) -> Iterator[IO[bytes]]:
    path = Path(STDOUT if output is None else output)
    if output not in (None, STDOUT) and path.is_dir():
        path /= key.rstrip("/").rpartition("/")[2]
    try:
        with _opened(path) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "stdout" if path == Path(STDOUT) else path
        raise CliError(f"can't write {name}: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path == Path(STDOUT):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file():
        with path.open("wb") as device:  # a device or a pipe is written to, not replaced
            yield device
    else:
        with _replacing(path) as file:
            yield file


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its place at the end, and is gone after an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _copy(chunks: Iterable[bytes], file: IO[bytes], size: int | None) -> None:
    if not sys.stderr.isatty():
        for chunk in chunks:
            file.write(chunk)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size)
        for chunk in chunks:
            file.write(chunk)
            progress.advance(task, len(chunk))
