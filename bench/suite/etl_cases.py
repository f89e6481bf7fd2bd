"""What `scripts/bench etl` measures: every runtime and transport, the call in process, a plain GET. Data only."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from transom.bench.suite.cases import GRANIAN, IMAGE_ARGS, PHOTO, Case, Ratio

ETL_SIZES = {"1KiB": 1024, "100KiB": 100 * 1024, "16MiB": 16 * 1024 * 1024}
BARE_WORKER, HTTP_LOOP = "aistore worker", "bare HTTP loop"
SPREAD, LOOP_WORKER = "transom, every core", "aistore worker, the loop's"
"""What the bare HTTP loop is compared with, and what it calls: kept to no core, and shared with nobody."""

ECHO_BYTES = """
class Echo:
    def transform(self, data, context):
        return data
"""
_ECHO_STREAM = """
class Echo:
    def transform_stream(self, chunks, context):
        yield from chunks
"""
# what the `image` transformer does, for those who know what their photos are like
_RESIZE = """
import io
from PIL import Image


def transform(data, context):
    size = context.args["width"], context.args["height"]
    image = Image.open(io.BytesIO(data))
    image.draft(None, (2 * size[0], 2 * size[1]))
    image.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    made = io.BytesIO()
    image.save(made, "JPEG", quality=85)
    return made.getvalue()
"""
_COMMON = "cache: false\nobj_timeout: 60s\ninit_timeout: 60s\n"


def _spec(name: str, runtime: str, *more: str) -> str:
    return "\n".join([f"name: {name}", f"runtime: {{{runtime}}}", *more, _COMMON])


def _code(name: str, source: str, *more: str) -> str:
    indented = "".join(f"    {line}\n" for line in source.strip().splitlines())
    return "\n".join([f"name: {name}", f"runtime:\n  code: |\n{indented}", *more, _COMMON])


IN_PROCESS, PHOTO_IN_PROCESS = "echo-call", "image-call"
CONTAINER = "echo-container"
AISTORE: Mapping[str, str] = {
    "echo-aistore": "communication: hpush://",
    "echo-aistore-ws": "communication: ws://",
}
"""ETLs of an AIStore server that runs on this machine already, by what their specs say of the transport."""


def specs(worker: Path) -> dict[str, str]:
    """Specs by the ETL's name; none keeps results. `worker` is a file with `ECHO_BYTES`."""
    kept = f"command: ['{sys.executable}', -m, transom.worker, --io, '{worker}']"
    return {
        IN_PROCESS: _spec(IN_PROCESS, "plugin: echo"),
        "echo-process": _spec("echo-process", "process: echo"),
        "echo-command": _spec("echo-command", "command: [cat]"),
        "echo-io": _spec("echo-io", kept, "communication: io://", "io: persistent"),
        "echo-hpush": _code("echo-hpush", ECHO_BYTES, "communication: hpush://"),
        "echo-stream": _code("echo-stream", _ECHO_STREAM, "communication: hpush://"),
        "echo-hpull": _code("echo-hpull", _ECHO_STREAM, "communication: hpull://"),
        "echo-hrev": _code("echo-hrev", _ECHO_STREAM, "communication: hrev://"),
        "echo-ws": _code("echo-ws", ECHO_BYTES, "communication: ws://"),
        "echo-file": _code("echo-file", _ECHO_STREAM, "communication: hpush://", "direct_file: true"),
        PHOTO_IN_PROCESS: _spec(PHOTO_IN_PROCESS, "plugin: image"),
        "image-process": _spec("image-process", "process: image"),
        "image-code": _code("image-code", _RESIZE),
    }


def aistore_spec(name: str, url: str) -> str:
    """The spec of an ETL of AIStore's server at `url`."""
    return _spec(name, f"url: '{url}'", AISTORE[name])


def container_spec(image: str) -> str:
    """The spec of an ETL that is a container of our SDK's, and echoes."""
    return _spec(CONTAINER, f"image: '{image}'")


def etl_cases(sizes: Sequence[str], names: Sequence[str]) -> list[Case]:
    """A plain GET and each ETL's at every size; then photos through those that make them smaller."""
    found = []
    for size in sizes:
        n = ETL_SIZES[size]
        found.append(Case(f"get {size}", (GRANIAN,), size=n))
        echoes = [name for name in names if name.startswith("echo-")]
        for name in echoes:
            servers = (GRANIAN, SPREAD) if name == "echo-aistore" else (GRANIAN,)
            found.append(Case(f"{name} {size}", servers, "etl", n, etl=name, does="echo"))
        if any(name in AISTORE for name in names):
            found.append(Case(f"{BARE_WORKER} {size}", (BARE_WORKER, HTTP_LOOP), "put", n))
    photos = [name for name in names if name.startswith("image-")]
    return found + [Case(name, (GRANIAN,), "etl", etl=name, etl_args=IMAGE_ARGS, pixels=PHOTO) for name in photos]


def etl_ratios(sizes: Sequence[str], names: Sequence[str]) -> list[Ratio]:
    """What is promised; then every ETL over the call in process, and that over a plain GET."""
    promised = [
        _ratio("echo-hpush 100KiB", f"{IN_PROCESS} 100KiB", 0.5),
        _ratio("echo-ws 1KiB", "echo-hpush 1KiB", 1.0),
        _ratio("echo-io 1KiB", "echo-hpush 1KiB", 1.0),
        _ratio("echo-file 16MiB", "echo-stream 16MiB", 1.0),
        _ratio("image-process", PHOTO_IN_PROCESS, 0.8),
        *(_over_loop(size, SPREAD, 0.7) for size in sizes),
    ]
    told = [_ratio("image-code", PHOTO_IN_PROCESS)]
    for size in sizes:
        told += [_ratio(f"{name} {size}", f"{IN_PROCESS} {size}") for name in names if name.startswith("echo-")]
        told += [_ratio(f"echo-aistore {size}", f"{BARE_WORKER} {size}", None, BARE_WORKER)]
        told += [_over_loop(size, GRANIAN)]
        told += [_ratio(f"{IN_PROCESS} {size}", f"get {size}")]
    known = {(ratio.over, ratio.under) for ratio in promised}
    return promised + [each for each in told if each.over != each.under and (each.over, each.under) not in known]


def _ratio(over: str, under: str, target: float | None = None, peer: str = GRANIAN) -> Ratio:
    return Ratio(f"{over} / {under}", (over, GRANIAN), (under, peer), target)


def _over_loop(size: str, server: str, target: float | None = None) -> Ratio:
    """AIStore's worker behind Transom over the plain loop at it."""
    over, under = f"echo-aistore {size}", f"{BARE_WORKER} {size}"
    where = "one core" if server == GRANIAN else "every core"
    return Ratio(f"{over}, {where} / {under}, {HTTP_LOOP}", (over, server), (under, HTTP_LOOP), target)
