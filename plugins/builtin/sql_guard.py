"""Which queries are run: one SELECT over the object alone, that gives the same rows every time.

The database is locked down besides; this keeps what it tells of the server, and of the hour, out of results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from transom.plugins.contract import Reject

TABLE = "S3Object"

_TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree"})
_SYSTEM_PREFIXES = ("duckdb_", "pg_", "pragma_", "sqlite_")
_CLOCKS = frozenset({
    "current_date", "current_localtime", "current_localtimestamp", "current_time", "current_timestamp",
    "get_current_time", "get_current_timestamp", "localtime", "localtimestamp", "now", "today",
    "transaction_timestamp", "uuidv7",
})  # fmt: skip
_SERVERS = frozenset({
    "current_catalog", "current_connection_id", "current_database", "current_query", "current_query_id",
    "current_role", "current_schema", "current_schemas", "current_setting", "current_transaction_id", "current_user",
    "currval", "getenv", "getvariable", "in_search_path", "nextval", "session_user", "setseed", "setval", "sleep_ms",
    "txid_current", "user", "version", "write_log",
})  # fmt: skip

_WITHOUT_PARENTHESES = frozenset({
    "current_catalog", "current_date", "current_localtime", "current_localtimestamp", "current_role", "current_schema",
    "current_time", "current_timestamp", "current_user", "localtime", "localtimestamp", "session_user", "user",
})  # fmt: skip


def check(connection: duckdb.DuckDBPyConnection, query: str, columns: frozenset[str]) -> None:
    """Raise Reject unless the query may be run; `columns` are the object's, in lower case."""
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise Reject(f"the query has {len(statements)} statements; it must be one SELECT")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise Reject(f"the query is no SELECT, it is {statements[0].type.name}")
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [statements[0].query]).fetchall()
    tree = json.loads(text)
    if tree.get("error", True):
        raise Reject(f"the query is no SELECT: {tree.get('error_message', 'unknown')}")
    nodes = list(_nodes(tree))
    tables = {TABLE.lower(), *(name for node in nodes for name in _named_by(node))}
    columns |= {str(node["alias"]).lower() for node in nodes if node.get("alias")}
    for node in nodes:
        _check_node(node, tables, columns)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _named_by(node: dict[str, Any]) -> Iterator[str]:
    """List the tables that a WITH names, in lower case."""
    named = node.get("cte_map")
    for entry in named.get("map", ()) if isinstance(named, dict) else ():
        name = str(entry["key"]).lower()
        if not name.startswith(_SYSTEM_PREFIXES):
            yield name


def _check_node(node: dict[str, Any], tables: set[str], columns: frozenset[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        name = str(node["table_name"])
        if node.get("schema_name") or node.get("catalog_name") or name.lower() not in tables:
            raise Reject(f"there is no table '{name[:100]}'; the object is the table {TABLE}")
    elif kind == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"])
        if name.lower() not in _TABLE_FUNCTIONS:
            raise Reject(f"the table function {name[:100]} is not allowed: a query reads its object only")
    elif kind == "COLUMN_REF":
        names = [str(name).lower() for name in node["column_names"]]
        if len(names) == 1 and names[0] in _WITHOUT_PARENTHESES and names[0] not in columns:
            _check_function(names[0])
    elif "function_name" in node:
        _check_function(str(node["function_name"]).lower())
        if node["function_name"].lower() == "age" and len(node.get("arguments", node.get("children", ()))) == 1:
            raise Reject("age with one argument is not allowed: give it the other time too")


def _check_function(name: str) -> None:
    if name in _CLOCKS:
        raise Reject(f"{name} is not allowed: the same query over the same object gives the same result")
    if name in _SERVERS:
        raise Reject(f"{name} is not allowed: a query reads its object only")
