"""The admin client: ETLs, views and plugins over the management REST, signed with SigV4 as S3 requests are.

It doesn't read or write objects; any S3 client does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.httpsession import URLLib3Session

from transom.client.records import Etl, JsonObject, Plugins, View

API = "/-/api/v1"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
UNREACHABLE = "Unreachable"
_FIRST_ERROR = 400
_EXCERPT_CHARS = 200

T = TypeVar("T")


class AdminError(Exception):
    """The server refused, or could not be reached (`status` 0, `code` "Unreachable")."""

    def __init__(self, status: int, code: str, message: str, *, request_id: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id


class AdminClient:
    """One server's management REST. Every method raises AdminError. Use as a context manager, or `close` it."""

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
        self._session = URLLib3Session(timeout=timeouts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def health(self) -> JsonObject:
        """What `/-/health` says; an error unless the server is well."""
        return self._parse(self._send("GET", "/-/health", signed=False), _as_is)

    def openapi(self) -> JsonObject:
        """The description of the REST itself."""
        return self._call("GET", "/openapi.json", _as_is)

    def plugins(self) -> Plugins:
        """The transformers of all installed plugins."""
        return self._call("GET", "/plugins", Plugins.from_json)

    def etls(self) -> tuple[Etl, ...]:
        """All ETLs, those that plugins bring included."""
        return self._call("GET", "/etls", lambda data: tuple(map(Etl.from_json, data["etls"])))

    def etl(self, name: str) -> Etl:
        """One ETL."""
        return self._call("GET", f"/etls/{_segment(name)}", Etl.from_json)

    def init_etl(
        self,
        name: str,
        plugin: str,
        args: JsonObject | None = None,
        *,
        cache: bool = True,
        deterministic: bool | None = None,
        concurrency: int | None = None,
        timeout_s: float | None = None,
    ) -> Etl:
        """Make an ETL of a plugin's transformer, or change it to this configuration."""
        body = {
            "plugin": plugin,
            "args": dict(args or {}),
            "cache": cache,
            "deterministic": deterministic,
            "concurrency": concurrency,
            "timeout_s": timeout_s,
        }
        return self._call("PUT", f"/etls/{_segment(name)}", Etl.from_json, body)

    def start_etl(self, name: str) -> Etl:
        """Let a stopped ETL take requests again."""
        return self._call("POST", f"/etls/{_segment(name)}/start", Etl.from_json)

    def stop_etl(self, name: str) -> Etl:
        """Refuse requests for the ETL until it is started."""
        return self._call("POST", f"/etls/{_segment(name)}/stop", Etl.from_json)

    def remove_etl(self, name: str) -> None:
        """Forget an ETL made by `init_etl`."""
        self._call("DELETE", f"/etls/{_segment(name)}", _as_is)

    def views(self) -> tuple[View, ...]:
        """All views, the implicit ones apart."""
        return self._call("GET", "/views", lambda data: tuple(map(View.from_json, data["views"])))

    def view(self, name: str) -> View:
        """One view."""
        return self._call("GET", f"/views/{_segment(name)}", View.from_json)

    def create_view(
        self,
        name: str,
        bucket: str,
        etl: str | Sequence[str],
        *,
        args: Any = None,
        ext: Mapping[str, str] | None = None,
        sizes: Literal["source", "materialise"] = "materialise",
    ) -> View:
        """Make a view of `bucket` through the pipeline `etl` ("a>>b", or the names), or change it to this.

        `args` is a list with one element a stage, or for one ETL its own arguments.
        """
        pipeline = etl if isinstance(etl, str) else ">>".join(etl)
        body = {"bucket": bucket, "etl": pipeline, "args": args, "ext": dict(ext or {}), "sizes": sizes}
        return self._call("PUT", f"/views/{_segment(name)}", View.from_json, body)

    def remove_view(self, name: str) -> None:
        """Remove a view; its source bucket stays as it is."""
        self._call("DELETE", f"/views/{_segment(name)}", _as_is)

    def _call(self, method: str, path: str, parse: Callable[[JsonObject], T], body: object = None) -> T:
        data = b"" if body is None else json.dumps(body).encode()
        return self._parse(self._send(method, API + path, data), parse)

    def _send(self, method: str, path: str, data: bytes = b"", *, signed: bool = True) -> AWSResponse:
        headers = {"Content-Type": "application/json"} if data else {}
        request = AWSRequest(method=method, url=self._endpoint + path, data=data, headers=headers)
        try:
            if signed:
                self._auth.add_auth(request)
            response: AWSResponse = self._session.send(request.prepare())
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


def _as_is(data: JsonObject) -> JsonObject:
    if not isinstance(data, dict):
        raise TypeError("not an object")
    return data


def _segment(name: str) -> str:
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
