"""What becomes of one object of a job: left alone, read, or transformed, and held or written as it comes.

It knows nothing of batches, nor of threads that are left alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass

from transom.target.errors import EtlSkipped, NoSuchBucket, NoSuchKey, TargetError
from transom.target.etl.plan import Plan
from transom.target.etl.runtimes.jobs import cause_of
from transom.target.etl.small import is_plain, run_small
from transom.target.etl.watch import Watch
from transom.target.jobs import truth
from transom.target.jobs.order import Order
from transom.target.jobs.reading import find_damage
from transom.target.jobs.records import Item, Outcome, OutcomeState
from transom.target.jobs.site import Site
from transom.target.store.base import Attributes, ObjectInfo, ObjectReader, Whole

MIB = 1024 * 1024
SMALL = 4 * MIB  # a stream up to this is held, to be written with others

Made = Outcome | tuple[Outcome, Whole]
"""What became of an object; with what is still to be written for that to be true."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A predicate over an object and an output: of `plan`, or of the job's own where that is None.

    `admits` gets the source's description, the output's bytes (None if it has more than `SMALL`) and its size.
    """

    admits: Callable[[ObjectInfo, bytes | None, int], bool]
    plan: Plan | None = None

    def check(self, source: ObjectInfo, output: bytes | None, size: int) -> None:
        """Raise EtlSkipped unless the object is to be kept."""
        if not self.admits(source, output, size):
            raise EtlSkipped("the predicate leaves this object out")


@dataclass(frozen=True, slots=True)
class Task:
    """What is done with every object of the job; `plan` is None where they are only read."""

    order: Order
    plan: Plan | None
    judge: Judge | None
    owner: str

    @property
    def whole_plan(self) -> Plan | None:
        """All stages that an object goes through, the predicate's too."""
        judging = None if self.judge is None else self.judge.plan
        if judging is None or self.plan is None:
            return judging or self.plan
        return judging + self.plan


@dataclass(slots=True)
class _Making:
    """One run: of which object, what its result is called, and how much of a stream went by."""

    item: Item
    source: ObjectInfo
    result: str
    watch: Watch
    size: int = 0


