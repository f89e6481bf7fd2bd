"""`transom plugins`: the transformers that the server's plugins bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.connection import DEFAULT_ENDPOINT, Endpoint, admin
from transom.cli.errors import CliError
from transom.cli.output import Json, cell, show_json, show_record, show_table

if TYPE_CHECKING:
    from transom.client.records import Plugin, Plugins


def plugins(
    name: Annotated[str | None, typer.Argument(help="One transformer, with its arguments; else all.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: Json = False,
) -> None:
    """Show the transformers that installed plugins bring."""
    with admin(endpoint) as client:
        found = client.plugins()
    if name is not None:
        _show_one(_named(found, name), as_json=as_json)
    elif as_json:
        show_json(found)
    else:
        _show_all(found)


def _named(found: Plugins, name: str) -> Plugin:
    for plugin in found.available:
        if plugin.name == name:
            return plugin
    reason = found.missing.get(name)
    raise CliError(f"no transformer named {name!r}" + (f": {reason}" if reason else ""))


def _show_all(found: Plugins) -> None:
    rows: list[tuple[object, ...]] = [
        (plugin.name, plugin.version, plugin.distribution, ", ".join(_properties(plugin)), _summary(plugin))
        for plugin in found.available
    ]
    rows += [(name, "", "", "", f"not available: {reason}") for name, reason in found.missing.items()]
    show_table(["NAME", "VERSION", "FROM", "ARGS", ""], rows, empty="no plugins")


def _show_one(plugin: Plugin, *, as_json: bool) -> None:
    if as_json:
        show_json(plugin)
        return
    show_record(
        {
            "name": plugin.name,
            "version": plugin.version,
            "from": plugin.distribution,
            "deterministic": plugin.deterministic,
            "extension": plugin.extension,
            "about": _summary(plugin),
        }
    )
    required = plugin.args_schema.get("required", ())
    rows = [
        (
            name,
            _type(schema),
            "required" if name in required else cell(schema.get("default")),
            schema.get("description"),
        )
        for name, schema in _properties(plugin).items()
    ]
    if rows:
        typer.echo()
        show_table(["ARGUMENT", "TYPE", "DEFAULT", ""], rows, empty="")


def _properties(plugin: Plugin) -> dict[str, dict[str, object]]:
    return dict(plugin.args_schema.get("properties") or {})


def _summary(plugin: Plugin) -> str:
    return plugin.doc.strip().partition("\n")[0]


def _type(schema: dict[str, object]) -> str:
    """A JSON schema's type in a word or two; alternatives are joined by a bar."""
    if isinstance(alternatives := schema.get("anyOf"), list):
        return "|".join(_type(alternative) for alternative in alternatives)
    if isinstance(choices := schema.get("enum"), list):
        return "|".join(map(str, choices))
    return str(schema.get("type", "any"))
