"""The SDK an ETL worker is written with: write a class or a function, and `serve` it.

It needs nothing but Python's own library and this folder, wherever that is copied to.
"""

from transom.worker.contract import Context, Reject, Skip, Worker
from transom.worker.serving import serve, serve_io

__all__ = ["Context", "Reject", "Skip", "Worker", "serve", "serve_io"]
