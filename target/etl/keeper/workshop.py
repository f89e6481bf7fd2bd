"""What every worker of one target is kept with. It keeps none itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transom.target.etl.keeper.desk import PullDesk
from transom.target.etl.keeper.places import Places
from transom.target.etl.limits import Limits
from transom.target.etl.locks import ByteHolds
from transom.target.etl.runtimes.base import Launcher


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every worker of a target is kept with.

    `enters` tells whether this process may enter network namespaces of others; `secret_of` gives the secret of an
    ETL's signed URLs, `pull_secret_of` that of a service elsewhere that fetches objects.
    """

    places: Places
    limits: Limits
    launchers: Mapping[str, Launcher]
    uses: ByteHolds
    desk: PullDesk
    sockets: Path
    enters: bool
    secret_of: Callable[[str], str]
    pull_secret_of: Callable[[str], str]
