"""`python -m transom.worker FILE.py`: serves an author's class or function, over HTTP or on standard input."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from transom.worker.loading import LoadError, load
from transom.worker.serving import serve, serve_io
from transom.worker.standard_io import taken_streams


def main() -> None:
    """Load the file and serve it until told to end."""
    parser = argparse.ArgumentParser(
        prog="python -m transom.worker", description="Serve a transformer as an ETL worker."
    )
    parser.add_argument("file", type=Path, metavar="FILE.py", help="the file with the class or function to serve")
    parser.add_argument("--class", dest="name", default="", help="which class or function, where there are several")
    parser.add_argument("--io", action="store_true", help="take objects in frames on standard input, not over HTTP")
    options = parser.parse_args()
    streams = taken_streams() if options.io else None
    try:
        written = load(options.file, options.name)
        if streams is not None:
            serve_io(written, streams=streams)
        else:
            serve(written)
    except LoadError as error:
        sys.exit(f"transom.worker: {error}")


if __name__ == "__main__":
    main()
