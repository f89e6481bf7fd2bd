"""What ends an exchange early: the other end's leaving, and answers other than a result."""

from __future__ import annotations

import logging

from transom.worker.contract import Reject, Skip

_MESSAGE_LENGTH = 1000
_log = logging.getLogger("transom.worker")


class Gone(Exception):
    """The other end went away before all was said; there is nobody to tell."""


class Refused(Exception):
    """A request that gets this HTTP status and message instead of a result."""

    def __init__(self, status: int, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry = retry  # whether the same may well succeed in a moment


class OutputTooLarge(Exception):
    """The output passed TRANSOM_MAX_OUTPUT."""


class Failure(Exception):
    """An object's outcome that is no result: `kind` is "skip", "reject" or "failed"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def explain(error: BaseException) -> Failure:
    """What to tell of an exception that a transform raised.

    Failures are logged with their traceback: the log is the author's, the message the client's.
    """
    if isinstance(error, Skip):
        return Failure("skip", str(error)[:_MESSAGE_LENGTH])
    if isinstance(error, Reject):
        return Failure("reject", str(error)[:_MESSAGE_LENGTH])
    _log.error("the transform failed", exc_info=error)
    return Failure("failed", f"{type(error).__name__}: {error}"[:_MESSAGE_LENGTH])
