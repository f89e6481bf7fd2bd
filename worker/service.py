"""What every connection of one worker shares, and what a connection is."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from transom.worker.errors import Refused
from transom.worker.jobs import Jobs
from transom.worker.pulling import Puller
from transom.worker.reading import Reader
from transom.worker.requests import Request
from transom.worker.settings import Settings
from transom.worker.shapes import Transform
from transom.worker.signing import is_valid


@dataclass(slots=True)
class Service:
    """One worker.

    `ready` once the author's start() has returned; `leaving` once it is to end, when what is under way is the last.
    """

    transform: Transform
    settings: Settings
    jobs: Jobs
    puller: Puller
    ready: bool = False
    leaving: bool = False

    @classmethod
    def of(cls, transform: Transform, settings: Settings) -> Service:
        """Build one."""
        return cls(transform, settings, Jobs(transform, settings), Puller(settings.target_url))

    def admit(self, request: Request, line: Line) -> None:
        """Raise Refused for a request that is not to be run."""
        if request.method not in ("GET", "PUT"):
            raise Refused(405, "a worker takes GET and PUT")
        if not self.ready:
            raise Refused(503, "the worker is starting", retry=True)
        if self.settings.require_signature and not line.trusted:
            self._check(request)

    def _check(self, request: Request) -> None:
        """Raise Refused for a request that wasn't signed as it is; to name a file, or to speak on, none can be."""
        query = request.query
        if "etl_fqn" in query or request.path == "/ws":
            raise Refused(403, "only the target may ask for this")
        args, expires = query.get("etl_args", ""), query.get("transom_expires", "")
        signature = query.get("transom_signature", "")
        if not is_valid(self.settings.secret, request.method, request.path, args, expires, signature):
            raise Refused(403, "the signature of this request is missing, wrong, or no longer valid")


class Line:
    """One accepted connection; `busy` while a request is under way.

    It is `trusted` on a unix socket: the folder that holds it lets in the target only.
    """

    __slots__ = ("busy", "reader", "sock", "trusted")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = Reader(sock)
        self.busy = False
        self.trusted = sock.family == socket.AF_UNIX
