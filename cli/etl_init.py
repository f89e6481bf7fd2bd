"""`transom etl init`: makes an ETL of a spec's file, or of what a few options say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli import etl_spec
from transom.cli.arguments import json_object, json_value, pairs, seconds
from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.etl_show import show_all
from transom.cli.output import Json

if TYPE_CHECKING:
    from transom.client.records import Etl

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return once the workers run, or at once.")]


def init(
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", "--spec", help="Specs, YAML or JSON; - is stdin.", metavar="FILE"),
    ] = None,
    plugin: Annotated[
        str | None, typer.Option("--plugin", help="An installed transformer, as `transom plugins` names it.")
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option("--code", help="Python with a class or function.", exists=True, dir_okay=False, metavar="FILE"),
    ] = None,
    command: Annotated[
        str | None, typer.Option("--command", help="A program: an object on stdin, the result on stdout.")
    ] = None,
    image: Annotated[str | None, typer.Option("--image", help="A container image.", metavar="REF")] = None,
    url: Annotated[str | None, typer.Option("--url", help="A service that somebody else runs.")] = None,
    deps: Annotated[
        Path | None,
        typer.Option("--deps", help="Beside --code: a requirements file.", exists=True, dir_okay=False, metavar="FILE"),
    ] = None,
    entry: Annotated[
        str | None, typer.Option("--class", help="Beside --code: the class or function, if there are several.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The ETL's name; else it goes by what it runs.")] = None,
    args: Annotated[
        str | None, typer.Option("--args", help="Arguments laid under a request's.", metavar="JSON")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="A variable of its environment. Repeatable.", metavar="NAME=VALUE")
    ] = None,
    network: Annotated[bool, typer.Option("--network", help="Let it use the network.")] = False,
    communication: Annotated[
        str | None, typer.Option("--communication", help="How it is spoken to, such as ws://; else by its kind.")
    ] = None,
    init_timeout: Annotated[
        str | None, typer.Option("--init-timeout", help="How long it may take to start, such as 5m.")
    ] = None,
    obj_timeout: Annotated[
        str | None, typer.Option("--obj-timeout", "--timeout", help="How long an object may take, such as 45s.")
    ] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep results.")] = True,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--not-deterministic",
            help="Whether equal input gives equal output; else it does, or what the transformer declares.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", min=1, help="Objects at once.")] = None,
    wait: Wait = True,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Make an ETL, or change its configuration; of a spec, a transformer, code, a command, an image or a service."""
    asked = etl_spec.Asked(
        runtime={"plugin": plugin, "code": code, "command": command, "image": image, "url": url},
        deps=deps,
        entry=entry,
        env=pairs(env or [], "--env", "NAME=VALUE"),
        settings={
            "args": json_object(args) if plugin is not None else json_value(args),
            "network": network or None,
            "cache": None if cache else False,
            "deterministic": deterministic,
            "concurrency": concurrency,
        },
        overrides={"communication": communication, "init_timeout": init_timeout, "obj_timeout": obj_timeout},
    )
    asked.check(file)
    etls: tuple[Etl, ...]
    if plugin is not None:
        with admin(endpoint) as client:
            made = client.init_etl(
                name or plugin,
                plugin,
                json_object(args),
                cache=cache,
                deterministic=deterministic,
                concurrency=concurrency,
                timeout_s=seconds(obj_timeout, "--obj-timeout"),
            )
            etls = (made,)
    else:
        text, files = etl_spec.read(file) if file is not None else (asked.text(name), {})
        with admin(endpoint) as client:
            etls = client.init_spec(text, files=files, name=name, wait=wait, **asked.overrides)
    show_all(etls, as_json=as_json)
