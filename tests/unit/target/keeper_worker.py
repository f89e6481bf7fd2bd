"""A worker of a few lines for the keeper's tests: `python keeper_worker.py`, or with words to say and die, or hang."""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"Running")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/die"):
            os.write(1, b"it was the poison\n")
            os._exit(3)
        if self.path.endswith("/slow"):
            time.sleep(5)
        self._answer(data.upper())

    def address_string(self) -> str:
        return "target"

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.write(1, sys.argv[2].encode() + b"\n")
        time.sleep(60)
    if len(sys.argv) > 1:
        sys.exit(sys.argv[1])
    ThreadingUnixStreamServer(os.environ["TRANSOM_SOCKET"], Handler).serve_forever()
