"""A registry of one small image, `small:1`, and one that never comes, `slow:1`: enough for engines to pull from."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_HELD_S = 30.0


class Registry(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.closing = threading.Event()
        tar, packed = _layer()
        rootfs = {"type": "layers", "diff_ids": [_digest(tar)]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(config), "digest": _digest(config)},
            "layers": [{"mediaType": _LAYER, "size": len(packed), "digest": _digest(packed)}],
        }
        self.manifest = json.dumps(manifest).encode()
        self.blobs = {_digest(config): config, _digest(packed): packed}

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving() -> Iterator[Registry]:
    with Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever, args=(0.05,))
        thread.start()
        yield registry
        registry.shutdown()
        thread.join()


def _layer() -> tuple[bytes, bytes]:
    """A layer of one file, and the same compressed, as every registry has it."""
    packed, plain = io.BytesIO(), io.BytesIO()
    for file, mode in ((packed, "w:gz"), (plain, "w")):
        with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo("hello")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"hello"))
    return plain.getvalue(), packed.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, _, *rest = self.path.split("/")
        if rest == [""]:
            self._answer(200, b"{}", "application/json")
        elif rest[1:] == ["manifests", "1"] or rest[1:] == ["manifests", _digest(self.server.manifest)]:
            if rest[0] == "slow":
                self.server.closing.wait(_HELD_S)
            known = rest[0] in ("small", "slow")
            self._answer(200 if known else 404, self.server.manifest if known else b"{}", _MANIFEST)
        elif rest[1] == "blobs" and rest[2] in self.server.blobs:
            self._answer(200, self.server.blobs[rest[2]], "application/octet-stream")
        else:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}', "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 200:
            self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        with contextlib.suppress(OSError):  # it may have been held until nobody wants it any more
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
