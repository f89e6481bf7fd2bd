"""An ETL's spec as a value: what it runs, how it is spoken to, and its bounds. AIStore's runtime specs are valid ones.

`transom.target.etl.spec_load` reads them from text and says what is wrong with them; nothing here knows of lines.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from transom.cluster.records import EtlRecord, RuntimeName
from transom.target.etl.spec_units import cpus, seconds, size

KIB, MIB = 1024, 1024 * 1024
MAX_CODE_CHARS = MIB
MAX_REQUIREMENTS = 200
INIT_TIMEOUT_S = 300.0
DEFAULT_PORT = 8000
RUNTIMES: dict[str, RuntimeName] = {
    "plugin": "plugin",
    "process": "process",
    "code": "code",
    "command": "command",
    "image": "container",
    "url": "url",
}
_CONTENT_TYPE = r'^[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+( *; *[A-Za-z0-9-]+=[A-Za-z0-9.+"-]+)*$'
_REQUIREMENT = re.compile(r"[A-Za-z0-9](?:(?!\s--)[^\r\n\0])*")


def _argv(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


def _words(value: object) -> object:
    """Every element a string: YAML's 80 and true would come out other than they were written."""
    for item in value if isinstance(value, list | tuple) else ():
        if not isinstance(item, str):
            raise ValueError(f"write {json.dumps(item)} in quotes")  # noqa: TRY004 - pydantic takes ValueError
        _check_text(item)
    return value


def _env(value: object) -> object:
    """Kubernetes' list of {name, value} as a mapping."""
    if isinstance(value, list):
        pairs = [(item["name"], item["value"]) if _is_pair(item) else _bad_pair(item) for item in value]
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a variable is given twice")
    for name, text in value.items() if isinstance(value, dict) else ():
        if not isinstance(text, str):
            raise ValueError(f"write the value of {name} as text, in quotes")  # noqa: TRY004
        _check_text(text)
    return value


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a program can't be given a NUL character")


def _is_pair(item: object) -> bool:
    return isinstance(item, dict) and set(item) == {"name", "value"} and isinstance(item["name"], str)


def _bad_pair(item: object) -> tuple[str, str]:
    raise ValueError(f"an element is {{name: NAME, value: TEXT}}, not {json.dumps(item)[:80]}")


def _requirements(value: object) -> object:
    """A requirements file's text as a list."""
    if isinstance(value, str):
        value = [line.partition(" #")[0].strip() for line in value.splitlines() if not line.lstrip().startswith("#")]
        value = [line for line in value if line]
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, str) or not _REQUIREMENT.fullmatch(item):
            raise ValueError(f"{item!r} is no requirement; options of pip aren't taken")
    return value


def _communication(value: object) -> object:
    return value + "://" if isinstance(value, str) and value and "://" not in value else value


_Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=24 * 3600)]
_Size = Annotated[int, BeforeValidator(size), Field(ge=1)]
_Cpus = Annotated[float, BeforeValidator(cpus), Field(gt=0, le=4096)]
_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_EtlName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
_EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Argv = Annotated[
    tuple[str, ...], BeforeValidator(_words), BeforeValidator(_argv), Field(min_length=1, max_length=1024)
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuntimeSpec(_Part):
    """Where the ETL runs: exactly one of `plugin`, `process`, `code`, `command`, `image`, `url`."""

    plugin: _EtlName | None = Field(None, description="An installed transformer, run in the server's own process")
    process: _EtlName | None = Field(None, description="An installed transformer, run in the pool of worker processes")
    code: Annotated[str, Field(min_length=1, max_length=MAX_CODE_CHARS)] | None = Field(
        None, description="Python source with a class or function; beside `transom etl init -f`, a file's name"
    )
    command: _Argv | None = Field(
        None, description="A program and its arguments, a list or one line; beside `image`, what the container runs"
    )
    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]*$", max_length=512)] | None = Field(
        None, description="A container image"
    )
    url: _Text | None = Field(None, description="The http or https URL of a service that somebody else runs")
    env: Annotated[dict[_EnvName, str], BeforeValidator(_env)] = Field(
        default_factory=dict, description="Environment variables: a mapping, or a list of {name, value}"
    )
    requirements: Annotated[tuple[str, ...], BeforeValidator(_requirements), Field(max_length=MAX_REQUIREMENTS)] = (
        Field((), description="What pip is to install beside `code`: a list, or a requirements file's text")
    )
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        None,
        validation_alias=AliasChoices("class", "entry"),
        description="Beside `code`: the class or function in it, where there are several; also written `entry`",
    )


class Bounds(_Part):
    """Kubernetes' form of bounds."""

    cpu: _Cpus | None = None
    memory: _Size | None = None


class Resources(_Part):
    """What a worker may use at most."""

    cpu: _Cpus | None = Field(None, description='CPUs: 2, 0.5 or "500m"')
    memory: _Size | None = Field(None, description='Memory: "512Mi", "1Gi", or bytes')
    pids: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="Processes and threads")
    limits: Bounds | None = Field(None, description="`cpu` and `memory` as Kubernetes writes them")
    requests: Bounds | None = Field(None, description="Accepted for Kubernetes' sake; nothing is reserved")


