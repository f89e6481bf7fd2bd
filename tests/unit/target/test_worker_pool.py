"""The pool of workers that a process keeps warm: what is its own time, and what the transform's."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from transom.target.etl.watch import Watch
from transom.target.etl.workers import Pool


class Slow:
    """A worker that takes its time to start, then echoes."""

    idle = alive = True

    def __init__(self) -> None:
        time.sleep(0.4)

    def run(self, task: str, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        watch.check()
        yield from chunks

    def kill(self) -> None:
        self.alive = False


def test_the_time_a_worker_takes_to_start_is_not_the_transforms() -> None:
    pool: Pool[str] = Pool(lambda task, watch: Slow())
    watch = Watch("slow", 0.3)
    assert b"".join(pool.run("", iter([b"a", b"b"]), watch)) == b"ab"
    assert watch.left_s() > 0
    pool.close()
