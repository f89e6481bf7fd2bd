"""The admin client: ETLs, views and plugins over the management REST, signed with SigV4 as S3 requests are.

It doesn't read or write objects; any S3 client does.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.httpsession import URLLib3Session

from transom.client.records import Etl, EtlError, JsonObject, LogPiece, Plugins, View

API = "/-/api/v1"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
START_TIMEOUT_S = 24 * 3600.0  # as long as a spec may let an ETL take to start; the server ends it sooner
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
        patient: Any = (CONNECT_TIMEOUT_S, max(read_timeout_s, START_TIMEOUT_S))
        self._patient = URLLib3Session(timeout=patient)

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

    def init_spec(
        self,
        text: str,
        *,
        files: Mapping[str, str] | None = None,
        name: str | None = None,
        communication: str | None = None,
        init_timeout: str | float | None = None,
        obj_timeout: str | float | None = None,
        wait: bool = True,
    ) -> tuple[Etl, ...]:
        """Make ETLs of a spec's text, YAML or JSON, or change them; return them once they run on all targets.

        `files` are the texts of the files that the spec names. What is given beside comes before the spec's own. With
        `wait` False they may still be "initializing" on return, or have a `pending` revision.
        """
        query = {
            "name": name,
            "communication": communication,
            "init_timeout": init_timeout,
            "obj_timeout": obj_timeout,
            "wait": str(wait).lower(),
        }
        body = {"spec": text, "files": dict(files)} if files else text
        path = "/etls" + _query(query)
        return self._call("POST", path, lambda data: tuple(map(Etl.from_json, data["etls"])), body, patient=wait)

    def init_code(
        self,
        name: str,
        source: str,
        *,
        requirements: Sequence[str] = (),
        entry: str | None = None,
        wait: bool = True,
        **settings: Any,
    ) -> Etl:
        """Make an ETL of Python source with a class or function, named by `entry` if there are several.

        `settings` are other keys of a spec: communication, args, resources, init_timeout and so on.
        """
        runtime: dict[str, Any] = {"code": source, "requirements": list(requirements)}
        if entry is not None:
            runtime["entry"] = entry
        (made,) = self.init_spec(json.dumps({"name": name, "runtime": runtime, **settings}), wait=wait)
        return made

    def start_etl(self, name: str, *, wait: bool = True) -> Etl:
        """Let a stopped or failed ETL take requests again; return once its workers run."""
        return self._start(name, "start", wait=wait)

    def restart_etl(self, name: str, *, wait: bool = True) -> Etl:
        """Replace an ETL's workers by fresh ones; return once those run."""
        return self._start(name, "restart", wait=wait)

    def stop_etl(self, name: str) -> Etl:
        """Refuse requests for the ETL until it is started."""
        return self._call("POST", f"/etls/{_segment(name)}/stop", Etl.from_json)

    def remove_etl(self, name: str) -> None:
        """Forget an ETL made by init."""
        self._call("DELETE", f"/etls/{_segment(name)}", _as_is)

    def etl_logs(self, name: str, *, target: str | None = None, offset: int | None = None) -> tuple[LogPiece, ...]:
        """The end of what the ETL's workers printed, a piece a target; or what follows `offset` on one target."""
        path = f"/etls/{_segment(name)}/logs" + _query({"target": target, "offset": offset})
        return self._call("GET", path, lambda data: tuple(map(LogPiece.from_json, data["logs"])))

    def follow_logs(self, name: str, *, target: str | None = None, pause_s: float = 0.5) -> Iterator[LogPiece]:
        """Yield what the ETL's workers printed and go on printing, until nobody asks any more."""
        offsets: dict[str, int] = {}
        while True:
            pieces = [self.etl_logs(name, target=each, offset=offset) for each, offset in offsets.items()]
            for piece in itertools.chain.from_iterable(pieces or [self.etl_logs(name, target=target)]):
                offsets[piece.target] = piece.offset
                if piece.text:
                    yield piece
            time.sleep(pause_s)

    def etl_errors(self, name: str, *, limit: int | None = None) -> tuple[EtlError, ...]:
        """The objects that an ETL failed on of late, the newest first."""
        path = f"/etls/{_segment(name)}/errors" + _query({"limit": limit})
        return self._call("GET", path, lambda data: tuple(map(EtlError.from_json, data["errors"])))

    def etl_metrics(self, name: str) -> JsonObject:
        """An ETL's numbers: objects, bytes, errors, times, what its workers use."""
        return self._call("GET", f"/etls/{_segment(name)}/metrics", _as_is)

    def etl_health(self, name: str) -> JsonObject:
        """Whether an ETL is well, and if not, why."""
        return self._call("GET", f"/etls/{_segment(name)}/health", _as_is)

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

    def _start(self, name: str, verb: str, *, wait: bool) -> Etl:
        path = f"/etls/{_segment(name)}/{verb}" + _query({"wait": str(wait).lower()})
        return self._call("POST", path, Etl.from_json, patient=wait)

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


def _as_is(data: JsonObject) -> JsonObject:
    if not isinstance(data, dict):
        raise TypeError("not an object")
    return data


def _query(parameters: Mapping[str, object]) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return "?" + urlencode(given, quote_via=quote) if given else ""


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
