"""A pipeline made definite: each stage with its revision and canonical arguments, and the identity of what it makes.

A plan is all a target needs to run a pipeline, and knows nothing of the request.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from json.encoder import encode_basestring_ascii as _text

from transom.cluster.records import RuntimeName
from transom.target.store.base import ObjectInfo


@dataclass(frozen=True, slots=True)
class Stage:
    """One ETL of a pipeline.

    `args` is the canonical text of its arguments, part of the identity; `given` is the JSON they are parsed from
    again where the stage runs. `changed_s` is when this revision came, in epoch seconds. Zero leaves `timeout_s` and
    `concurrency` to the target. `runtime` is a record's (`transom.cluster.records`); `spec` the canonical JSON that
    `transom.target.etl.spec.from_json` reads, empty for a plain plugin ETL. `launch_ns` is the record's too: it is no
    part of the identity, but what was started for another start of the ETL isn't to be used.
    """

    etl: str
    plugin: str
    version: str
    revision: int
    args: str
    given: str
    changed_s: int
    deterministic: bool = True
    cache: bool = True
    timeout_s: float = 0.0
    concurrency: int = 0
    launch_ns: int = 0
    runtime: RuntimeName = "plugin"
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asked for: a pipeline by name, its arguments as JSON, and options as (ETL, option, value)."""

    pipeline: tuple[str, ...]
    args_json: str | None = None
    options: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The stages of a pipeline, in order, and the asking that they come from; what follows is found out once."""

    stages: tuple[Stage, ...]
    asked: tuple[Asked, ...] = ()

    def __add__(self, then: Plan) -> Plan:
        return Plan(self.stages + then.stages, self.asked + then.asked)

    @cached_property
    def name(self) -> str:
        """The pipeline as a user writes it: `a>>b`."""
        return ">>".join(stage.etl for stage in self.stages)

    @cached_property
    def deterministic(self) -> bool:
        """Whether the same input always gives the same output."""
        return all(stage.deterministic for stage in self.stages)

    @cached_property
    def cache(self) -> bool:
        """Whether whole GETs may be kept in the result cache."""
        return all(stage.cache for stage in self.stages)

    @cached_property
    def in_process(self) -> bool:
        """Whether no stage needs more than the server's own processes."""
        return all(stage.runtime in ("plugin", "process") for stage in self.stages)

    @cached_property
    def changed_s(self) -> int:
        """When the newest revision in the plan came, in epoch seconds."""
        return max(stage.changed_s for stage in self.stages)

    @cached_property
    def named(self) -> tuple[tuple[str, str, str, int, str], ...]:
        """What of each stage belongs to the identity of what it makes."""
        return tuple([(s.etl, s.plugin, s.version, s.revision, s.args) for s in self.stages])

    def to_json(self) -> str:
        """What was asked, and which revisions that meant, for a signed redirect; `Registry.again` reads it.

        An ETL's own arguments stay out: they may be secrets, and every target knows them.
        """
        asked = [(each.pipeline, each.args_json, each.options) for each in self.asked]
        return json.dumps([asked, self.revisions], separators=(",", ":"), ensure_ascii=True)

    @property
    def revisions(self) -> list[tuple[str, str, int]]:
        """Transformer, its version and the ETL's revision, stage by stage."""
        return [(stage.plugin, stage.version, stage.revision) for stage in self.stages]


@dataclass(frozen=True, slots=True)
class Identity:
    """Names the result of one plan over one object version; needs no run.

    `base` is 32 hex digits. A deterministic result's id is `base`; a generation's is derived from it.
    """

    base: str
    modified_s: int
    deterministic: bool

    def id(self, generation: int = 0) -> str:
        """The result's id, 32 hex digits; the same for every process and target."""
        if self.deterministic:
            return self.base
        return hashlib.md5(f"{self.base}:{generation}".encode(), usedforsecurity=False).hexdigest()

    def etag(self, generation: int = 0) -> str:
        """The result's ETag without quotes: "-1" stops clients from taking it for the MD5 of the bytes."""
        return self.id(generation) + "-1"


def identify(plan: Plan, source: ObjectInfo, version_id: str = "") -> Identity:
    """Name what `plan` makes of `source`: bucket, key, version, source ETag, pipeline, revisions, canonical args.

    Content type and metadata belong to it too: a transformer sees them, and an object put again with the same bytes
    keeps its ETag.
    """
    told = (source.content_type, tuple(sorted(source.attributes.metadata.items())))
    base = _base(source.bucket, source.key, version_id, source.etag, told, plan.named)
    return Identity(base, max(source.modified_ns // 1_000_000_000, plan.changed_s), plan.deterministic)


@lru_cache(maxsize=4096)
def _base(bucket: str, key: str, version_id: str, etag: str, told: object, stages: object) -> str:
    named = ",".join((_text(bucket), _text(key), _text(version_id), _text(etag), _json(told), _json(stages)))
    return hashlib.md5(f"[{named}]".encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=1024)
def _json(value: object) -> str:
    """The JSON of what many objects have in common."""
    return json.dumps(value, separators=(",", ":"))
