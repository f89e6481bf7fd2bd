"""Runs a worker as a process: over HTTP until it is told to end, or over standard input until that ends."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Any

from transom.worker.awaiting import release
from transom.worker.ending import Ending
from transom.worker.listening import Reception, listeners, place
from transom.worker.service import Service
from transom.worker.settings import Settings
from transom.worker.shapes import Transform
from transom.worker.standard_io import taken_streams, talk

_GRACE_S = 10.0
_log = logging.getLogger("transom.worker")


def serve(written: Any, settings: Settings | None = None) -> None:
    """Serve a class, an object or a function over HTTP until SIGTERM or SIGINT. Call it from the main thread.

    `settings` are the environment's if not given. Raises ValueError and TypeError for what can't be served, OSError
    where it can't listen, and what the author's start() raises.
    """
    settings = settings or Settings.from_env()
    _log_to_stderr()
    service = Service.of(Transform(written), settings)
    opened = listeners(settings)
    reception = Reception(service, opened)
    ending = Ending()
    reception.start()
    for listener in opened:
        _log.info("listening on %s", place(listener))
    try:
        service.transform.start()
        service.ready = True
        _log.info("running")
        ending.wait()
    finally:
        if not reception.stop(_GRACE_S):
            _log.warning("objects were still under way after %g s", _GRACE_S)
        if settings.socket:
            Path(settings.socket).unlink(missing_ok=True)
        service.puller.close()
        if service.ready:
            service.transform.close()


def serve_io(written: Any, settings: Settings | None = None, *, streams: tuple[int, int] | None = None) -> None:
    """Take objects in frames on standard input, and answer on standard output, until the input ends.

    What is printed from now on goes to standard error. `streams` are those of `taken_streams`, where it was called
    before.
    """
    streams = streams or taken_streams()
    _log_to_stderr()
    transform = Transform(written)
    transform.start()
    try:
        talk(streams, transform, settings or Settings.from_env())
    finally:
        release()
        transform.close()


def _log_to_stderr() -> None:
    """Set up what the author's code logs and prints: a line is in the log once it is written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
