"""The server's configuration: one TOML file, checked before anything starts. Secrets don't print.

`docs/reference/transom.toml` documents every key; a test compares it with what is declared here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from transom.target.etl.runtimes.url_rules import UrlRules

MIB = 1024**2
GIB = 1024**3
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?")
_ADDRESS = re.compile(r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")
_UNITS = {"B": 1, "KiB": 1024, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}
DEFAULT_FOLLOWERS = ("curl/", "Wget/", "python-requests/", "aws-sdk-go-v2/", "Mozilla/")


class ConfigError(Exception):
    """The configuration can't be used; the message names the key and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Section):
    """Where the server listens and how many processes it runs."""

    directory: Path = Path("transom-data")
    host: str = "127.0.0.1"
    port: int = Field(9000, ge=0, le=65535)
    processes: int = Field(0, ge=0, le=256)
    server: Literal["auto", "granian", "hypercorn"] = "auto"
    domains: tuple[str, ...] = ()
    region: str = "us-east-1"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    shutdown_s: float = Field(10.0, ge=0, le=10)
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> ServerConfig:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self


class ClusterConfig(_Section):
    """Gateways and targets as processes of their own; `targets = 0` is all in one."""

    targets: int = Field(0, ge=0, le=64)
    gateways: int = Field(1, ge=1, le=64)
    advertise: str = ""
    redirect: Literal["auto", "always", "never"] = "auto"
    followers: tuple[str, ...] = DEFAULT_FOLLOWERS


class KeyConfig(_Section):
    """An access key; its owner has buckets of its own."""

    access: str = Field(min_length=3, max_length=128, pattern=r"^[\w.+=@-]+$")
    secret: SecretStr = Field(min_length=8)
    owner: str = Field(min_length=1, max_length=64, pattern=r"^[\w.+=@-]+$")
    admin: bool = False


class FolderConfig(_Section):
    """An existing directory served read-only as a bucket."""

    name: str
    path: Path
    owner: str = ""


class EtlConfig(_Section):
    """Bounds of transforms; what an ETL sets for itself comes first."""

    concurrency: int = Field(8, ge=1, le=1024)
    queue: int = Field(256, ge=0, le=100_000)
    timeout_s: float = Field(60.0, gt=0)
    wait_s: float = Field(20.0, gt=0)
    max_output: int = Field(16 * GIB, ge=1)
    max_memory: int = Field(GIB, ge=1)
    gil_inline_size: int = Field(64 * 1024, ge=0)
    url_allow: tuple[str, ...] = ()
    pull_listen: str = ""
    isolation: Literal["auto", "container", "sandbox"] = "auto"
    allow_unsandboxed: bool = False
    engine: str = ""
    engine_runtime: str = ""
    engine_pulls: bool = True

    @field_validator("url_allow")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        UrlRules.parse(value)
        return value

    @field_validator("pull_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and host_and_port(value)[0] in ("0.0.0.0", "::"):  # noqa: S104 - refused
            raise ValueError("services are told this address: write one of this machine's, not all of them")
        return value

    @field_validator("max_output", "max_memory", "gil_inline_size", mode="before")
    @classmethod
    def _sizes(cls, value: object) -> object:
        return parse_size(value)


class ResultsConfig(_Section):
    """The result cache on disk."""

    max_bytes: int = Field(10 * GIB, ge=0)

    @field_validator("max_bytes", mode="before")
    @classmethod
    def _sizes(cls, value: object) -> object:
        return parse_size(value)


class JobsConfig(_Section):
    """Offline jobs."""

    concurrency: int = Field(4, ge=1, le=64)
    ray_address: str = "auto"
    ray_endpoint: str = ""
    keep_s: float = Field(0.0, ge=0)  # 0 for ever


class Config(_Section):
    """Everything; the names are those of the file."""

    server: ServerConfig = ServerConfig()
    cluster: ClusterConfig = ClusterConfig()
    etl: EtlConfig = EtlConfig()
    results: ResultsConfig = ResultsConfig()
    jobs: JobsConfig = JobsConfig()
    key: tuple[KeyConfig, ...] = ()
    folder: tuple[FolderConfig, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Config:
        for what, names in (("access key", [k.access for k in self.key]), ("folder", [f.name for f in self.folder])):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what} {min(twice)!r} is given twice")
        return self


def host_and_port(text: str) -> tuple[str, int]:
    """Read an address to listen at, "127.0.0.1:9010" or "[::1]:9010". Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) >= 2**16:
        raise ValueError('an address is HOST:PORT, such as "127.0.0.1:9010"')
    return match["ip6"] or match["host"], int(match["port"])


def parse_size(value: object) -> object:
    """Read "10 GiB" as bytes; numbers pass through."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("a size is a number of bytes, or a number with KiB, MiB, GiB or TiB")
    return int(match.group(1)) * _UNITS[match.group(2) or "B"]


def load_config(path: Path | None, overrides: Mapping[str, dict[str, Any] | list[Any]] | None = None) -> Config:
    """Read the file, lay the command line's `overrides` over it, check it all. Raises ConfigError."""
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"can't read the config file {path}: {error.strerror}") from error
        except ValueError as error:  # TOMLDecodeError, or text that is not UTF-8
            raise ConfigError(f"{path} is no TOML: {error}") from error
    for section, values in (overrides or {}).items():
        there = raw.get(section, type(values)())
        if isinstance(there, dict) and isinstance(values, dict):
            raw[section] = {**there, **values}
        elif isinstance(there, list) and isinstance(values, list):
            raw[section] = [*there, *values]
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail, path) for detail in error.errors())) from error


def _explain(detail: Any, path: Path | None) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "the file"
    reason = "there is no such key" if detail["type"] == "extra_forbidden" else detail["msg"]
    return f"{path or 'configuration'}: {where}: {reason}"
