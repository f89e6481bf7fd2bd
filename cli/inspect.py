"""`transom inspect`: an offline job that reads objects, or tries a pipeline on them, and writes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from transom.cli import job_options as options
from transom.cli.arguments import json_value, seconds
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.errors import CliError
from transom.cli.job_options import Engine, named_keys
from transom.cli.job_run import follow


def inspect(
    *,
    source: Annotated[str, typer.Argument(help="What to read: a key; or, ending in / or without a path, all below.")],
    etl: Annotated[str, typer.Option("--etl", help="An ETL or a pipeline to try on every object.")] = "",
    args: options.Args = None,
    prefix: options.Prefix = "",
    match: options.Match = None,
    keys: options.Keys = None,
    template: options.Template = None,
    limit: options.Limit = None,
    where: options.Where = None,
    where_etl: options.WhereEtl = "",
    where_args: options.WhereArgs = None,
    concurrency: options.Concurrency = None,
    continue_on_error: options.GoOn = True,
    timeout: options.Timeout = None,
    object_timeout: options.ObjectTimeout = None,
    engine: options.EngineOption = Engine.LOCAL,
    wait: options.Wait = True,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: options.JobJson = False,
) -> None:
    """Read every object and check it against its size and ETag; with --etl, see whether it can be transformed."""
    arguments, where_arguments = json_value(args), json_value(where_args, "--where-args")
    if arguments is not None and not etl:
        raise CliError("--args needs --etl", exit_code=2)
    listed, spelt = named_keys(keys, template)
    timeout_s, object_timeout_s = seconds(timeout, "--timeout"), seconds(object_timeout, "--object-timeout")
    with admin(endpoint) as client:
        job = client.inspect(
            source,
            etl,
            args=arguments,
            prefix=prefix,
            match=match,
            keys=listed,
            template=spelt,
            limit=limit,
            where=where,
            where_etl=where_etl,
            where_args=where_arguments,
            concurrency=concurrency,
            continue_on_error=continue_on_error,
            timeout_s=timeout_s,
            object_timeout_s=object_timeout_s,
            engine=engine.value,
        )
        follow(client, job, wait=wait, as_json=as_json)
