"""How a call of the management REST fails, and what any other error becomes in its words."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from transom.cluster.records import BadRecord, CatalogError, Exists, InUse, Missing
from transom.s3compat.errors import S3Error, from_target
from transom.target.errors import JobBusy, NoSuchJob, TargetError
from transom.target.etl.spec_load import SpecError

_STATUS: dict[type[CatalogError], tuple[int, str]] = {
    Exists: (409, "AlreadyExists"),
    Missing: (404, "NotFound"),
    InUse: (409, "InUse"),
    BadRecord: (400, "InvalidArgument"),
}
_OF_JOBS: dict[type[Exception], tuple[int, str]] = {NoSuchJob: (404, "NotFound"), JobBusy: (409, "InUse")}


class ApiError(Exception):
    """A call that fails; the message is public."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers


def failure(error: Exception) -> ApiError | None:
    """What a call that raised is refused with; None for what nobody foresaw."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"]) or "body"
        reason = detail["msg"].removeprefix("Value error, ")
        return ApiError(400, "InvalidArgument", f"{where}: {reason}")
    if isinstance(error, SpecError):
        return ApiError(400, "InvalidArgument", str(error))
    if isinstance(error, CatalogError):
        return ApiError(*_STATUS.get(type(error), (500, "InternalError")), str(error))
    if isinstance(error, S3Error | TargetError):
        mapped = from_target(error)
        status, code = _OF_JOBS.get(type(error), (mapped.status, mapped.code))
        return ApiError(status, code, mapped.message, mapped.headers)
    return None
