"""What every transport takes and gives: a call, the worker's address, and the error that may be tried again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from transom.target.errors import TargetError
from transom.target.etl.watch import Watch


class WorkerLost(Exception):
    """The worker went away, or asked to be asked again, before any of its output was handed on.

    The run may be tried again from its source; where that is of no use, `error` is what came of it.
    """

    def __init__(self, error: TargetError) -> None:
        super().__init__(error.message)
        self.error = error


class Unreachable(WorkerLost):
    """Nobody listens at the worker's address: it is gone, or about to be replaced."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker listens: a unix socket, or a TCP port of a host.

    With `netns_pid` the TCP port is inside the network namespace of that process: a worker without a network. With
    `tls` it speaks TLS, and its certificate must be for that name.
    """

    unix: str = ""
    host: str = ""
    port: int = 0
    netns_pid: int = 0
    tls: str = ""

    def __str__(self) -> str:
        return self.unix or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Call:
    """One object for one worker. `size` is the input's length in bytes, None where an earlier stage streams it.

    `etl_args` is the text that is sent, empty for none. `path` is the stored object's own file, where the worker may
    read it instead of being sent the bytes; `pulled` tells that the worker fetches the bytes from the target itself.
    `metadata` is the stored object's own. A result of more than `max_output` bytes, where the worker says beforehand
    how many it has, need not be received at all.
    """

    etl: str
    bucket: str
    key: str
    etl_args: str = ""
    content_type: str = "binary/octet-stream"
    size: int | None = None
    path: str = ""
    pulled: bool = False
    max_output: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Speaks with one worker. Callable from several threads at once."""

    def run(self, call: Call, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Send the object, yield the result as it comes. Closing the generator early gives the worker up.

        What `chunks` raises passes through. Raises WorkerLost, Skip, Reject, EtlFailed, EtlDisconnected, and what
        `watch` has to say.
        """

    def close(self) -> None:
        """Let go of idle connections."""
