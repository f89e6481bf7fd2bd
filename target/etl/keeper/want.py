"""Whether a keeper is needed at all, and what one that is gone leaves said: for whoever starts keepers."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from transom.cluster.records import Snapshot
from transom.target.etl.keeper.places import Places
from transom.target.etl.runtimes.services import fetches


def wants_keeper(snapshot: Snapshot) -> bool:
    """Whether any ETL has a worker to be kept, or a service elsewhere that fetches objects from here."""
    return any(
        record.wants_worker or (fetches(record) and record.state == "running")
        for record in chain(snapshot.etls.values(), snapshot.pending.values())
    )


def has_remains(places: Places) -> bool:
    """Whether a keeper ended without saying so: workers of its may be left."""
    return sockets_note(places).exists()


def sockets_note(places: Places) -> Path:
    """The file that names a keeper's folder of sockets, as long as it lives."""
    return places.status / "sockets"


def forget_statuses(places: Places) -> None:
    """Unsay what a keeper that is gone said of its workers: runs wait for the next one, then."""
    for left in places.status.glob("*.json"):
        left.unlink(missing_ok=True)
