"""A server's S3 endpoint as jobs on other machines call it: signed requests, and the target's errors for its answers.

It knows nothing of stores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from transom.target import errors
from transom.target.errors import SlowDown, TargetError

_CONNECTIONS = 16
_ATTEMPTS = 4


class S3Link:
    """A server's endpoint and a key for it. Blocking; may be called from any thread.

    Answers other than success are raised as the target's errors.
    """

    def __init__(self, endpoint: str, access_key: str, secret_key: str, region: str) -> None:
        import boto3
        from botocore.config import Config

        def made(attempts: int) -> Any:
            return boto3.client(
                "s3",
                endpoint_url=endpoint,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                region_name=region,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    max_pool_connections=_CONNECTIONS,
                    read_timeout=120,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                ),
            )

        self._query = threading.local()
        self.client: Any = made(_ATTEMPTS)
        # what is of use to try again the server has tried again itself, and the job does so with the object
        self._through: Any = made(1)
        self._through.meta.events.register("before-sign.s3.GetObject", self._add_query)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request, such as call("head_object", Bucket=..., Key=...)."""
        return _called(self.client, operation, parameters)

    def get_through(self, query: Mapping[str, str], **parameters: Any) -> dict[str, Any]:
        """GetObject with `query` beside its own: `etl` and what belongs to it."""
        self._query.value = urlencode(query, quote_via=quote)
        try:
            return _called(self._through, "get_object", parameters)
        finally:
            self._query.value = ""

    def close(self) -> None:
        """Let go of connections."""
        self.client.close()
        self._through.close()

    def _add_query(self, request: Any, **_: object) -> None:
        # into the URL: botocore signs either the URL's query or the request's parameters, never both
        query = getattr(self._query, "value", "")
        if query:
            url = str(request.url)
            request.url = f"{url}{'&' if '?' in url else '?'}{query}"


def _called(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    with translated():
        answer: dict[str, Any] = getattr(client, operation)(**parameters)
    return answer


@contextmanager
def translated() -> Iterator[None]:
    """Raise botocore's errors as the target's."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _translate(error) from error
    except Boto3Error as error:
        cause = error.__context__
        raise (_translate(cause) if isinstance(cause, ClientError) else SlowDown(str(error))) from error
    except BotoCoreError as error:
        raise SlowDown(f"the server can't be reached: {error}") from error


@contextmanager
def broken_off() -> Iterator[None]:
    """Raise SlowDown where a body breaks off: it may come whole the next time."""
    from botocore.exceptions import BotoCoreError, HTTPClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (BotoCoreError, HTTPClientError, HTTPError, OSError) as error:
        raise SlowDown(f"the server's answer broke off: {error}") from error


_BY_STATUS = {404: "NoSuchKey", 412: "PreconditionFailed", 503: "SlowDown"}
_BY_CODE = {"StorageFull": "StoreFull", "MethodNotAllowed": "ReadOnlyStore", "404": "NoSuchKey"}


def _translate(error: Any) -> TargetError:
    """The target's error of an S3 one, by its code, with the ETL to blame; a HEAD has but its status and our header."""
    told = error.response.get("Error", {})
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    code, message = told.get("Code", ""), told.get("Message", "")
    if "x-transom-error" in headers:
        code, _, message = headers["x-transom-error"].partition(": ")
    name = _BY_CODE.get(code, code)
    kind = getattr(errors, name, None) or getattr(errors, _BY_STATUS.get(status, ""), None)
    if not (isinstance(kind, type) and issubclass(kind, TargetError)):
        return TargetError(f"the server answered {code}: {message}")
    after = headers.get("retry-after", "")
    made = kind(message)
    made.etl = told.get("Etl", "")
    made.retry_after_s = int(after) if after.isdecimal() else None
    return made
