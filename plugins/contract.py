"""The transformer contract: what a plugin author writes, and nothing of where it runs.

Write a subclass of `Transformer` with exactly one of `transform`, `transform_stream`, `transform_file`;
`transom.plugins.shapes` derives the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Skip(Exception):
    """Leave this object out: HEAD and GET answer 404, an offline job goes on without it."""


class Reject(Exception):
    """This input can't be transformed and trying again won't help: 422, with the message."""


class NoArgs(BaseModel):
    """The schema of a transformer that takes no arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Context:
    """What a transformer may know of the object in hand.

    `size` is the input's length in bytes, None when an earlier stage streams it. `deadline` is in seconds of
    `time.monotonic()`. `args` is an instance of the transformer's own `Args`.
    """

    bucket: str
    key: str
    etl: str
    content_type: str = "binary/octet-stream"
    size: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    args: Any = field(default_factory=NoArgs)
    deadline: float = float("inf")
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("transom.transformer"))

    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self.deadline - time.monotonic()


class Transformer:
    """Turns an object's bytes into other bytes.

    Class attributes declare it: `name` (`[a-z0-9][a-z0-9_-]{0,31}`, no `--`); `version`, part of every result's
    identity: change it when the output changes; `Args`, a pydantic model (mark the field that a bare scalar sets
    with `json_schema_extra={"first": True}`); `deterministic`; `releases_gil`, True when the work runs in native
    code that lets go of the GIL; `extension`, the output key's (without a dot), None to keep the input's.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    Args: ClassVar[type[BaseModel]] = NoArgs
    deterministic: ClassVar[bool] = True
    releases_gil: ClassVar[bool] = False
    extension: ClassVar[str | None] = None

    def content_type(self, context: Context) -> str:
        """The output's Content-Type; by default the input's."""
        return context.content_type

    def output_extension(self, context: Context) -> str | None:
        """The output key's extension, without a dot; None to keep the input's. By default the declared one."""
        return self.extension

    def output_size(self, context: Context) -> int | None:
        """The output's exact length in bytes when it is known without running, else None."""
        return None

    def transform(self, data: bytes, context: Context) -> bytes:
        """Return the whole output for the whole input."""
        raise NotImplementedError

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Yield the output while consuming the input."""
        raise NotImplementedError

    def transform_file(self, path: Path, context: Context) -> Path | bytes:
        """Return the output, or the path of a file holding it (inside `path`'s own folder; removed afterwards)."""
        raise NotImplementedError
