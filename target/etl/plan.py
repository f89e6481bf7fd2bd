"""A pipeline made definite: each stage with its revision and canonical arguments, and the identity of what it makes.

A plan is all a target needs to run a pipeline, travels inside a signed redirect, and knows nothing of the request.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from transom.target.store.base import ObjectInfo


@dataclass(frozen=True, slots=True)
class Stage:
    """One ETL of a pipeline.

    `args` is the canonical text of its arguments, part of the identity; `given` is the JSON they are parsed from
    again where the stage runs. `changed_s` is when this revision came, in epoch seconds. Zero leaves `timeout_s` and
    `concurrency` to the target.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a pipeline, in order."""

    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """The pipeline as a user writes it: `a>>b`."""
        return ">>".join(stage.etl for stage in self.stages)

    @property
    def deterministic(self) -> bool:
        """Whether the same input always gives the same output."""
        return all(stage.deterministic for stage in self.stages)

    @property
    def cache(self) -> bool:
        """Whether whole GETs may be kept in the result cache."""
        return all(stage.cache for stage in self.stages)

    @property
    def changed_s(self) -> int:
        """When the newest revision in the plan came, in epoch seconds."""
        return max(stage.changed_s for stage in self.stages)

    def to_json(self) -> str:
        """Encode canonically; the reverse of `from_json`."""
        return json.dumps([_fields(stage) for stage in self.stages], separators=(",", ":"), ensure_ascii=True)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Decode what `to_json` wrote."""
        return Plan(tuple(Stage(*fields) for fields in json.loads(text)))


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
    """Name what `plan` makes of `source`: bucket, key, version, source ETag, pipeline, revisions, canonical args."""
    stages = [(s.etl, s.plugin, s.version, s.revision, s.args) for s in plan.stages]
    text = json.dumps((source.bucket, source.key, version_id, source.etag, stages), separators=(",", ":"))
    base = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return Identity(base, max(source.modified_ns // 1_000_000_000, plan.changed_s), plan.deterministic)


def _fields(stage: Stage) -> list[object]:
    return [getattr(stage, name) for name in Stage.__slots__]
