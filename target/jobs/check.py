"""What is wrong with an order before any object is looked at; whatever it refuses, it says what to ask instead.

It looks at the ETLs' registry and at no bucket: who may use which is the caller's to judge.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from transom.target.errors import EtlArgsInvalid, JobRefused
from transom.target.etl.plan import Plan
from transom.target.etl.registry import Registry
from transom.target.jobs.engines.local import MOST_EXECUTORS
from transom.target.jobs.naming import MAX_KEY_BYTES, Naming
from transom.target.jobs.order import Order
from transom.target.jobs.templates import Glob, Template
from transom.target.jobs.where import Predicate


@dataclass(frozen=True, slots=True)
class Plans:
    """What an order runs: its pipeline, and the one that its predicate judges by; None where it has none."""

    made: Plan | None
    judged: Plan | None


def check_order(order: Order, registry: Registry) -> Plans:
    """Refuse an order that can't be done. Blocking.

    Raises JobRefused, and what planning raises: NoSuchEtl, EtlArgsInvalid, EtlUnavailable.
    """
    _check_kind(order)
    _check_engine(order)
    _check_choice(order)
    _check_names(order)
    plans = plans_of(order, registry)
    _check_where(order)
    return plans


def plans_of(order: Order, registry: Registry) -> Plans:
    """Plan an order's pipelines as they are now. Raises NoSuchEtl, EtlArgsInvalid, EtlUnavailable."""
    made = _plan(order.etl, order.args, registry)
    return Plans(made, _plan(order.where_etl, order.where_args, registry))


def _plan(etl: str, args: Any, registry: Registry) -> Plan | None:
    stages = [stage.strip() for stage in etl.split(">>")] if etl else []
    if not stages:
        return None
    if not all(stages):
        raise EtlArgsInvalid(f"the pipeline {etl!r} has an empty stage; one is 'resize>>webp'")
    return registry.plan(stages, None if args is None else json.dumps(args))


def _check_kind(order: Order) -> None:
    if order.kind == "sort" and (order.etl or order.where_etl or order.ext):
        raise JobRefused("a job that sorts runs no ETL and has no ext: transform first, then sort what was made")
    if order.kind == "sort" and order.object_timeout_s is not None:
        raise JobRefused("object_timeout_s bounds what transforms one object; a job that sorts has timeout_s")
    if order.sorting is not None and set("{}") & set(order.sorting.shards):
        Template.parse(order.sorting.shards)
    if order.kind == "inspect" and order.sync:
        raise JobRefused("sync is for jobs that write")
    if order.kind == "inspect" and (order.ext or order.prepend):
        raise JobRefused("a job that inspects writes nothing: leave out ext and prepend")


def _check_engine(order: Order) -> None:
    if order.engine == "local" and (order.concurrency or 1) > MOST_EXECUTORS:
        raise JobRefused(
            f"concurrency: the local engine does at most {MOST_EXECUTORS} objects at once, not {order.concurrency}; the"
            " engine 'ray' does more"
        )


def _check_choice(order: Order) -> None:
    """The prefix, keys, template and glob."""
    several = order.keys is not None or order.template is not None
    if not order.source.is_prefix and (several or order.prefix or order.sync):
        raise JobRefused(
            f"the source '{order.source}' is one key; prefix, keys, template and sync need a prefix:"
            f" '{order.source}/' for all under it"
        )
    if order.keys is not None and (not order.keys or not all(order.keys)):
        raise JobRefused("the list of keys is empty" if not order.keys else "one of the keys is empty")
    if order.template is not None:
        Template.parse(order.template)
    if order.match is not None:
        Glob(order.match)


def _check_names(order: Order) -> None:
    """What can be said of the destination's keys by the order alone."""
    for before, after in order.ext.items():
        if not before or not after or "." in before or "/" in before + after:
            raise JobRefused(f"ext '{before}={after}': an extension is what follows a name's last dot: jpg=webp")
    naming = Naming.of(order)
    if naming.exact and (order.ext or order.prepend):
        raise JobRefused(
            f"the destination '{order.destination}' is one key: leave out ext and prepend, or end it in '/'"
        )
    if len((naming.exact or naming.folder + order.prepend).encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise JobRefused(f"the destination's names would have more than {MAX_KEY_BYTES} bytes, which is S3's limit")
    if order.destination is not None and order.destination.bucket == order.source.bucket:
        _check_one_bucket(order, naming)


def _check_one_bucket(order: Order, naming: Naming) -> None:
    bucket = order.source.bucket
    if not order.force:
        raise JobRefused(
            f"source and destination are one bucket, '{bucket}': name another, or give force and a destination prefix,"
            " prepend or ext, so that all names differ"
        )
    if naming.exact == order.source.path and naming.exact:
        raise JobRefused(f"'{naming.exact}' would be overwritten by what is made of it: give another destination")
    source = order.source.path
    if order.sync and (source.startswith(naming.folder) or naming.folder.startswith(source)):
        raise JobRefused("sync in one bucket needs a source and a destination prefix that don't contain each other")


def _check_where(order: Order) -> None:
    if order.where is None:
        if order.where_etl or order.where_args is not None:
            raise JobRefused("where_etl and where_args say by which output 'where' judges: give where too")
        return
    predicate = Predicate.parse(order.where)
    if order.where_etl and not predicate.needs_output:
        raise JobRefused("where_etl makes what 'where' sees as 'output', and this predicate asks for no output")
    if predicate.needs_output and order.kind == "sort":
        raise JobRefused("where asks for the output, and a job that sorts makes none: transform first, then sort that")
    if predicate.needs_output and not (order.etl or order.where_etl):
        raise JobRefused("where asks for the output, and nothing is made in this job: say by what ETL, in where_etl")
