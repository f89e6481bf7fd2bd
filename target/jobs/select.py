"""Which objects a job is about: listed or looked up, filtered, named, and put on its worklist.

It reads descriptions of objects and none of their bytes, and writes nothing to the store.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from transom.target.errors import EtlSkipped, JobRefused, NoSuchKey, TargetError
from transom.target.etl.pipeline import Bound
from transom.target.etl.plan import Plan
from transom.target.jobs.naming import Naming, asking, names_by_object
from transom.target.jobs.order import Order
from transom.target.jobs.records import Outcome, Selected
from transom.target.jobs.site import Site
from transom.target.jobs.templates import Glob, Template
from transom.target.jobs.where import Predicate
from transom.target.jobs.worklist import Worklist
from transom.target.store.base import ObjectInfo, Store

PAGE = 1000
_AT_ONCE = 64

Namer = Callable[[ObjectInfo], str]
"""Gives the destination key of an object. What it raises is the object's failure, but for JobRefused: the job's."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a job's objects, in order, and how many between them a predicate or a transformer left out."""

    selected: Sequence[Selected]
    left_out: int


@dataclass(frozen=True, slots=True)
class Chooser:
    """Decides object by object."""

    predicate: Predicate | None
    name: Namer

    def decide(self, entry: ObjectInfo | str) -> Selected | None:
        """What is to be done with an object, or with a key that has none; None if it is left out.

        One that failed has no ETag. Raises JobRefused.
        """
        if isinstance(entry, str):
            return _failed(entry, NoSuchKey(f"There is no object '{entry}' in the source."))
        try:
            if self.predicate is not None and not self.predicate.before(entry):
                return None
            return Selected(entry.key, entry.size, entry.etag, self.name(entry))
        except EtlSkipped:
            return None
        except JobRefused:
            raise
        except TargetError as error:
            return _failed(entry.key, error)

    def page(self, entries: Iterable[ObjectInfo | str], room: int | None) -> Page:
        """Decide one after the other, until `room` is full."""
        selected: list[Selected] = []
        left_out = 0
        for entry in entries:
            if room is not None and len(selected) == room:
                break
            made = self.decide(entry)
            if made is None:
                left_out += 1
            else:
                selected.append(made)
        return Page(selected, left_out)


async def select(site: Site, order: Order, plan: Plan | None, worklist: Worklist) -> None:
    """Put an order's objects on an empty worklist, in memory that doesn't grow with their number.

    The list is in the order of keys, or in that of the order's own. Keys that aren't there are failed items. `limit`
    counts what is left after all filters that need no output. Raises JobRefused and Collision: nothing was written
    then; NoSuchBucket.
    """
    left_out = 0
    async with aclosing(choose(site.store, order, _namer(site, order, plan))) as pages:
        async for page in pages:
            worklist.add(page.selected)
            left_out += page.left_out
    worklist.left_out(left_out)
    _check_overwriting(order, worklist)


async def select_again(site: Site, order: Order, plan: Plan | None, worklist: Worklist) -> None:
    """Choose those pending items anew whose choice failed: before their job is run again for what it failed on.

    Raises what `select` does.
    """
    chooser = Chooser(_predicate(order), _namer(site, order, plan))
    after_n = 0
    while items := worklist.pending(after_n, PAGE):
        after_n = items[-1].n
        undecided = [item for item in items if not item.etag]
        entries = await _looked_up(site.store, order.source.bucket, [item.key for item in undecided])
        for item, entry in zip(undecided, entries, strict=True):
            made = chooser.decide(entry)
            if made is None:
                worklist.note([Outcome(item.n, "skipped")])
            elif made.code:
                worklist.note([Outcome(item.n, "failed", code=made.code, message=made.message)])
            else:
                worklist.settle(item.n, made)
    _check_overwriting(order, worklist)


async def choose(store: Store, order: Order, name: Namer) -> AsyncGenerator[Page, None]:
    """An order's objects, page by page: of its prefix, or its keys, that match and that the predicate doesn't exclude.

    For jobs that name each object by `name`, or not at all. Raises what `select` does.
    """
    chooser = Chooser(_predicate(order), name)
    room = order.limit
    async with aclosing(_entries(store, order)) as pages:
        async for entries in pages:
            page = chooser.page(entries, room)
            yield page
            if room is not None:
                room -= len(page.selected)
                if not room:
                    return


async def _entries(store: Store, order: Order) -> AsyncGenerator[Sequence[ObjectInfo | str], None]:
    """What is there of the source and matches, in pages; a key that was asked for and isn't there is a text."""
    relative, matches = Naming.of(order).relative, None if order.match is None else Glob(order.match)

    def wanted(key: str) -> bool:
        name = relative(key)
        return bool(name) and name.startswith(order.prefix) and (matches is None or matches(name))

    keys = keys_of(order)
    if keys is not None:
        for some in _batches(filter(wanted, keys), PAGE):
            yield await _looked_up(store, order.source.bucket, some)
        return
    after: str | None = ""
    while after is not None:
        page = await store.list_objects(
            order.source.bucket, prefix=order.source.path + order.prefix, after=after, limit=PAGE
        )
        yield [info for info in page.objects if wanted(info.key)]
        after = page.next_after


def keys_of(order: Order) -> Iterator[str] | None:
    """The keys that an order names, each once, where it was named first; None for all under its prefix.

    Raises JobRefused for a bad template.
    """
    if not order.source.is_prefix:
        return iter((order.source.path,))
    names: Iterable[str] | None = order.keys
    if order.template is not None:
        names = Template.parse(order.template)
    return None if names is None else _once(order.source.path + name for name in names)


def _once(keys: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for key in keys:
        if key not in seen:
            seen.add(key)
            yield key


async def _looked_up(store: Store, bucket: str, keys: Sequence[str]) -> list[ObjectInfo | str]:
    async def head(key: str) -> ObjectInfo | str:
        try:
            return await store.head(bucket, key)
        except NoSuchKey:
            return key

    found: list[ObjectInfo | str] = []
    for some in _batches(keys, _AT_ONCE):
        found += await asyncio.gather(*map(head, some))
    return found


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _namer(site: Site, order: Order, plan: Plan | None) -> Namer:
    if order.destination is None:
        return lambda _: ""
    naming = Naming.of(order)
    for_all: Sequence[Bound] | None = None if plan is not None else ()

    def name(info: ObjectInfo) -> str:
        nonlocal for_all
        stages = for_all
        if stages is None:
            assert plan is not None
            with asking(plan.name):
                stages = site.pipelines.bind(plan, info)
            if not any(names_by_object(bound.transformer) for bound in stages):
                for_all = stages
        return naming.destination(info.key, stages)

    return name


def _predicate(order: Order) -> Predicate | None:
    return None if order.where is None else Predicate.parse(order.where)


def _failed(key: str, error: TargetError) -> Selected:
    return Selected(key, 0, "", "", code=type(error).__name__, message=error.message)


def _check_overwriting(order: Order, worklist: Worklist) -> None:
    """Raise JobRefused if the job would write to a key that it reads."""
    if order.destination is None or order.destination.bucket != order.source.bucket:
        return
    found = worklist.overwritten()
    if found is not None:
        maker, taken = found
        raise JobRefused(
            f"'{maker}' would become '{taken}', which the job reads: a job in one bucket needs other names for all it"
            " writes. Give the destination a prefix, prepend or ext, or choose with match"
        )
