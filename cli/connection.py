"""Where the server is and who asks: `--endpoint`, TRANSOM_ENDPOINT, TRANSOM_ACCESS_KEY and TRANSOM_SECRET_KEY.

Turns what can go wrong on the way into one line for the user. Client libraries are imported only when used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transom.cli.errors import CliError

if TYPE_CHECKING:
    from transom.client.admin import AdminClient

DEFAULT_ENDPOINT = "http://127.0.0.1:9000"

Endpoint = Annotated[
    str, typer.Option("--endpoint", envvar="TRANSOM_ENDPOINT", help="URL of the server.", metavar="URL")
]


@contextmanager
def admin(endpoint: str) -> Iterator[AdminClient]:
    """An admin client. Raises CliError for its errors: of a wrong use, where the server calls it a bad request."""
    from transom.client.admin import AdminClient, AdminError

    access_key, secret_key = _credentials()
    try:
        with AdminClient(_checked(endpoint), access_key, secret_key) as client:
            yield client
    except AdminError as error:
        raise CliError(str(error), exit_code=2 if error.status == HTTPStatus.BAD_REQUEST else 1) from error


@contextmanager
def s3(endpoint: str) -> Iterator[Any]:
    """A boto3 S3 client. Raises CliError for its errors, a stream's included."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    access_key, secret_key = _credentials()
    client: Any = boto3.client(
        "s3",
        endpoint_url=_checked(endpoint),
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    try:
        yield client
    except ClientError as error:
        details = error.response.get("Error", {})
        raise CliError(f"{details.get('Code', 'Error')}: {details.get('Message') or error}") from error
    except BotoCoreError as error:
        raise CliError(str(error)) from error
    finally:
        client.close()


def _credentials() -> tuple[str, str]:
    access_key, secret_key = os.environ.get("TRANSOM_ACCESS_KEY", ""), os.environ.get("TRANSOM_SECRET_KEY", "")
    if not access_key or not secret_key:
        raise CliError(
            "set TRANSOM_ACCESS_KEY and TRANSOM_SECRET_KEY to a key of the server (it prints its own at start)"
        )
    return access_key, secret_key


def _checked(endpoint: str) -> str:
    if not endpoint.startswith(("http://", "https://")):
        raise CliError(f"an endpoint is a URL such as {DEFAULT_ENDPOINT}, not {endpoint!r}", exit_code=2)
    return endpoint
