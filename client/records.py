"""What the management REST answers with, as values. Unknown fields are passed over: a newer server may send more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A transformer that an installed plugin brings."""

    name: str
    version: str = ""
    distribution: str = ""
    deterministic: bool = True
    releases_gil: bool = False
    extension: str | None = None
    args_schema: JsonObject = field(default_factory=dict)
    doc: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> Plugin:
        """Parse one item of `GET /plugins`."""
        return cls(
            name=data["name"],
            version=data.get("version") or "",
            distribution=data.get("distribution") or "",
            deterministic=data.get("deterministic", True),
            releases_gil=data.get("releases_gil", False),
            extension=data.get("extension"),
            args_schema=data.get("args_schema") or {},
            doc=data.get("doc") or "",
        )


@dataclass(frozen=True, slots=True)
class Plugins:
    """All transformers there are, and those that could not be loaded, with the reason."""

    available: tuple[Plugin, ...]
    missing: Mapping[str, str]

    @classmethod
    def from_json(cls, data: JsonObject) -> Plugins:
        """Parse `GET /plugins`."""
        return cls(tuple(map(Plugin.from_json, data["plugins"])), dict(data.get("missing") or {}))


@dataclass(frozen=True, slots=True)
class Etl:
    """An ETL; `deterministic`, `concurrency` and `timeout_s` None are the transformer's or the server's default."""

    name: str
    plugin: str
    kind: str = "explicit"
    state: str = "running"
    revision: int = 0
    args: JsonObject = field(default_factory=dict)
    cache: bool = True
    deterministic: bool | None = None
    concurrency: int | None = None
    timeout_s: float | None = None
    owner: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> Etl:
        """Parse one ETL record."""
        return cls(
            name=data["name"],
            plugin=data.get("plugin") or "",
            kind=data.get("kind", "explicit"),
            state=data.get("state", "running"),
            revision=data.get("revision", 0),
            args=data.get("args") or {},
            cache=data.get("cache", True),
            deterministic=data.get("deterministic"),
            concurrency=data.get("concurrency"),
            timeout_s=data.get("timeout_s"),
            owner=data.get("owner") or "",
        )


@dataclass(frozen=True, slots=True)
class View:
    """A view; `etl` is its pipeline as a client writes it, `ext` maps a source extension to the listed one."""

    name: str
    bucket: str
    etl: str
    args: Any = None
    ext: Mapping[str, str] = field(default_factory=dict)
    sizes: str = "materialise"
    owner: str = ""

    @classmethod
    def from_json(cls, data: JsonObject) -> View:
        """Parse one view record."""
        return cls(
            name=data["name"],
            bucket=data.get("bucket") or "",
            etl=data.get("etl") or "",
            args=data.get("args"),
            ext=data.get("ext") or {},
            sizes=data["sizes"],
            owner=data.get("owner") or "",
        )
