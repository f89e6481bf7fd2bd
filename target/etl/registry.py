"""Which ETLs there are: those of the catalog, and every installed transformer whose arguments have defaults.

Turns the names and arguments somebody asks with into a `Plan`. Knows nothing of where it runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transom.cluster.catalog import Catalog
from transom.cluster.records import EtlRecord, Snapshot
from transom.plugins.args import canonical, first_fields, has_defaults, parse_args
from transom.plugins.contract import Transformer
from transom.plugins.errors import ArgsError
from transom.plugins.manager import Transformers
from transom.target.errors import EtlArgsInvalid, EtlUnavailable, NoSuchEtl
from transom.target.etl.plan import Asked, Plan, Stage

MAX_STAGES = 16
_REMEMBERED = 2048

Options = Sequence[tuple[str, str, str]]


@dataclass(slots=True)
class Registry:
    """Looks ETLs up and plans pipelines; plans are remembered until the catalog changes."""

    transformers: Transformers
    catalog: Catalog
    _plans: dict[tuple[object, ...], Plan] = field(default_factory=dict)
    _version: int = -1

    def plan(self, pipeline: Sequence[str], args_json: str | None = None, options: Options = ()) -> Plan:
        """Plan a pipeline. `args_json` is one stage's value, or a list with one element a stage (null = none).

        Raises NoSuchEtl, EtlArgsInvalid, EtlUnavailable.
        """
        snapshot = self.catalog.snapshot()
        if snapshot.version != self._version or len(self._plans) > _REMEMBERED:
            self._plans.clear()
            self._version = snapshot.version
        key = (tuple(pipeline), args_json, tuple(options))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(snapshot, pipeline, args_json, options)
        return plan

    def again(self, text: str) -> Plan:
        """The plan that `Plan.to_json` wrote elsewhere. Raises EtlUnavailable if the ETL was changed since."""
        asked, revisions = json.loads(text)
        plan = Plan(())
        for pipeline, args_json, options in asked:
            plan += self.plan(pipeline, args_json, [tuple(option) for option in options])
        if [list(revision) for revision in plan.revisions] != revisions:
            raise EtlUnavailable(f"ETL '{plan.name}' was changed just now. Ask again.", retry_after_s=1)
        return plan

    def records(self) -> list[EtlRecord]:
        """Every ETL there is, implicit ones too, by name."""
        found = dict(self.catalog.snapshot().etls)
        for transformer in self.transformers.values():
            if transformer.name not in found and has_defaults(transformer):
                found[transformer.name] = _implicit(transformer)
        return [found[name] for name in sorted(found)]

    def record(self, name: str) -> EtlRecord:
        """One ETL; raises NoSuchEtl."""
        return self._find(self.catalog.snapshot(), name)

    def check(self, plugin: str, args: Mapping[str, Any]) -> None:
        """Raise unless an ETL could be made of this transformer with these arguments."""
        self._args(plugin, self._transformer(plugin), dict(args), {})

    def _plan(self, snapshot: Snapshot, pipeline: Sequence[str], args_json: str | None, options: Options) -> Plan:
        if not pipeline or len(pipeline) > MAX_STAGES:
            raise EtlArgsInvalid(f"a pipeline has 1 to {MAX_STAGES} stages; this one has {len(pipeline)}")
        values = _values(args_json, len(pipeline))
        strays = {name for name, _, _ in options} - set(pipeline)
        if strays:
            raise EtlArgsInvalid(f"options for '{min(strays)}', which is no stage of '{'>>'.join(pipeline)}'")
        stages = []
        for name, value in zip(pipeline, values, strict=True):
            chosen = {option: text for etl, option, text in options if etl == name}
            stages.append(self._stage(self._find(snapshot, name), value, chosen))
        return Plan(tuple(stages), (Asked(tuple(pipeline), args_json, tuple(options)),))

    def _stage(self, record: EtlRecord, value: object, options: Mapping[str, str]) -> Stage:
        if record.state != "running":
            raise EtlUnavailable(
                f"ETL '{record.name}' is stopped; an admin can start it: transom etl start {record.name}"
            )
        transformer = self._transformer(record.plugin)
        given = {**record.args, **_by_name(record.name, transformer, value)}
        for option in options:
            given.pop(option, None)  # an option overrides what the ETL was made with
        args = self._args(record.name, transformer, given, options)
        return Stage(
            etl=record.name,
            plugin=record.plugin,
            version=transformer.version,
            revision=record.revision,
            args=args,
            given=json.dumps([given, options]),
            changed_s=record.changed_ns // 1_000_000_000,
            deterministic=transformer.deterministic if record.deterministic is None else record.deterministic,
            cache=record.cache,
            timeout_s=record.timeout_s or 0.0,
            concurrency=record.concurrency or 0,
        )

    def _args(self, etl: str, transformer: Transformer, value: object, options: Mapping[str, str]) -> str:
        try:
            return canonical(parse_args(transformer, value, options, etl=etl))
        except ArgsError as error:
            raise EtlArgsInvalid(str(error)) from error

    def _find(self, snapshot: Snapshot, name: str) -> EtlRecord:
        record = snapshot.etls.get(name)
        if record is not None:
            return record
        transformer = self.transformers.get(name)
        if transformer is None:
            raise NoSuchEtl(f"no ETL named '{name}': {self.transformers.why_not(name)}. List them: transom etl show")
        if not has_defaults(transformer):
            raise NoSuchEtl(
                f"transformer '{name}' has arguments without defaults: make an ETL of it first, "
                f"transom etl init --plugin {name} --args JSON"
            )
        return _implicit(transformer)

    def _transformer(self, plugin: str) -> Transformer:
        transformer = self.transformers.get(plugin)
        if transformer is None:
            raise NoSuchEtl(f"{self.transformers.why_not(plugin)}. List them: transom plugins")
        return transformer


def _implicit(transformer: Transformer) -> EtlRecord:
    return EtlRecord(name=transformer.name, plugin=transformer.name, kind="implicit")


def _values(args_json: str | None, stages: int) -> list[object]:
    if args_json is None or args_json == "":
        return [None] * stages
    try:
        value = json.loads(args_json)
    except ValueError:
        value = args_json  # AIStore's clients send a bare word as it is
    if stages == 1:
        return value if isinstance(value, list) and len(value) == 1 else [value]
    if not isinstance(value, list) or len(value) != stages:
        raise EtlArgsInvalid(f"etl_args for {stages} stages is a JSON list of {stages} values, null for none")
    return value


def _by_name(etl: str, transformer: Transformer, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    first = first_fields(transformer.Args)
    if not first:
        raise EtlArgsInvalid(f"ETL '{etl}' takes its arguments by name: give etl_args as a JSON object")
    return {first[0]: value}
