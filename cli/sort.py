"""`transom sort`: an offline job that writes the records of objects and shards as new shards, sorted or shuffled."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from transom.cli import job_options as options
from transom.cli.arguments import seconds, size
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.job_options import Engine, named_keys
from transom.cli.job_run import follow


class By(StrEnum):
    """What records are ordered by."""

    KEY = "key"
    CONTENT = "content"
    SHUFFLE = "shuffle"


class Values(StrEnum):
    """What is in the member that records are sorted by."""

    TEXT = "text"
    INT = "int"
    FLOAT = "float"


def sort(
    *,
    source: Annotated[str, typer.Argument(help="Objects or tar shards: a key; or, ending in /, all below.")],
    destination: Annotated[str, typer.Argument(help="Where to write the shards; a missing bucket is made.")],
    by: Annotated[
        By | None, typer.Option("--by", help="What to order records by; else by content where --content is given.")
    ] = None,
    content: Annotated[
        str, typer.Option("--content", help="The member to sort by: 'cls' for NAME.cls.", metavar="EXT")
    ] = "",
    values: Annotated[Values, typer.Option("--values", help="What is in that member.")] = Values.TEXT,
    descending: Annotated[bool, typer.Option("--descending", help="The greatest first.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="For --by shuffle: equal seeds, equal shards.")] = 0,
    shard_size: Annotated[
        str | None, typer.Option("--shard-size", help="How large a shard is, such as 256MiB.", metavar="SIZE")
    ] = None,
    shard_count: Annotated[int | None, typer.Option("--shard-count", min=1, help="How many shards there are.")] = None,
    shard_records: Annotated[
        int | None, typer.Option("--shard-records", min=1, help="How many records a shard has.")
    ] = None,
    shards: Annotated[
        str | None, typer.Option("--shards", help="Names, such as 'shard-{000000..999999}.tar'.", metavar="TEMPLATE")
    ] = None,
    prefix: options.Prefix = "",
    match: options.Match = None,
    keys: options.Keys = None,
    template: options.Template = None,
    limit: options.Limit = None,
    where: options.Where = None,
    concurrency: options.Concurrency = None,
    dry_run: options.DryRun = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Delete shards of an earlier sort of the source that this one doesn't make.")
    ] = False,
    force: options.Force = False,
    continue_on_error: options.GoOn = True,
    timeout: options.Timeout = None,
    engine: options.EngineOption = Engine.LOCAL,
    wait: options.Wait = True,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: options.JobJson = False,
) -> None:
    """Sort or shuffle the records of a bucket into new tar shards. Files of one basename are one record."""
    order = by or (By.CONTENT if content else By.KEY)
    listed, spelt = named_keys(keys, template)
    timeout_s = seconds(timeout, "--timeout")
    shard_bytes = size(shard_size, "--shard-size")
    with admin(endpoint) as client:
        job = client.sort(
            source,
            destination,
            by=order.value,
            content=content,
            values=values.value,
            descending=descending,
            seed=seed,
            shard_size=shard_bytes,
            shard_count=shard_count,
            shard_records=shard_records,
            shards=shards,
            prefix=prefix,
            match=match,
            keys=listed,
            template=spelt,
            limit=limit,
            where=where,
            concurrency=concurrency,
            dry_run=dry_run,
            sync=sync,
            force=force,
            continue_on_error=continue_on_error,
            timeout_s=timeout_s,
            engine=engine.value,
        )
        follow(client, job, wait=wait, as_json=as_json)
