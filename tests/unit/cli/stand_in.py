"""A real HTTP server on an ephemeral port with the management REST and GetObject, as the client sees them.

It keeps ETLs and views in dicts and checks SigV4 by its own few lines, from the AWS description of the scheme.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

import yaml

ACCESS_KEY, SECRET_KEY = "AKIATEST", "secret/with+signs"
API = "/-/api/v1"
PLUGINS = {
    "plugins": [
        {
            "name": "image",
            "version": "2",
            "distribution": "transom",
            "deterministic": True,
            "releases_gil": True,
            "extension": None,
            "args_schema": {
                "properties": {
                    "width": {
                        "anyOf": [{"type": "integer"}, {"type": "null"}],
                        "default": 224,
                        "description": "Pixels.",
                    },
                    "format": {"enum": ["webp", "png"]},
                },
                "required": ["format"],
            },
            "doc": "Resize [bold] images.\n\nMore of it.",
            "a field of a newer server": 1,
        },
        {"name": "md5", "args_schema": {}, "doc": ""},
    ],
    "missing": {"speech": "no module named whisper"},
}


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.etls: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {"/photos/dir/cat one.txt": b"meow\n" * 1000}
        self.queries: list[dict[str, str]] = []  # of object requests
        self.posted: list[tuple[dict[str, str], str, dict[str, str]]] = []  # specs: the query, the text, its files
        self.failing = ""  # why ETLs of specs fail to start
        self.log = {"local": "one\ntwo\n"}  # what each target's workers printed
        self.raw_answer: bytes | None = None  # sent instead of any answer
        self.orders: list[dict[str, Any]] = []  # jobs that were asked for
        self.told: list[str] = []  # what was done to jobs: "abort 1"
        self.job: dict[str, Any] = {}  # the one job there is, as it is at first
        self.earlier_jobs: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = [{"state": "done"}]  # what changes with each look at it; the last stays
        self.job_errors: list[dict[str, Any]] = []
        self.failing_looks: list[int] = []  # statuses that the next looks at the job get

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client may leave in the middle of an answer, and the command's stderr is what is under test.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or its answers' bodies would wait for the acknowledgement of their heads

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        if self.server.raw_answer is not None:
            self.wfile.write(self.server.raw_answer)
            self.close_connection = True
            return
        try:
            if path == "/-/health":
                self._json(200, {"status": "ok"})
                return
            self._check_signature(path, query)
            if path.startswith(API):
                parts = path.removeprefix(API).strip("/").split("/")
                self._json(*self._rest(parts, dict(parse_qsl(query, strict_parsing=bool(query)))))
            else:
                self._object(unquote(path), dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))))
        except Refusal as refusal:
            if path.startswith(API) and refusal.status != 403:
                self._json(refusal.status, {"code": refusal.code, "message": refusal.message, "request_id": "R1"})
            else:
                text = f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
                self._send(refusal.status, text.encode(), "application/xml")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _json(self, status: int, value: object) -> None:
        self._send(status, b"" if status == 204 else json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _object(self, path: str, query: dict[str, str]) -> None:
        self.server.queries.append(query)
        if path not in self.server.objects:
            raise Refusal(404, "NoSuchKey", "The specified key does not exist.")
        body = self.server.objects[path]
        for stage in filter(None, query.get("etl", "").split(">>")):
            if stage == "upper":
                body = body.upper()
            elif stage == "args":
                body = query.get("etl_args", "none").encode()
            else:
                raise Refusal(400, "InvalidArgument", f"no ETL named {stage!r}")
        self._send(200, body, "text/plain" if path.endswith(".txt") else "application/octet-stream")

    def _rest(self, parts: list[str], query: dict[str, str]) -> tuple[int, object]:
        kind, names = parts[0], [unquote(part) for part in parts[1:]]
        if kind == "jobs":
            return self._job(names, query)
        if kind == "plugins":
            return 200, PLUGINS
        if kind == "openapi.json":
            return 200, {"openapi": "3.1.0"}
        records = {"etls": self.server.etls, "views": self.server.views}[kind]
        if not names:
            return self._init(query) if self.command == "POST" else (200, {kind: list(records.values())})
        return self._record(kind, records, names, query)

    def _record(
        self, kind: str, records: dict[str, dict[str, Any]], names: list[str], query: dict[str, str]
    ) -> tuple[int, object]:
        name = names[0]
        if self.command == "PUT":
            return self._put(kind, records, name)
        if name not in records:
            raise Refusal(404, "Missing", f"nothing named {name!r}")
        if self.command == "DELETE":
            del records[name]
            return 204, None
        if self.command == "POST":
            records[name]["state"] = {"start": "running", "stop": "stopped", "restart": "running"}[names[1]]
        elif names[1:]:
            return 200, self._monitored(names[1], query)
        return 200, records[name]

    def _jobs(self, query: dict[str, str]) -> dict[str, object]:
        """A page of the one job there is, and of those before it."""
        jobs = [*([self.server.job] if self.server.job else []), *self.server.earlier_jobs]
        before = int(query.get("before", len(jobs) + 1))
        limit = int(query["limit"])
        left = jobs[len(jobs) + 1 - before :]
        following = before - limit if len(left) > limit else None
        return {"jobs": left[:limit], "next": following}

    def _job(self, names: list[str], query: dict[str, str]) -> tuple[int, object]:
        server = self.server
        if self.command == "POST" and not names:
            order = json.loads(self.body)
            if "nope" in order.get("etl", ""):
                raise Refusal(400, "InvalidArgument", "no ETL named 'nope'")
            server.orders.append(order)
            server.job = {"id": "1", "state": "queued", "order": order, "created_s": 1.0, "started_s": 1.0}
            return 202, server.job
        if not names:
            return 200, self._jobs(query)
        if names[0] != server.job.get("id"):
            raise Refusal(404, "NotFound", f"there is no job {names[0]!r}")
        if names[1:] == ["errors"]:
            after, limit = int(query["after"]), int(query["limit"])
            page = server.job_errors[after : after + limit]
            return 200, {"errors": page, "next": after + limit if len(page) == limit else None}
        if self.command != "GET":
            server.told.append(" ".join([*names[1:], self.command, names[0]]))
            return (204, None) if self.command == "DELETE" else (202, server.job)
        if server.failing_looks:
            raise Refusal(server.failing_looks.pop(0), "ServiceUnavailable", "away")
        server.job |= server.states[0]
        if len(server.states) > 1:
            server.states.pop(0)
            time.sleep(int(query.get("wait_ms", 0)) / 1000)  # the next state comes no sooner
        return 200, server.job

    def _init(self, query: dict[str, str]) -> tuple[int, object]:
        text, files = self.body.decode(), {}
        if text.startswith('{"spec"'):
            text, files = json.loads(text)["spec"], json.loads(text)["files"]
        self.server.posted.append((query, text, files))
        made = []
        for spec in yaml.safe_load_all(text):
            if self.server.failing:
                raise Refusal(422, "EtlStartFailed", f"ETL '{spec['name']}' failed to start: {self.server.failing}")
            worker = {"target": "local", "revision": 1, "state": "running", "pid": 77, "message": "", "restarts": 0}
            kind = next(key for key in ("code", "image", "command", "url", "plugin") if key in spec["runtime"])
            record = {"name": query.get("name", spec["name"]), "plugin": "", "runtime": kind, "spec": spec}
            waits = query.get("wait") == "true"
            if kind == "url":
                record["service"] = {"secret": "s3cret", "target_url": "http://here/v1"}
            record |= {"state": "running" if waits else "initializing", "workers": [worker] if waits else []}
            made.append(self.server.etls.setdefault(record["name"], {**record, "kind": "explicit", "revision": 1}))
        return 201, {"etls": made}

    def _monitored(self, what: str, query: dict[str, str]) -> object:
        if what == "logs":
            start = int(query.get("offset", 0))
            chosen = [query["target"]] if "target" in query else sorted(self.server.log)
            logs = [(target, self.server.log[target]) for target in chosen]
            return {"logs": [{"target": name, "offset": len(text), "text": text[start:]} for name, text in logs]}
        if what == "errors":
            one = {"time": 1.5, "bucket": "b", "key": "k", "code": "EtlFailed", "message": "no\nway", "stage": "thumb"}
            return {"errors": [one] * min(2, int(query.get("limit", 100)))}
        return {"metrics": {"objects": 3, "workers": []}, "health": {"health": "degraded", "message": "a: failed"}}[
            what
        ]

    def _put(self, kind: str, records: dict[str, dict[str, Any]], name: str) -> tuple[int, object]:
        body = json.loads(self.body)
        if kind == "etls" and body["plugin"] not in ("image", "md5"):
            raise Refusal(400, "InvalidArgument", f"no transformer named {body['plugin']!r}")
        new = name not in records
        own = {"state": "running", "kind": "explicit", "revision": 1} if kind == "etls" else {}
        records[name] = {"name": name, **body, **own, "owner": "root"}
        return (201 if new else 200), records[name]

    def _check_signature(self, path: str, query: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 "):
            raise Refusal(403, "AccessDenied", "unsigned")
        fields = dict(item.strip().split("=", 1) for item in headers["authorization"][17:].split(","))
        access_key, *scope = fields["Credential"].split("/")
        signed = fields["SignedHeaders"].split(";")
        payload_hash = headers["x-amz-content-sha256"]
        if hashlib.sha256(self.body).hexdigest() != payload_hash:
            raise Refusal(403, "XAmzContentSHA256Mismatch", "the body is not what was signed")
        lines = [
            self.command,
            path,
            "&".join(sorted(part if "=" in part else part + "=" for part in query.split("&") if part)),
        ]
        lines += [f"{name}:{' '.join(headers[name].split())}" for name in signed]
        lines += ["", fields["SignedHeaders"], payload_hash]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        to_sign = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], "/".join(scope), digest])
        key = b"AWS4" + SECRET_KEY.encode()
        for part in scope:
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        expected = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        if access_key != ACCESS_KEY or scope[2:] != ["s3", "aws4_request"] or expected != fields["Signature"]:
            raise Refusal(403, "SignatureDoesNotMatch", "The signature does not match.")
