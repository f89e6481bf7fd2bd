"""The admin client: ETLs, views, plugins and jobs over the management REST.

It doesn't read or write objects; any S3 client does.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from transom.client.jobs import JobCalls
from transom.client.records import Etl, EtlError, JsonObject, LogPiece, Plugins, View
from transom.client.rest import API, UNREACHABLE, AdminError, as_is, query, segment

__all__ = ["API", "UNREACHABLE", "AdminClient", "AdminError"]


class AdminClient(JobCalls):
    """One server's management REST. Every method raises AdminError. Use as a context manager, or `close` it."""

    def health(self) -> JsonObject:
        """What `/-/health` says; an error unless the server is well."""
        return self._parse(self._send("GET", "/-/health", signed=False), as_is)

    def openapi(self) -> JsonObject:
        """The description of the REST itself."""
        return self._call("GET", "/openapi.json", as_is)

    def plugins(self) -> Plugins:
        """The transformers of all installed plugins."""
        return self._call("GET", "/plugins", Plugins.from_json)

    def etls(self) -> tuple[Etl, ...]:
        """All ETLs, those that plugins bring included."""
        return self._call("GET", "/etls", lambda data: tuple(map(Etl.from_json, data["etls"])))

    def etl(self, name: str) -> Etl:
        """One ETL."""
        return self._call("GET", f"/etls/{segment(name)}", Etl.from_json)

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
        return self._call("PUT", f"/etls/{segment(name)}", Etl.from_json, body)

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
        asked = {
            "name": name,
            "communication": communication,
            "init_timeout": init_timeout,
            "obj_timeout": obj_timeout,
            "wait": str(wait).lower(),
        }
        body = {"spec": text, "files": dict(files)} if files else text
        path = "/etls" + query(asked)
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
        return self._call("POST", f"/etls/{segment(name)}/stop", Etl.from_json)

    def remove_etl(self, name: str) -> None:
        """Forget an ETL made by init."""
        self._call("DELETE", f"/etls/{segment(name)}", as_is)

    def etl_logs(self, name: str, *, target: str | None = None, offset: int | None = None) -> tuple[LogPiece, ...]:
        """The end of what the ETL's workers printed, a piece a target; or what follows `offset` on one target."""
        path = f"/etls/{segment(name)}/logs" + query({"target": target, "offset": offset})
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
        path = f"/etls/{segment(name)}/errors" + query({"limit": limit})
        return self._call("GET", path, lambda data: tuple(map(EtlError.from_json, data["errors"])))

    def etl_metrics(self, name: str) -> JsonObject:
        """An ETL's numbers: objects, bytes, errors, times, what its workers use."""
        return self._call("GET", f"/etls/{segment(name)}/metrics", as_is)

    def etl_health(self, name: str) -> JsonObject:
        """Whether an ETL is well, and if not, why."""
        return self._call("GET", f"/etls/{segment(name)}/health", as_is)

    def views(self) -> tuple[View, ...]:
        """All views, the implicit ones apart."""
        return self._call("GET", "/views", lambda data: tuple(map(View.from_json, data["views"])))

    def view(self, name: str) -> View:
        """One view."""
        return self._call("GET", f"/views/{segment(name)}", View.from_json)

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
        return self._call("PUT", f"/views/{segment(name)}", View.from_json, body)

    def remove_view(self, name: str) -> None:
        """Remove a view; its source bucket stays as it is."""
        self._call("DELETE", f"/views/{segment(name)}", as_is)

    def _start(self, name: str, verb: str, *, wait: bool) -> Etl:
        path = f"/etls/{segment(name)}/{verb}" + query({"wait": str(wait).lower()})
        return self._call("POST", path, Etl.from_json, patient=wait)
