"""Which ETLs there are: those of the catalog, and every installed transformer whose arguments have defaults.

Those of other runtimes are planned by their spec alone. Turns the names and arguments somebody asks with into a
`Plan`. Knows nothing of where it runs.
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
from transom.plugins.nested import used
from transom.target.errors import EtlArgsInvalid, EtlChanged, EtlUnavailable, NoSuchEtl
from transom.target.etl.plan import Asked, Plan, Stage
from transom.target.etl.spec import canonical_spec, from_json
from transom.target.etl.stand_in import is_installed, merged_args, stand_in

MAX_STAGES = 16
_REMEMBERED = 2048

Options = Sequence[tuple[str, str, str]]


@dataclass(slots=True)
class Registry:
    """Looks ETLs up and plans pipelines; plans are remembered until the catalog changes."""

    transformers: Transformers
    catalog: Catalog
    _plans: dict[tuple[object, ...], Plan] = field(default_factory=dict)
    _specs: dict[tuple[str, int], str] = field(default_factory=dict)
    _version: int = -1

    def plan(self, pipeline: Sequence[str], args_json: str | None = None, options: Options = ()) -> Plan:
        """Plan a pipeline. `args_json` is one stage's value, or a list with one element a stage (null = none).

        Raises NoSuchEtl, EtlArgsInvalid, EtlUnavailable.
        """
        snapshot = self.catalog.snapshot()
        if snapshot.version != self._version or len(self._plans) > _REMEMBERED:
            self._plans.clear()
            live = {(record.name, record.revision) for record in snapshot.etls.values()}
            self._specs = {key: text for key, text in self._specs.items() if key in live}
            self._version = snapshot.version
        key = (tuple(pipeline), args_json, tuple(options))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(snapshot, pipeline, args_json, options)
        return plan

    def again(self, text: str) -> Plan:
        """The plan that `Plan.to_json` wrote elsewhere. Raises EtlChanged if the ETL was changed since."""
        asked, revisions = json.loads(text)
        plan = Plan(())
        for pipeline, args_json, options in asked:
            plan += self.plan(pipeline, args_json, [tuple(option) for option in options])
        if [list(revision) for revision in plan.revisions] != revisions:
            raise EtlChanged(f"ETL '{plan.name}' was changed just now. Ask again.", retry_after_s=1)
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
        _check_state(record)
        if is_installed(record.runtime):
            return self._installed(record, value, options)
        spec = self._spec(record)
        transformer = stand_in(spec)
        args = merged_args(record.name, from_json(spec), value, options)
        return self._made(record, transformer, args, given=args)

    def _installed(self, record: EtlRecord, value: object, options: Mapping[str, str]) -> Stage:
        transformer = self._transformer(record.plugin)
        given = {**record.args, **_by_name(record.name, transformer, value)}
        for option in options:
            given.pop(option, None)  # an option overrides what the ETL was made with
        args, inner = self._args(record.name, transformer, given, options)
        return self._made(record, transformer, args, given=json.dumps([given, options]), inner=inner)

    def _made(
        self, record: EtlRecord, transformer: Transformer, args: str, *, given: str, inner: Sequence[Transformer] = ()
    ) -> Stage:
        """Make the stage; the transformers that this one runs, `inner`, belong to its identity."""
        version = "+".join([transformer.version, *(f"{each.name}@{each.version}" for each in inner)])
        deterministic = all(each.deterministic for each in (transformer, *inner))
        return Stage(
            etl=record.name,
            plugin=record.plugin,
            version=version,
            revision=record.revision,
            args=args,
            given=given,
            changed_s=record.changed_ns // 1_000_000_000,
            deterministic=deterministic if record.deterministic is None else record.deterministic,
            cache=record.cache,
            timeout_s=record.timeout_s or 0.0,
            concurrency=record.concurrency or 0,
            launch_ns=record.launch_ns,
            runtime=record.runtime,
            spec=self._spec(record),
        )

    def _spec(self, record: EtlRecord) -> str:
        """The canonical text of a record's spec: one string for all plans of a revision."""
        if not record.spec:
            return ""
        key = (record.name, record.revision)
        if key not in self._specs:
            self._specs[key] = canonical_spec(record.spec)
        return self._specs[key]

    def _args(
        self, etl: str, transformer: Transformer, value: object, options: Mapping[str, str]
    ) -> tuple[str, list[Transformer]]:
        """The canonical text of the arguments, and the transformers that a run with them runs, theirs added to it."""
        try:
            args = parse_args(transformer, value, options, etl=etl)
            inner = list(used(self.transformers, transformer, args, etl=etl))
        except ArgsError as error:
            raise EtlArgsInvalid(str(error)) from error
        texts = [canonical(args), *(canonical(each.args) for each in inner)]
        return "\n".join(texts), [each.transformer for each in inner]

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


def _check_state(record: EtlRecord) -> None:
    """Raise EtlUnavailable for an ETL that takes no requests now."""
    if record.state == "running":
        return
    if record.state == "initializing":
        raise EtlUnavailable(f"ETL '{record.name}' is starting", retry_after_s=1)
    what = f"failed: {record.message}" if record.state == "failed" else "is stopped"
    raise EtlUnavailable(f"ETL '{record.name}' {what}; an admin can start it: transom etl start {record.name}")


def _implicit(transformer: Transformer) -> EtlRecord:
    return EtlRecord(name=transformer.name, plugin=transformer.name, kind="implicit")


def _values(args_json: str | None, stages: int) -> list[object]:
    if args_json is None or args_json == "":
        return [None] * stages
    try:
        value = json.loads(args_json)
    except (ValueError, RecursionError):
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
