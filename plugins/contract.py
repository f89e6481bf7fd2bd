"""The transformer contract: what a plugin author writes, and nothing of where it runs.

Write a subclass of `Transformer` with exactly one of `transform`, `transform_stream`, `transform_file`;
`transom.plugins.shapes` derives the others.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict


class Skip(Exception):
    """Leave this object out: HEAD and GET answer 404, an offline job goes on without it."""


class Reject(Exception):
    """This input can't be transformed and trying again won't help: 422, with the message."""


class NoArgs(BaseModel):
    """The schema of a transformer that takes no arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Installed(Protocol):
    """Looks up the transformers that are installed."""

    def get(self, name: str, /) -> Transformer | None:
        """The transformer of that name, None if there is none."""

    def why_not(self, name: str, /) -> str:
        """Say why there is none: what to install, or which name is near."""


class _NoneInstalled:
    """Stands in where nobody said what is installed."""

    def get(self, name: str, /) -> Transformer | None:
        return None

    def why_not(self, name: str, /) -> str:
        return f"there is no transformer '{name}'"


@dataclass(frozen=True, slots=True)
class Context:
    """What a transformer may know of the object in hand.

    `size` is the input's length in bytes, None when an earlier stage streams it. `deadline` is in seconds of
    `time.monotonic()`. `args` is an instance of the transformer's own `Args`. `transformers` looks up those that are
    installed, for one that runs others: see `Transformer.uses` and `transom.plugins.nested`. `scratch` is a folder for
    temporary files, which whoever makes them removes.
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
    transformers: Installed = field(default_factory=_NoneInstalled)
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))

    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self.deadline - time.monotonic()


class Transformer:
    """Turns an object's bytes into other bytes.

    Class attributes declare it: `name` (`[a-z0-9][a-z0-9_-]{0,31}`, no `--`); `version`, part of every result's
    identity: change it when the output changes; `Args`, a pydantic model (mark the field that a bare scalar sets
    with `json_schema_extra={"first": True}`); `deterministic`; `releases_gil`, True when the work runs in native
    code that lets go of the GIL; `isolated`, True when it must never run in the server's own process, as what runs a
    client's queries must not: it gets a worker process, whatever the input's size; `memory_limit`, how many bytes a
    run may add to that process, beyond which what it asks for is refused; `extension`, the output key's (without a
    dot), None to keep the input's.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    Args: ClassVar[type[BaseModel]] = NoArgs
    deterministic: ClassVar[bool] = True
    releases_gil: ClassVar[bool] = False
    isolated: ClassVar[bool] = False
    memory_limit: ClassVar[int | None] = None
    extension: ClassVar[str | None] = None

    def content_type(self, context: Context) -> str:
        """The output's Content-Type; by default the input's."""
        return context.content_type

    def output_extension(self, context: Context) -> str | None:
        """The output key's extension, without a dot; None to keep the input's. By default the declared one."""
        return self.extension

    def output_key(self, context: Context) -> str | None:
        """The output's key where outputs are stored, in an offline job; None for the input's with the extension."""
        return None

    def output_size(self, context: Context) -> int | None:
        """The output's exact length in bytes when it is known without running, else None."""
        return None

    def uses(self, args: Any) -> Iterable[tuple[str, object]]:
        """List other transformers that a run with `args` (of `Args`) will run: by name, each with its arguments.

        They are checked before the run, and their versions, arguments and determinism belong to the result's identity.
        """
        return ()

    def transform(self, data: bytes, context: Context) -> bytes:
        """Return the whole output for the whole input."""
        raise NotImplementedError

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Yield the output while consuming the input."""
        raise NotImplementedError

    def transform_file(self, path: Path, context: Context) -> Path | bytes | Iterator[bytes]:
        """Return the output, yield it, or return the path of a file holding it.

        That file is inside `path`'s own folder, which is removed afterwards.
        """
        raise NotImplementedError
