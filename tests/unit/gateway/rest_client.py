"""The management REST's app, and what calls it as a server would, with signed requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Signing
from starlette.types import ASGIApp, Message

from transom.cluster.catalog import Catalog
from transom.gateway.admin.api import build_admin
from transom.gateway.admin.context import Admin
from transom.gateway.admin.monitor import Monitor
from transom.gateway.app import Authenticator
from transom.gateway.credentials import Credentials, Key
from transom.plugins.manager import load
from transom.target.etl.error_log import ErrorLog
from transom.target.etl.registry import Registry
from transom.target.etl.runtimes.url_rules import UrlRules
from transom.target.jobs.catalog import JobCatalog
from transom.target.store.base import Store

ENDPOINT = "http://localhost:9000"
ADMIN = Key("ADMINKEY", "admin-secret", "admin", admin=True)
OTHER = Key("OTHERKEY", "other-secret", "other", admin=True)
USER = Key("USERKEY", "user-secret", "user", admin=False)


@dataclass
class Rest:
    """Calls the app as a server would, signed by `key` if there is one."""

    app: ASGIApp
    key: Key | None = ADMIN

    async def __call__(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, pieces: int = 1
    ) -> tuple[int, dict[str, str], Any]:
        sent = {"Host": "localhost:9000", **(headers or {})}
        if body:
            sent["Content-Length"] = str(len(body))
        if self.key is not None:
            request = AWSRequest(method, ENDPOINT + path, headers=sent, data=body)
            S3SigV4Auth(Signing(self.key.access, self.key.secret), "s3", "us-east-1").add_auth(request)
            sent = dict(request.headers.items())
        step = max(1, -(-len(body) // pieces))
        waiting = [body[start : start + step] for start in range(0, len(body), step)] or [b""]
        answered: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Message) -> None:
            answered.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path.partition("?")[0],
            "raw_path": path.partition("?")[0].encode(),
            "query_string": path.partition("?")[2].encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "scheme": "http",
            "http_version": "1.1",
        }
        await self.app(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in answered[0]["headers"]}
        data = b"".join(message["body"] for message in answered[1:])
        return answered[0]["status"], told, json.loads(data) if data else None

    def as_(self, key: Key | None) -> Rest:
        return Rest(self.app, key)


def app_of(
    catalog: Catalog, store: Store, folder: Path, jobs: JobCatalog, targets: tuple[str, ...] = ("local",)
) -> ASGIApp:
    """The management REST over these parts, for ADMIN, OTHER and USER."""
    admin = Admin(
        registry=Registry(load(entry_points=False), catalog),
        catalog=catalog,
        store=store,
        authenticator=Authenticator(Credentials([ADMIN, OTHER, USER]), ()),
        folder=folder,
        targets=lambda: targets,
        monitor=Monitor(folder, 4, ErrorLog(folder / "errors.sqlite")),
        jobs=jobs,
        url_rules=UrlRules.parse(["127.0.0.1"]),
    )
    return build_admin(admin)
