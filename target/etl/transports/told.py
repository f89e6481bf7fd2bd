"""What a worker is told of an object beside its bytes, in the headers of a request for it."""

from __future__ import annotations

import re
from urllib.parse import quote

from transom.target.etl.transports.base import Call
from transom.target.etl.watch import Watch

METADATA = "Transom-Meta-"
MAX_FIELDS = 64  # Python's own server, which AIStore's threaded worker is, takes up to 100 headers
MAX_METADATA = 8 * 1024  # S3 allows 2 KiB, of which percent-encoding makes three times as much
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def left_ms(watch: Watch) -> int:
    """The milliseconds left for an object."""
    return max(0, int(watch.left_s() * 1000))


def lines(call: Call, watch: Watch) -> list[str]:
    """The lines of a request's head that tell of the object."""
    found = _metadata(call) if call.metadata else []
    found.append(f"Transom-Deadline-Ms: {left_ms(watch)}")
    if call.size is not None:
        found.append(f"Transom-Object-Size: {call.size}")
    return found


def _metadata(call: Call) -> list[str]:
    """The object's own metadata; none of it where there is more than any server must take."""
    named = {name: value for name, value in call.metadata.items() if _TOKEN.fullmatch(name)}
    told = [f"{METADATA}{name}: {quote(value, errors='replace')}" for name, value in named.items()]
    return told if len(told) <= MAX_FIELDS and sum(map(len, told)) <= MAX_METADATA else []
