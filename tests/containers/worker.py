"""A small HTTP worker for the inside of a container: answers with what it was sent, or with what it fetched itself.

`worker.py SOCKET` listens on a unix socket, `worker.py HOST:PORT` on TCP. Needs the standard library only.
"""

from __future__ import annotations

import os
import socketserver
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(b"Running")
        else:
            with urllib.request.urlopen(os.environ["AIS_TARGET_URL"] + self.path, timeout=10) as pulled:
                self.answer(pulled.read())

    def do_PUT(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "somebody"  # a unix socket's client has no address


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


def main() -> None:
    where = sys.argv[1]
    if where.startswith("/"):
        server: socketserver.BaseServer = UnixServer(where, Handler)
        Path(where).chmod(0o666)
    else:
        host, _, port = where.rpartition(":")
        server = TcpServer((host, int(port)), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
