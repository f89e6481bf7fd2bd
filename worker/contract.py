"""What a worker's author writes, is given and may raise. It knows nothing of how objects come and results go."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


class Skip(Exception):
    """Leave this object out: it has no result. Raise it before the first byte of output."""


class Reject(Exception):
    """This input can't be transformed and trying again won't help. The message reaches the client."""


class Worker:
    """Turns an object's bytes into other bytes.

    Write exactly one of `transform(data, context)`, `transform_stream(chunks, context)` and
    `transform_file(path, context)`. It is called from several threads at once, as many as TRANSOM_CONCURRENCY says.
    `content_type` is what a client that was sent here directly is told; None for the input's.
    """

    content_type: ClassVar[str | None] = None

    def start(self) -> None:
        """Get ready, once, before the first object: load models here. The worker is not healthy until this returns."""

    def close(self) -> None:
        """Let go of what `start` made, once, after the last object."""


@dataclass(frozen=True, slots=True)
class Context:
    """What may be known of the object in hand.

    `args` is what the request gave: the value where it was JSON, else the text, None where it gave nothing;
    `args_text` is it as it came. `size` is the input's length in bytes, None where it is not known beforehand.
    `deadline` is in seconds of `time.monotonic()`.
    """

    bucket: str = ""
    key: str = ""
    etl: str = ""
    args_text: str = ""
    content_type: str = "binary/octet-stream"
    size: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    deadline: float = float("inf")
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("transom.worker"))

    @property
    def args(self) -> Any:
        """The arguments, parsed."""
        return parsed_args(self.args_text)

    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self.deadline - time.monotonic()


def parsed_args(text: str) -> Any:
    """Return the value of a JSON text, or the text where it is none; None for an empty one."""
    if not text:
        return None
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
