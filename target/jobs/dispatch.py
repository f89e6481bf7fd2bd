"""Gives a worklist's pending objects out in batches, and takes back what became of them.

Batches are sized so that each takes about half a second: small enough to share fairly and to show progress, large
enough that one wait for the disk serves many objects. It knows nothing of engines.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from transom.target.jobs.engines.base import Finished
from transom.target.jobs.perform import Batch, Done
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.worklist import Worklist

_PAGE = 2000
_FIRST, _LARGEST = 8, 128  # objects a batch
_BATCH_BYTES = 16 * 1024**2
_BATCH_S = 0.5
_WEIGHT = 0.3  # of the newest batch in what one object is thought to take
_TRIES_ALONE = 2
_ENOUGH = 5  # suspects that fail alone too, in a row: the ETL is at fault, and the others needn't be tried


class Dispatch:
    """An iterator of batches that may have more after it ended: what came back unfinished is given out again.

    `width` batches are under way at once; towards the end they get smaller, so that all end at about the same time.
    `place_of` says near which target a key's object is best done: a batch is of one place, and places take turns.
    Objects that failed with an ETL's worker that died, which others shared, are given out again at the end: one after
    the other, with nothing beside them in all of the job. `stage_of` tells which stage to blame where a worker dies of
    an object, by its number; "" where nobody knows.
    """

    def __init__(
        self,
        worklist: Worklist,
        pending: int,
        width: int,
        place_of: Callable[[str], str] = lambda _key: "",
        stage_of: Callable[[int], str] = lambda _n: "",
    ) -> None:
        self._worklist, self._left, self._width = worklist, pending, width
        self._place_of, self._stage_of = place_of, stage_of
        self._pages: deque[tuple[str, deque[Item]]] = deque()
        self._read = 0
        self._alone: deque[Item] = deque()
        self._lost: Counter[int] = Counter()
        self._suspects: dict[int, tuple[Item, Outcome]] = {}
        self.convicted: list[Item] = []  # of other batches, by what was taken last
        self._on_trial: Outcome | None = None
        self._under_way = self._guilty = 0
        self._each_s = 0.0
        self._size = _FIRST

    def __iter__(self) -> Dispatch:
        return self

    def __next__(self) -> Batch:
        batch = self._batch()
        self._left -= len(batch.items)
        self._under_way += 1
        return batch

    def take(self, finished: Finished[Batch, Done]) -> Sequence[Outcome]:
        """What a batch that came back decided."""
        batch, done = finished.task, finished.result
        self.convicted = []
        self._under_way -= 1
        if done is None:
            return self._take_lost(batch, finished.lost)
        if done.suspects:
            by_n = {item.n: item for item in batch.items}
            self._suspects |= {outcome.n: (by_n[outcome.n], outcome) for outcome in done.suspects}
            self._left += len(done.suspects)
        if done.unfinished:
            self._put_back(batch.place, done.unfinished)
        self._learn(done.took_s / max(1, len(done.outcomes)))
        return (*done.outcomes, *self._convict(done))

    def _batch(self) -> Batch:
        if self._alone:
            item = self._alone.popleft()
            return Batch((item,), self._place_of(item.key), alone=True)
        if not self._pages:
            try:
                self._read_page()
            except StopIteration:
                return self._suspect()
        place, page = self._pages[0]
        most = min(self._size, max(1, self._left // (2 * self._width)))
        items = [page.popleft()]
        size = items[0].size
        while page and len(items) < most and size + page[0].size <= _BATCH_BYTES:
            size += page[0].size
            items.append(page.popleft())
        if page:
            self._pages.rotate(-1)
        else:
            self._pages.popleft()
        return Batch(tuple(items), place)

    def _suspect(self) -> Batch:
        """The next suspect, once nothing else is under way that could be to blame; raises StopIteration else."""
        if self._under_way or not self._suspects:
            raise StopIteration
        item, self._on_trial = self._suspects.pop(next(iter(self._suspects)))
        return Batch((item,), self._place_of(item.key), alone=True)

    def _convict(self, done: Done) -> Sequence[Outcome]:
        """What is decided of other suspects by this one: that they failed, where one after the other does so alone."""
        trial, self._on_trial = self._on_trial, None
        if trial is None:  # of those that are tried alone, many are no suspects
            return ()
        again = any((each.n, each.code) == (trial.n, trial.code) for each in done.outcomes)
        self._guilty = self._guilty + 1 if again else 0
        if self._guilty < _ENOUGH:
            return ()
        self.convicted = [item for item, _ in self._suspects.values()]
        outcomes = [outcome for _, outcome in self._suspects.values()]
        self._left -= len(outcomes)
        self._suspects.clear()
        return outcomes

    def _read_page(self) -> None:
        """Have the next items, by place; raises StopIteration where there are none."""
        items = self._worklist.pending(self._read, _PAGE)
        if not items:
            raise StopIteration
        self._read = items[-1].n
        by_place: dict[str, deque[Item]] = {}
        for item in items:
            by_place.setdefault(self._place_of(item.key), deque()).append(item)
        self._pages.extend(by_place.items())

    def _put_back(self, place: str, items: Sequence[Item]) -> None:
        """Have items given out again, with the next ones of their place: alone they'd make a small batch."""
        self._left += len(items)
        for there, page in self._pages:
            if there == place:
                page.extendleft(reversed(items))
                return
        self._pages.appendleft((place, deque(items)))

    def _take_lost(self, batch: Batch, how: str) -> Sequence[Outcome]:
        """Try each object of a lost batch alone: one of them may have killed the worker, and the others are to live."""
        outcomes = []
        for item in batch.items:
            if len(batch.items) == 1:
                self._lost[item.n] += 1
            if self._lost[item.n] < _TRIES_ALONE:
                self._alone.append(item)
                self._left += 1
            else:
                message = f"its worker died {_TRIES_ALONE} times ({how}); with signal 9, memory may have run out"
                stage = self._stage_of(item.n)
                outcomes.append(Outcome(item.n, "failed", stage=stage, code="EtlCrashed", message=message))
        return outcomes

    def _learn(self, each_s: float) -> None:
        known = self._each_s or each_s
        self._each_s = known + _WEIGHT * (each_s - known)
        wanted = int(_BATCH_S / max(self._each_s, 1e-6))
        self._size = max(1, min(wanted, self._size * 4, _LARGEST))
