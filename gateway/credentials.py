"""The access keys: from the environment, the config file, or made once and kept in the data folder."""

from __future__ import annotations

import json
import os
import secrets
import string
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transom.gateway.config import Config, ConfigError
from transom.gateway.context import ANONYMOUS, Principal

_FILE = "credentials.json"
_FIRST_OWNER = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """One access key. The secret stays out of `repr`."""

    access: str
    secret: str = field(repr=False)
    owner: str
    admin: bool


class Credentials:
    """Looks access keys up. The first key is an admin's and owns what has no other owner."""

    def __init__(self, keys: list[Key]) -> None:
        self.first = keys[0]
        self._keys: Mapping[str, Key] = {key.access: key for key in keys}
        self._principals = {key.access: Principal(key.access, key.owner, key.admin) for key in keys}

    def exposed(self) -> list[dict[str, Any]]:
        """Every key with its secret, for a process of our own."""
        return [asdict(key) for key in self._keys.values()]

    def secret_of(self, access: str) -> str | None:
        """The secret of an access key, None for an unknown one."""
        key = self._keys.get(access)
        return key.secret if key else None

    def principal(self, access: str) -> Principal:
        """Who an authenticated access key stands for; anonymous for none."""
        return self._principals[access] if access else ANONYMOUS


def load_credentials(config: Config, folder: Path, environ: Mapping[str, str]) -> tuple[Credentials, bool]:
    """Find the keys; tell whether they were generated just now. Raises ConfigError."""
    keys = [Key(k.access, k.secret.get_secret_value(), k.owner, k.admin) for k in config.key]
    access, secret = environ.get("TRANSOM_ACCESS_KEY", ""), environ.get("TRANSOM_SECRET_KEY", "")
    if bool(access) != bool(secret):
        raise ConfigError("TRANSOM_ACCESS_KEY and TRANSOM_SECRET_KEY go together: one of them is not set")
    if access:
        if any(key.access == access for key in keys):
            raise ConfigError(f"access key {access!r} is in the environment and in the config file: remove one")
        keys.insert(0, Key(access, secret, _FIRST_OWNER, admin=True))
    made = False
    if not keys:
        stored, made = _stored(folder / _FILE)
        keys = [stored]
    keys[0] = Key(keys[0].access, keys[0].secret, keys[0].owner, admin=True)
    return Credentials(keys), made


def _stored(path: Path) -> tuple[Key, bool]:
    if path.exists():
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
        try:
            known = json.loads(path.read_text())
            return Key(known["access"], known["secret"], _FIRST_OWNER, admin=True), False
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no keys; remove it, and new ones are made") from error
    alphabet = string.ascii_uppercase + string.digits
    key = Key(
        "TRANSOM" + "".join(secrets.choice(alphabet) for _ in range(13)),
        secrets.token_urlsafe(30),
        _FIRST_OWNER,
        admin=True,
    )
    # whole or not at all: NamedTemporaryFile makes it with mode 0600
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        json.dump({"access": key.access, "secret": key.secret}, file)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return key, True