class Spec(_Part):
    """One ETL."""

    name: _EtlName = Field(description="What `etl=NAME` refers to: `[a-z0-9][a-z0-9_-]{0,31}`, no `--`")
    runtime: RuntimeSpec = Field(description="Where it runs; see below")
    communication: Annotated[
        Literal["", "hpush://", "hpull://", "hrev://", "io://", "ws://"], BeforeValidator(_communication)
    ] = Field("", description="How it is spoken to: `io://` by default for a command, `hpush://` for all else")
    argument: Literal["", "fqn"] = Field("", description="AIStore's word for direct_file: `fqn`")
    direct_file: bool = Field(False, description="Give the path of the stored object instead of its bytes")
    init_timeout_s: _Seconds = Field(INIT_TIMEOUT_S, alias="init_timeout", description="How long it may take to start")
    obj_timeout_s: _Seconds | None = Field(
        None, alias="obj_timeout", description="How long one object may take; else the server's `[etl] timeout_s`"
    )
    resources: Resources = Field(default_factory=Resources, description="Bounds of a worker; see below")
    args: Any = Field(None, description="Arguments laid under those of a request; any JSON value")
    concurrency: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="Objects at once on a target")
    deterministic: bool | None = Field(
        None, description="Whether equal input gives equal output; true by default, or as the transformer declares"
    )
    cache: bool = Field(True, description="Whether whole GETs may be kept in the result cache")
    content_type: Annotated[str, Field(pattern=_CONTENT_TYPE)] | None = Field(
        None, description="The output's Content-Type; else the input's"
    )
    extension: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}(\.[A-Za-z0-9_-]{1,31}){0,3}$")] | None = (
        Field(None, description="The output key's extension, without a dot; else the input's")
    )
    network: bool = Field(False, description="Whether a worker may use the network")
    redirect: Literal["", "worker"] = Field("", description="`worker`: clients are sent to the worker itself")
    idle_timeout_s: _Seconds | None = Field(
        None, alias="idle_timeout", description="A worker without work for so long is stopped, and started on demand"
    )
    max_output: _Size | None = Field(None, description="The longest result; else the server's `[etl] max_output`")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        DEFAULT_PORT, description="The TCP port where a worker that doesn't use `$TRANSOM_SOCKET` listens"
    )
    io: Literal["object", "persistent"] = Field(
        "object", description="With `io://`: a program for each object, or one that goes on from object to object"
    )
    support_direct_put: bool = Field(False, description="Accepted for AIStore's sake; results come through the target")

    @property
    def kind(self) -> str:
        """Which key of `runtime` says what runs: "image" and not "container"."""
        given = [key for key in RUNTIMES if getattr(self.runtime, key) is not None]
        return "image" if given == ["command", "image"] else given[0]

    @property
    def runtime_name(self) -> RuntimeName:
        """The runtime, as a record names it."""
        return RUNTIMES[self.kind]

    @property
    def transport(self) -> str:
        """How target and worker talk: "call" for an installed transformer, else the communication without "://"."""
        return self.communication.removesuffix("://") if self.communication else "call"

    def to_json(self) -> str:
        """The canonical text of a normalised spec; `from_json` reads it. What is left to a default isn't in it.

        Objects within `args` keep their order: it counts where they list steps.
        """
        plain = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return canonical_spec(plain)


def normalised(spec: Spec) -> Spec:
    """The same spec in the one form that is kept: one word for each thing, and the communication said."""
    given, bounds = spec.resources, spec.resources.limits or Bounds()
    resources = Resources(cpu=given.cpu or bounds.cpu, memory=given.memory or bounds.memory, pids=given.pids)
    installed = spec.kind in ("plugin", "process")
    default = "" if installed else "io://" if spec.kind == "command" else "hpush://"
    return spec.model_copy(
        update={
            "communication": spec.communication or default,
            "direct_file": spec.direct_file or spec.argument == "fqn",
            "argument": "",
            "resources": resources,
            "support_direct_put": False,
        }
    )


def canonical_spec(spec: Mapping[str, Any]) -> str:
    """The canonical text of a spec that is kept as a JSON object."""
    return json.dumps(spec, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=64)
def from_json(text: str) -> Spec:
    """Read what `Spec.to_json` wrote. Raises ValueError."""
    return Spec.model_validate_json(text)


def record_of(spec: Spec, owner: str = "") -> EtlRecord:
    """A normalised spec as the catalog keeps it; a plugin's is the same as one made without a spec."""
    return EtlRecord(
        name=spec.name,
        plugin=spec.runtime.plugin or spec.runtime.process or "",
        args=spec.args if isinstance(spec.args, dict) else {},
        deterministic=spec.deterministic,
        cache=spec.cache,
        concurrency=spec.concurrency,
        timeout_s=spec.obj_timeout_s,
        owner=owner,
        runtime=spec.runtime_name,
        spec={} if spec.kind == "plugin" else json.loads(spec.to_json()),
    )
