"""Which requests a run is made of: operations by weight, over the run's own keys, with what each must answer.

It builds and signs requests; sending, timing and counting them happens elsewhere.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from transom.bench.data import Blob, photo_blobs
from transom.bench.objects import EXTENSIONS, Kind, blobs
from transom.bench.sign import Credentials, Endpoint, serialize
from transom.bench.wire import Expected

OPERATIONS = ("get", "put", "etl")
RESIGN_AFTER_S = 300  # of the 900 that S3 grants
SCHEDULE_LENGTH = 1000


def hello_world(_: bytes) -> bytes:
    """What the transformer of that name gives for any input."""
    return b"Hello World!"


BY_HAND: Mapping[str, Callable[[bytes], bytes]] = {
    "echo": bytes,
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest().encode(),
    "upper": bytes.upper,
    "hello_world": hello_world,
}
"""Transformers whose output the generator knows by itself, for verification."""


def parse_mix(text: str, etl: str) -> dict[str, int]:
    """Weights from `get`, `put`, `etl` or `get=70,put=30`. With an ETL named, its GETs take the place of plain ones
    unless the mix names `etl` itself. Raises ValueError."""
    weights: dict[str, int] = {}
    for item in text.split(","):
        name, _, weight = item.strip().partition("=")
        if name not in OPERATIONS or name in weights or (weight and not weight.isdecimal()):
            raise ValueError(f"not a mix: {text!r} (get, put, etl, or get=70,put=30)")
        weights[name] = int(weight or 1)
    if etl and "etl" not in weights:
        if "get" not in weights:
            raise ValueError(f"the mix {text!r} has no GETs for the ETL {etl!r}")
        weights = {"etl" if name == "get" else name: weight for name, weight in weights.items()}
    if "etl" in weights and not etl:
        raise ValueError("the mix has `etl` but no ETL is named")
    if not sum(weights.values()):
        raise ValueError("the mix's weights are all zero")
    return {name: weight for name, weight in weights.items() if weight}


def stages(pipeline: str) -> list[str]:
    """The ETL names of `a>>b`."""
    return [stage.strip() for stage in pipeline.split(">>")]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of whom: everything that defines the requests, the same in every worker process.

    `size` is in bytes and ignored where `pixels` asks for photos; `kind` says what else the objects are. `does` names
    the stages that the pipeline is known to equal, when its names alone don't tell (verification only).
    """

    endpoint: Endpoint
    bucket: str
    credentials: Credentials = field(default_factory=Credentials)
    prefix: str = ""
    mix: Mapping[str, int] = field(default_factory=lambda: {"get": 1})
    etl: str = ""
    etl_args: str = ""
    does: str = ""
    size: int = 4096
    kind: Kind = "random"
    pixels: tuple[int, int] | None = None
    objects: int = 64
    seed: int = 0
    verify: bool = False

    def check(self) -> None:
        """Raise ValueError where verification can't know the right answer."""
        if self.verify and "etl" in self.mix:
            unknown = [stage for stage in stages(self.does or self.etl) if stage not in BY_HAND]
            if unknown:
                known = ", ".join(sorted(BY_HAND))
                raise ValueError(f"what {unknown[0]!r} should answer isn't known here; verification knows {known}")

    def blobs(self) -> Sequence[Blob]:
        """The objects' bytes, by index."""
        if self.pixels:
            return photo_blobs(*self.pixels, self.objects, self.seed)
        return blobs(self.kind, self.size, self.objects, self.seed)

    def path(self, kind: str, index: int) -> str:
        """The path of an object that is read (`r`) or written (`w`)."""
        return f"/{self.bucket}/{self.prefix}{kind}/{index:06d}{EXTENSIONS[self.kind]}"

    def etl_query(self) -> tuple[tuple[str, str], ...]:
        """The query that asks for the transform."""
        args = (("etl_args", self.etl_args),) if self.etl_args else ()
        return (("etl", self.etl), *args)


@dataclass(slots=True)
class Request:
    """One request, signed when it is first needed and again when the signature ages."""

    op: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: memoryview | None = None
    expected: Expected | None = None
    index: int = 0
    md5: str = ""
    _head: bytes = b""
    _signed_s: float = float("-inf")

    def head(self, endpoint: Endpoint, credentials: Credentials) -> bytes:
        """The serialized head, freshly enough signed."""
        now = time.monotonic()
        if now - self._signed_s > RESIGN_AFTER_S:
            length = None if self.body is None else len(self.body)
            self._head = serialize(endpoint, credentials, self.method, self.path, query=self.query, length=length)
            self._signed_s = now
        return self._head


def expected_of(blob: Blob, pipeline: str) -> Expected:
    """What the pipeline must give for an object; an empty pipeline gives the object."""
    todo = [stage for stage in stages(pipeline) if stage != "echo"] if pipeline else []
    if not todo:
        return Expected(blob.pool, blob.start, blob.length)
    data = bytes(blob.view())
    for stage in todo:
        data = BY_HAND[stage](data)
    return Expected(data, 0, len(data))


def reads(workload: Workload, blobs: Sequence[Blob] | None, *, op: str = "get", kind: str = "r") -> list[Request]:
    """A GET of every object; with the ETL for op `etl`. Given blobs, each answer is compared."""
    query = workload.etl_query() if op == "etl" else ()
    pipeline = (workload.does or workload.etl) if op == "etl" else ""
    return [
        Request(
            op,
            "GET",
            workload.path(kind, index),
            query,
            expected=expected_of(blobs[index], pipeline) if blobs else None,
            index=index,
        )
        for index in range(workload.objects)
    ]


def writes(workload: Workload, blobs: Sequence[Blob], *, kind: str = "w") -> list[Request]:
    """A PUT of every object; when verifying, with the MD5 that its ETag must be."""
    return [
        Request(
            "put",
            "PUT",
            workload.path(kind, index),
            body=blob.view(),
            index=index,
            md5=hashlib.md5(blob.view(), usedforsecurity=False).hexdigest() if workload.verify else "",
        )
        for index, blob in enumerate(blobs)
    ]


def deletes(workload: Workload, kind: str) -> list[Request]:
    """A DELETE of every object of a kind."""
    return [Request("delete", "DELETE", workload.path(kind, index)) for index in range(workload.objects)]


def endless(workload: Workload, worker: int, workers: int = 1) -> Iterator[Request]:
    """The run's requests as one worker sends them: operations shuffled by weight, each over its keys in turn.

    Workers read in different orders, so that they don't march in step, and write different keys where there are
    enough of them: two overwriting one object at a time is no load that anyone means to measure.
    """
    needs_data = workload.verify or "put" in workload.mix
    blobs = workload.blobs() if needs_data else None
    generator = random.Random(f"{workload.seed}/{worker}")  # noqa: S311 - an order, not secrets
    turns: dict[str, Iterator[Request]] = {}
    for op in workload.mix:
        if op == "put":
            assert blobs is not None
            every = writes(workload, blobs)
            requests = every[worker::workers] or every
        else:
            requests = reads(workload, blobs if workload.verify else None, op=op)
        generator.shuffle(requests)
        turns[op] = itertools.cycle(requests)
    if len(turns) == 1:
        return next(iter(turns.values()))
    return _interleaved(turns, workload.mix, generator)


def _interleaved(
    turns: Mapping[str, Iterator[Request]], mix: Mapping[str, int], generator: random.Random
) -> Iterator[Request]:
    schedule = generator.choices(list(mix), weights=list(mix.values()), k=SCHEDULE_LENGTH)
    for op in itertools.cycle(schedule):
        yield next(turns[op])
