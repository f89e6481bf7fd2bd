"""A worker as AIStore's users write one, on AIStore's own server classes: run with .venv-ais, not imported by tests.

Arguments: the server (fastapi, flask, http), the method (transform, transform_stream), and the port. A server like
uvicorn or gunicorn imports `app` instead; AISTORE_WORKER names server and method then.
"""

import importlib
import os
import sys
from pathlib import Path

SERVERS = {
    "fastapi": ("fastapi_server", "FastAPIServer"),
    "flask": ("flask_server", "FlaskServer"),
    "http": ("http_multi_threaded_server", "HTTPMultiThreadedServer"),
}
named = os.environ.get("AISTORE_WORKER")
server, method, port = [*named.split(), "8000"] if named else sys.argv[1:]
module, name = SERVERS[server]
Base = getattr(importlib.import_module(f"aistore.sdk.etl.webserver.{module}"), name)


def transformed(path, etl_args, pieces):
    """The path, the arguments and the object in swapped case; by `etl_args`, nothing or an error."""
    if etl_args == "empty":
        return
    if etl_args == "raise":
        raise ValueError("no good: äöü <b>")
    if etl_args != "bare":
        yield f"{path}\n{etl_args}\n".encode()
    for piece in pieces:
        yield piece.swapcase()
    if etl_args == "late":
        raise ValueError("no good in the end")


class Buffered(Base):
    def transform(self, data, path, etl_args):
        if isinstance(data, str):  # it asked for the file
            data = Path(data).read_bytes()
        return b"".join(transformed(path, etl_args, [data]))


class Streaming(Base):
    def transform_stream(self, reader, path, etl_args):
        yield from transformed(path, etl_args, iter(lambda: reader.read(65536), b""))


worker = {"transform": Buffered, "transform_stream": Streaming}[method](host="127.0.0.1", port=int(port))
app = getattr(worker, "app", None)
if __name__ == "__main__":
    worker.start()
