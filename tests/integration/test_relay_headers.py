"""What of a client's request a target ever sees: shown by a target of the test's own in the cluster map."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests

from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Wire
from transom.cluster.map import ClusterMap, MapFile, Target

Seen = list[dict[str, str]]


@contextmanager
def recording_target() -> Iterator[tuple[int, Seen]]:
    """A listener that writes down the headers it gets, and answers like a target."""
    seen: Seen = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.send_header("Set-Cookie", "from=target")
            self.end_headers()
            self.wfile.write(b"fake")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


def test_no_credential_reaches_a_target(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--targets", "1")
    wire = Wire(server)
    wire.put("/leaks")
    wire.put("/leaks/key", b"body")
    with recording_target() as (port, seen):
        MapFile(server.folder / "cluster.json").save(ClusterMap(99, (Target("mine", "127.0.0.1", port),)))
        given = {"cookie": "a=b", "proxy-authorization": "Basic eDp5", "x-secret": "s"}
        relayed = wire.get("/leaks/key?etl=md5", {**given, "range": "bytes=0-9", "if-match": '"e"'})
        assert relayed.body == b"fake"
        assert seen[0].keys() - {"path", "host", "accept", "accept-encoding", "user-agent"} == {
            "range",
            "if-match",
        }
        url = server.endpoint + "/leaks/key?etl=md5"
        signature = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{ACCESS}:{SECRET}"]
        unsigned = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        curl = ["curl", "-sL", *signature, *unsigned, url]
        assert subprocess.run(curl, check=True, capture_output=True).stdout == b"fake"
        presigned = server.endpoint + wire.presigned("GET", "/leaks/key?etl=md5")
        assert requests.get(presigned, timeout=10).content == b"fake"
        assert len(seen) == 3
        for request in seen:
            assert "authorization" not in request
            assert "cookie" not in request
            assert SECRET not in str(request)
            assert "x-amz-signature" not in request["path"].lower()
