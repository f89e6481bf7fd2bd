"""The image transformer called in a plain loop, on as many processes as the server has: what HTTP is compared with.

The only part of the bench that touches plugins; it has no server.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from transom.bench.data import photos
from transom.bench.run import BenchError

START_TIMEOUT_S = 60.0


def rate(
    pixels: tuple[int, int], args_json: str, *, processes: int, seconds: float, cores: Sequence[int], seed: int
) -> float:
    """Photos transformed a second by all processes together."""
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for number in range(processes):
        ours, theirs = context.Pipe()
        child = context.Process(
            target=_loop, args=(pixels, args_json, seconds, tuple(cores), seed + number, theirs), daemon=True
        )
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        for pipe in pipes:
            _receive(pipe, START_TIMEOUT_S)
        for pipe in pipes:
            pipe.send(None)
        return sum(_receive(pipe, START_TIMEOUT_S + seconds) for pipe in pipes)
    finally:
        for child in children:
            child.kill()
            child.join()


def _receive(pipe: Connection, timeout_s: float) -> float:
    try:
        if pipe.poll(timeout_s):
            return float(pipe.recv())
    except EOFError:
        raise BenchError("a process of the bare loop died") from None
    raise BenchError("a process of the bare loop gave no answer")


def _loop(
    pixels: tuple[int, int], args_json: str, seconds: float, cores: Sequence[int], seed: int, pipe: Connection
) -> None:
    """Transform until the time is up; the first round over the photos warms up and doesn't count."""
    from transom.plugins.builtin.image import Image
    from transom.plugins.contract import Context

    if cores:
        os.sched_setaffinity(0, cores)
    transformer = Image()
    context = Context("bucket", "photo", "image", args=Image.Args(**json.loads(args_json)))
    context.logger.setLevel(logging.ERROR)
    inputs = photos(*pixels, 8, seed)
    for photo in inputs:
        transformer.transform(photo, context)
    pipe.send(0.0)
    pipe.recv()
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        transformer.transform(inputs[done % len(inputs)], context)
        done += 1
    pipe.send(done / (time.perf_counter() - begun))
