"""The target's own error tree: what a store, an ETL run or a target can refuse with.

It knows nothing of S3 or HTTP. `transom.s3compat.errors` maps each class, by name, to an S3 error code.
The message is public: it reaches the client. A cause goes in `__cause__` and only into the log.
"""

from __future__ import annotations


class TargetError(Exception):
    """Base of everything a target refuses with; `message` is shown to the client.

    `etl` is the stage whose doing it was, where one is to blame; one that `breaks` counts towards its circuit.
    """

    breaks = False

    def __init__(self, message: str = "", *, retry_after_s: int | None = None, etl: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.etl = etl


# --- stores -----------------------------------------------------------------------------------


class NoSuchBucket(TargetError):
    """The bucket does not exist."""


class NoSuchKey(TargetError):
    """The object does not exist."""


class NoSuchUpload(TargetError):
    """The multipart upload does not exist, or was completed or aborted."""


class NoSuchVersion(TargetError):
    """The version id names no version of the object."""


class BucketExists(TargetError):
    """A bucket of that name exists; `owner` tells whose it is."""

    def __init__(self, message: str = "", *, owner: str = "") -> None:
        super().__init__(message)
        self.owner = owner


class BucketNotEmpty(TargetError):
    """The bucket still holds objects."""


class InvalidPart(TargetError):
    """A part named in a completion is missing or has another ETag."""


class InvalidPartOrder(TargetError):
    """The parts of a completion are not in ascending order."""


class EntityTooSmall(TargetError):
    """A part other than the last is below the minimum size."""


class PreconditionFailed(TargetError):
    """A conditional write's condition does not hold; `condition` is the header's name."""

    def __init__(self, message: str = "", *, condition: str = "") -> None:
        super().__init__(message)
        self.condition = condition


class ReadOnlyStore(TargetError):
    """The store, or the bucket, takes no writes."""


class StoreFull(TargetError):
    """The disk below the store has no room."""


class SourceChanged(TargetError):
    """The object changed while it was being read; what was sent must not count as whole."""


# --- ETLs -------------------------------------------------------------------------------------


class NoSuchEtl(TargetError):
    """No ETL of that name is registered."""


class EtlArgsInvalid(TargetError):
    """The arguments don't fit the transformer's schema, or the pipeline can't be parsed."""


class EtlSkipped(TargetError):
    """The transformer leaves this object out."""


class EtlInputRejected(TargetError):
    """The transformer can't use this input; trying again won't help."""


class EtlFailed(TargetError):
    """The transformer raised."""


class EtlExited(EtlFailed):
    """The program that was to transform the object ended with an exit code that says it failed."""


class EtlCrashed(TargetError):
    """The worker died while transforming."""

    breaks = True


class EtlDisconnected(EtlCrashed):
    """The connection to the worker can't be made, or broke; nobody saw the worker die."""


class EtlOutOfMemory(TargetError):
    """It needed more memory than it may have; `breaks` tells whether its worker died of it."""


class EtlLimitReached(TargetError):
    """It reached another limit on what it may use, which the message names; `breaks` as above."""


class EtlOutputTooLarge(TargetError):
    """The output passed the configured bound."""


class EtlTimeout(TargetError):
    """The transform passed its deadline."""

    breaks = True


class EtlUnavailable(TargetError):
    """The ETL is stopped, or its circuit is open."""


class EtlChanged(EtlUnavailable):
    """The ETL was changed between the planning of a run and its start: plan anew."""


class SlowDown(TargetError):
    """Too much is under way, or the result isn't ready within the wait budget."""


class ResultPreconditionFailed(TargetError):
    """If-Match names a result that is gone, or was never made."""


# --- jobs -------------------------------------------------------------------------------------


class NoSuchJob(TargetError):
    """No job has that id."""


class JobRefused(TargetError):
    """What a job was asked to do can't be done; the message says what to ask instead."""


class WhereFailed(TargetError):
    """A job's predicate can't be judged for an object."""


class JobBusy(TargetError):
    """The job's state doesn't allow what was asked; the message says what would."""
