"""What whoever runs a service elsewhere is told of an ETL of runtime `url`: its secret, and where it fetches objects.

It calls no service.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from transom.cluster.records import EtlRecord
from transom.target.errors import EtlArgsInvalid
from transom.target.etl.keeper.places import target_path

_FETCHING = ("hpull://", "hrev://")


@dataclass(frozen=True, slots=True)
class Services:
    """`master` is the secret that those of ETLs are derived from; `pulled_at` is where services reach the pull
    listener, HOST:PORT, empty where it is for workers of this machine only.
    """

    master: bytes = field(default=b"", repr=False)
    pulled_at: str = ""

    def check(self, record: EtlRecord) -> None:
        """Raises EtlArgsInvalid for a service that is to fetch objects where there is no place for that."""
        if fetches(record) and not self.pulled_at:
            raise EtlArgsInvalid(
                f"ETL '{record.name}': a service can fetch objects ({record.spec['communication']}) only where an "
                "administrator says at which address: pull_listen under [etl] in the configuration"
            )

    def secret(self, etl: str) -> str:
        """What an ETL's service verifies `Transom-Signature` with."""
        return secret_of(self.master, etl)

    def target_url(self, record: EtlRecord) -> str:
        """`AIS_TARGET_URL` for an ETL's service; empty for one that fetches nothing."""
        if not (fetches(record) and self.pulled_at):
            return ""
        return f"http://{self.pulled_at}{target_path(record.name, pull_secret_of(self.master, record.name))}"


def fetches(record: EtlRecord) -> bool:
    """Whether an ETL is a service elsewhere that fetches the objects itself."""
    return record.runtime == "url" and record.spec.get("communication") in _FETCHING


def secret_of(master: bytes, etl: str) -> str:
    """The secret that an ETL's service verifies signatures with: the same for as long as the server's own is.

    It is derived, so that nothing has to be kept where it could be read, and another ETL's tells nothing of it.
    """
    return _derived(master, f"transom-etl-secret-1:{etl}")


def pull_secret_of(master: bytes, etl: str) -> str:
    """The secret by which an ETL's service is known when it fetches objects: it outlives keepers, as services do."""
    return _derived(master, f"transom-etl-pull-1:{etl}")


def _derived(master: bytes, purpose: str) -> str:
    return hmac.new(master, purpose.encode(), hashlib.sha256).hexdigest()
