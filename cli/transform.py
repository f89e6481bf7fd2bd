"""`transom transform`: an offline job that writes what a pipeline makes of a bucket, a prefix or an object."""

from __future__ import annotations

from typing import Annotated

import typer

from transom.cli import job_options as options
from transom.cli.arguments import json_value, pairs, seconds
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.errors import CliError
from transom.cli.job_options import Engine, named_keys
from transom.cli.job_run import follow

_BESIDE_RETRY = ("retry_errors", "wait", "endpoint", "as_json")


def transform(
    ctx: typer.Context,
    *,
    source: Annotated[
        str | None, typer.Argument(help="What to read: a key; or, ending in / or without a path, all below.")
    ] = None,
    destination: Annotated[str | None, typer.Argument(help="Where to write; a missing bucket is made.")] = None,
    etl: Annotated[str, typer.Option("--etl", help="An ETL, or a pipeline such as 'resize>>webp'.")] = "",
    args: options.Args = None,
    ext: Annotated[
        list[str] | None, typer.Option("--ext", help="Write under another extension. Repeatable.", metavar="OLD=NEW")
    ] = None,
    prefix: options.Prefix = "",
    prepend: Annotated[str, typer.Option("--prepend", help="What stands before every name that is written.")] = "",
    match: options.Match = None,
    keys: options.Keys = None,
    template: options.Template = None,
    limit: options.Limit = None,
    where: options.Where = None,
    where_etl: options.WhereEtl = "",
    where_args: options.WhereArgs = None,
    concurrency: options.Concurrency = None,
    dry_run: options.DryRun = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Delete what an earlier run made of objects that are gone.")
    ] = False,
    force: options.Force = False,
    continue_on_error: options.GoOn = True,
    timeout: options.Timeout = None,
    object_timeout: options.ObjectTimeout = None,
    engine: options.EngineOption = Engine.LOCAL,
    retry_errors: Annotated[
        str | None,
        typer.Option("--retry-errors", help="Instead of a new job: run again what failed in this one.", metavar="JOB"),
    ] = None,
    wait: options.Wait = True,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: options.JobJson = False,
) -> None:
    """Transform a bucket, a prefix or an object into another place; what is up to date there already is left alone."""
    if retry_errors is not None:
        _retry(retry_errors, _given(ctx), wait=wait, endpoint=endpoint, as_json=as_json)
        return
    if source is None or destination is None or not etl:
        raise CliError("say what to transform: SOURCE DESTINATION --etl PIPELINE", exit_code=2)
    arguments, where_arguments = json_value(args), json_value(where_args, "--where-args")
    extensions = pairs(ext or [], "--ext", "OLD=NEW")
    listed, spelt = named_keys(keys, template)
    timeout_s, object_timeout_s = seconds(timeout, "--timeout"), seconds(object_timeout, "--object-timeout")
    with admin(endpoint) as client:
        job = client.transform(
            source,
            destination,
            etl,
            args=arguments,
            ext=extensions,
            prefix=prefix,
            prepend=prepend,
            match=match,
            keys=listed,
            template=spelt,
            limit=limit,
            where=where,
            where_etl=where_etl,
            where_args=where_arguments,
            concurrency=concurrency,
            dry_run=dry_run,
            sync=sync,
            force=force,
            continue_on_error=continue_on_error,
            timeout_s=timeout_s,
            object_timeout_s=object_timeout_s,
            engine=engine.value,
        )
        follow(client, job, wait=wait, as_json=as_json)


def _given(ctx: typer.Context) -> list[str]:
    """What was given on the command line that a retry has no use for."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params if name not in _BESIDE_RETRY}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _retry(job_id: str, others: list[str], *, wait: bool, endpoint: str, as_json: bool) -> None:
    if others:
        said = ", ".join(name.replace("_", "-") for name in others)
        raise CliError(f"--retry-errors runs a job as it was asked for: leave out {said}", exit_code=2)
    with admin(endpoint) as client:
        follow(client, client.retry_job(job_id), wait=wait, as_json=as_json)
