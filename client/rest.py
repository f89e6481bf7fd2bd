"""How a server's management REST is called: signed with SigV4 as S3 requests are, answers parsed, refusals raised.

It knows of no path but the API's root.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.httpsession import URLLib3Session

from transom.client.records import JsonObject

API = "/-/api/v1"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
START_TIMEOUT_S = 24 * 3600.0  # as long as a spec may let an ETL take to start; the server ends it sooner
UNREACHABLE = "Unreachable"
_FIRST_ERROR = 400
_EXCERPT_CHARS = 200
# A request's head and body are two pieces: the second would wait 40 ms for the first one's acknowledgement.
_AT_ONCE: Any = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]  # the stubs take it for texts

T = TypeVar("T")


class AdminError(Exception):
    """The server refused, or could not be reached (`status` 0, `code` "Unreachable")."""

    def __init__(self, status: int, code: str, message: str, *, request_id: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id


class Rest:
    """One server's management REST. Use as a context manager, or `close` it."""

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "us-east-1",
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"an endpoint is an http or https URL, not {endpoint!r}")
        self._endpoint = endpoint.rstrip("/")
        self._auth = S3SigV4Auth(Credentials(access_key, secret_key), "s3", region)
        timeouts: Any = (CONNECT_TIMEOUT_S, read_timeout_s)  # the stubs know of whole seconds only
        self._session = URLLib3Session(timeout=timeouts, socket_options=_AT_ONCE)
        patient: Any = (CONNECT_TIMEOUT_S, max(read_timeout_s, START_TIMEOUT_S))
        self._patient = URLLib3Session(timeout=patient, socket_options=_AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
        self._patient.close()

    def _call(
        self,
        method: str,
        path: str,
        parse: Callable[[JsonObject], T],
        body: object = None,
        *,
        patient: bool = False,
    ) -> T:
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        session = self._patient if patient else self._session
        return self._parse(self._send(method, API + path, data, session=session), parse)

    def _send(
        self,
        method: str,
        path: str,
        data: bytes = b"",
        *,
        signed: bool = True,
        session: URLLib3Session | None = None,
    ) -> AWSResponse:
        headers = {"Content-Type": "application/json"} if data else {}
        request = AWSRequest(method=method, url=self._endpoint + path, data=data, headers=headers)
        try:
            if signed:
                self._auth.add_auth(request)
            response: AWSResponse = (session or self._session).send(request.prepare())
        except (BotoCoreError, HTTPClientError, ValueError) as error:
            raise AdminError(0, UNREACHABLE, f"no answer from {self._endpoint}: {error}") from error
        expected = response.headers.get("Content-Length", "")
        if expected.isdigit() and len(response.content) < int(expected):  # botocore's transport doesn't mind
            raise AdminError(0, UNREACHABLE, f"the answer from {self._endpoint} was cut short")
        if response.status_code >= _FIRST_ERROR:
            raise _error(response)
        return response

    def _parse(self, response: AWSResponse, parse: Callable[[JsonObject], T]) -> T:
        try:
            return parse(json.loads(response.content) if response.content else {})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"{self._endpoint} does not answer as Transom does"
            raise AdminError(response.status_code, "NotTransom", message) from error


def as_is(data: JsonObject) -> JsonObject:
    """An answer that is taken as it comes. Raises TypeError for one that is no JSON object."""
    if not isinstance(data, dict):
        raise TypeError("not an object")
    return data


def query(parameters: Mapping[str, object]) -> str:
    """The query string of those parameters that are given, with its "?"; empty for none."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return "?" + urlencode(given, quote_via=quote) if given else ""


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _error(response: AWSResponse) -> AdminError:
    """Read the REST's JSON error, or S3's XML one, which a request refused before its routing gets."""
    status, body = response.status_code, response.content
    try:
        data = json.loads(body)
        return AdminError(status, data["code"], data["message"], request_id=data.get("request_id", ""))
    except (ValueError, TypeError, KeyError):
        text = body.decode(errors="replace")
    code = _element(text, "Code") or str(status)
    message = _element(text, "Message") or _phrase(status) + (f": {text[:_EXCERPT_CHARS]}" if text else "")
    return AdminError(status, code, message, request_id=_element(text, "RequestId"))


def _element(xml: str, name: str) -> str:
    # Good enough to show a person; the answer may be any proxy's page, so no parser is tried on it.
    found = re.search(rf"<{name}>([^<]*)</{name}>", xml)
    return found[1] if found else ""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an unknown status"