class Maker:
    """Makes what the task asks for. `begin` gives each run its watch; `claim` is called before a stream is whole."""

    def __init__(self, task: Task, site: Site, begin: Callable[[str, float], Watch], claim: Callable[[], None]) -> None:
        order, plan, stages = task.order, task.plan, task.whole_plan
        self._task = task
        self._site = site
        self._begin = begin
        self._claim = claim
        self._writes = order.destination is not None and not order.dry_run
        self._to = "" if order.destination is None else order.destination.bucket
        self._state: OutcomeState = "unchanged" if order.destination is None else "written"
        self._own_judge = task.judge if task.judge is not None and task.judge.plan is None else None
        self._name = "inspect" if plan is None else plan.name
        self._marks = truth.marks(plan, order.args) if plan is not None else {}
        self._stages = stages
        self._timeout_s = order.object_timeout_s or _timeout_s(stages, site.pipelines.limits.timeout_s)
        self._plain = plan is not None and is_plain(site.pipelines, plan)
        self._bounded = site.places.bounded(stages) if site.places is not None and stages is not None else ()

    async def make(self, item: Item) -> Made:
        """Do one object. Raises what goes wrong with it: TargetError, or anything unforeseen."""
        reader = await self._site.store.open(self._task.order.source.bucket, item.key)
        try:
            result = "" if self._task.plan is None else truth.result_of(self._task.plan, reader.info)
            if await self._is_there(item, result):
                return Outcome(item.n, "unchanged")
            if not self._bounded or self._site.places is None:
                return await self._run(item, reader, result)
            async with self._site.places.holding(self._bounded):
                return await self._run(item, reader, result)
        except TargetError as error:
            cause = (
                error if self._stages is None else await cause_of(error, self._stages, reader.info, self._site.store)
            )
            if cause is error:
                raise
            raise cause from error
        finally:
            reader.close()

    async def _is_there(self, item: Item, result: str) -> bool:
        order = self._task.order
        if order.destination is None or order.force:
            return False
        try:
            return truth.up_to_date(await self._site.store.head(order.destination.bucket, item.destination), result)
        except (NoSuchKey, NoSuchBucket):  # a bucket that a dry run does not make
            return False

    async def _run(self, item: Item, reader: ObjectReader, result: str) -> Made:
        watch, judge, plan = self._begin(self._name, self._timeout_s), self._task.judge, self._task.plan
        if judge is not None and judge.plan is not None:
            with closing(self._site.pipelines.produce(judge.plan, reader, watch, self._site.scratch)) as pieces:
                output, whole = _head(pieces)
                judge.check(reader.info, output if whole else None, len(output) + _count(pieces))
        if plan is None:
            damage, size = find_damage(reader), reader.info.size
            return _damaged(item.n, damage) if damage else Outcome(item.n, self._state, bytes_in=size)
        making = _Making(item, reader.info, result, watch)
        made = None
        if self._plain:
            made = run_small(self._site.pipelines, plan, reader, watch, self._site.scratch, SMALL)
        if made is not None:
            return self._hold(making, *made)
        content_type, _, pieces = self._site.pipelines.begin(plan, reader, watch, self._site.scratch)
        with closing(pieces):
            output, whole = _head(pieces)
            return (
                self._hold(making, content_type, output)
                if whole
                else await self._pass(making, content_type, output, pieces)
            )

    def _hold(self, making: _Making, content_type: str, output: bytes) -> Made:
        """Keep an output that is all there."""
        if self._own_judge is not None:
            self._own_judge.check(making.source, output, len(output))
        outcome = Outcome(making.item.n, self._state, making.source.size, len(output))
        if not self._writes:
            return outcome
        return outcome, Whole(making.item.destination, output, self._attributes(making, content_type))

    async def _pass(self, making: _Making, content_type: str, head: bytes, rest: Iterator[bytes]) -> Outcome:
        """Write a large output as it comes: what comes last decides whether it is kept."""
        body = self._body(making, head, rest)
        destination = self._task.order.destination
        async with aclosing(body) as pieces:
            if self._writes and destination is not None:
                attributes = self._attributes(making, content_type)
                await self._site.store.put(destination.bucket, making.item.destination, pieces, attributes)
            else:
                async for _ in pieces:
                    pass
        return Outcome(making.item.n, self._state, making.source.size, making.size)

    async def _body(self, making: _Making, head: bytes, rest: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The pieces of a large output; the time that the store takes for them is not the transformer's."""
        piece: bytes | None = head
        del head
        while piece is not None:
            making.size += len(piece)
            making.watch.pause()
            yield piece
            making.watch.resume()
            piece = next(rest, None)
        if self._own_judge is not None:
            self._own_judge.check(making.source, None, making.size)
        self._claim()

    def _attributes(self, making: _Making, content_type: str) -> Attributes:
        place = truth.place_of(self._to, making.item.destination)
        return truth.attributes_of(self._marks, making.source, making.result, content_type, self._task.owner, place)


def _head(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The beginning of an output, and whether it is all of it: so it is up to `SMALL` bytes."""
    head: list[bytes] = []
    size = 0
    for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size > SMALL:
            return b"".join(head), False
    return head[0] if len(head) == 1 else b"".join(head), True


def _count(pieces: Iterator[bytes]) -> int:
    return sum(map(len, pieces))


def _timeout_s(plan: Plan | None, otherwise_s: float) -> float:
    return float("inf") if plan is None else sum(stage.timeout_s or otherwise_s for stage in plan.stages)


def _damaged(n: int, damage: str) -> Outcome:
    return Outcome(n, "failed", code="Damaged", message=f"the object is damaged: {damage}")
