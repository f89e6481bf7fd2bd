"""What a worker is told by its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen and what to allow; `from_env` says which variable sets what.

    `direct_root` is the folder below which a request may name a file to read, empty for none; `port` None for none.
    """

    etl: str = ""
    socket: str = ""
    host: str = "127.0.0.1"
    port: int | None = None
    target_url: str = ""
    concurrency: int = 8
    direct_root: str = ""
    max_output: int = 0
    require_signature: bool = False
    secret: bytes = field(default=b"", repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read TRANSOM_ETL, _SOCKET, _HOST, _PORT, _CONCURRENCY, _DIRECT_FILE with _DIRECT_ROOT, _MAX_OUTPUT, _SECRET,
        _REQUIRE_SIGNATURE, and AIS_TARGET_URL; raises ValueError, naming the variable.

        Where there is a socket, the port is listened on only if whoever comes there has to show a signature. The socket
        asks for none: its folder lets in the target only.
        """
        socket = env.get("TRANSOM_SOCKET", "")
        signed = env.get("TRANSOM_REQUIRE_SIGNATURE") == "1"
        secret = env.get("TRANSOM_SECRET", "").encode()
        if signed and not secret:
            raise ValueError("TRANSOM_REQUIRE_SIGNATURE=1 needs TRANSOM_SECRET")
        port = _number(env, "TRANSOM_PORT", None if socket else DEFAULT_PORT)
        direct = env.get("TRANSOM_DIRECT_FILE") == "1"
        if direct and not env.get("TRANSOM_DIRECT_ROOT"):
            raise ValueError("TRANSOM_DIRECT_FILE=1 needs TRANSOM_DIRECT_ROOT")
        return cls(
            etl=env.get("TRANSOM_ETL", ""),
            socket=socket,
            host=env.get("TRANSOM_HOST", "127.0.0.1"),
            port=port if signed or not socket else None,
            target_url=env.get("AIS_TARGET_URL", ""),
            concurrency=_number(env, "TRANSOM_CONCURRENCY", 8, least=1) or 1,
            direct_root=os.path.realpath(env["TRANSOM_DIRECT_ROOT"]) if direct else "",
            max_output=_number(env, "TRANSOM_MAX_OUTPUT", 0) or 0,
            require_signature=signed,
            secret=secret,
        )


def _number(env: Mapping[str, str], name: str, default: int | None, least: int = 0) -> int | None:
    text = env.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ValueError(f"{name} is a whole number of at least {least}, not {text!r}")
    return int(text)
