"""What every sandbox may see of the system it runs on: programs, libraries, certificates, this Python."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

USER = 65534  # "nobody": the user and group that programs run as
# Where programs and libraries are; symbolic links into /usr on most systems.
FOLDERS = tuple(Path("/") / name for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"))
DEVICES = tuple(Path("/dev") / name for name in ("null", "zero", "full", "random", "urandom"))

_ETC = (
    *("ld.so.cache", "alternatives", "localtime", "mime.types", "fonts", "ImageMagick-6", "ImageMagick-7"),
    *("os-release", "debian_version"),
)
_ETC_NETWORK = (
    *("resolv.conf", "hosts", "host.conf", "gai.conf", "services", "protocols"),
    *("ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ca-certificates", "crypto-policies"),
    *("pki/tls/certs", "pki/tls/cert.pem", "pki/ca-trust/extracted"),
)

PASSWD = f"nobody:x:{USER}:{USER}:nobody:/tmp:/bin/sh\n"
GROUP = f"nogroup:x:{USER}:\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


@lru_cache(maxsize=2)
def files(*, network: bool) -> tuple[Path, ...]:
    """Files and folders of the system's configuration that exist here."""
    names = _ETC + _ETC_NETWORK if network else _ETC
    return tuple(path for name in names if (path := Path("/etc") / name).exists())


@lru_cache(maxsize=1)
def python() -> tuple[Path, ...]:
    """The folders of the Python that runs this, as far as they are not the system's own."""
    prefixes = {Path(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    prefixes |= {prefix.resolve() for prefix in prefixes}
    return tuple(sorted(path for path in prefixes if not path.is_relative_to("/usr") and path != Path("/")))
