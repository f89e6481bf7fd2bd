"""Which addresses an ETL of runtime `url` may be at: what the configuration allows, and a metadata service never.

A name is looked up once, every address it has is checked, and only those checked are connected to: no later answer of
a name server, and no redirect, leads anywhere else.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from transom.target.errors import EtlArgsInvalid

Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
ANY = "*"
PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.253"),
            *("fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::253", "fd20:ce::254"),
            *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
        ),
    )
)
_METADATA_NAMES = frozenset(
    ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
)


class AddressRefusedError(Exception):
    """An address that no ETL may be at; the message says what would have to be allowed."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where a `url` ETL is: `path` is put before the object's, without a slash at its end."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One thing that is allowed: a name, a network or `*`; `port` 0 is every port."""

    text: str
    name: str
    network: Network | None
    port: int

    def fits(self, host: str, ip: Ip, port: int) -> bool:
        if self.port not in (0, port):
            return False
        if self.network is not None:
            return ip in self.network
        return _is_public(ip) and self.name in (ANY, host)


@dataclass(frozen=True, slots=True)
class UrlRules:
    """What `[etl] url_allow` says. A name, or `*`, allows public addresses; any other must be allowed as an address."""

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def parse(cls, allowed: Iterable[str]) -> UrlRules:
        """Read names, addresses and networks, each with `:PORT` or without. Raises ValueError."""
        return cls(tuple(_entry(text.strip()) for text in allowed))

    def check(self, url: str, resolve: Resolve | None = None) -> None:
        """Raises EtlArgsInvalid unless an ETL may be at `url`, as its name is looked up now."""
        service = parse_url(url)
        try:
            self.addresses(service, resolve)
        except AddressRefusedError as error:
            raise EtlArgsInvalid(f"url '{url}': {error}") from error
        except OSError as error:
            raise EtlArgsInvalid(f"url '{url}': the name can't be looked up: {error.strerror or error}") from error

    def addresses(self, service: Service, resolve: Resolve | None = None) -> list[str]:
        """The addresses to connect to, all checked. Raises AddressRefusedError, OSError."""
        if service.host in _METADATA_NAMES:
            raise AddressRefusedError(f"{service.host} is a metadata service: no ETL may be there")
        found = list(dict.fromkeys((resolve or look_up)(service.host, service.port)))
        for address in found:
            self._check(service, _unwrapped(ipaddress.ip_address(address.partition("%")[0])))
        return found

    def _check(self, service: Service, ip: Ip) -> None:
        if ip in _METADATA:
            raise AddressRefusedError(f"{ip} is a metadata service: no ETL may be there")
        if any(entry.fits(service.host, ip, service.port) for entry in self.entries):
            return
        what, allow = (service.host, service.host) if _is_public(ip) else (f"{ip}, which is not public,", str(ip))
        raise AddressRefusedError(f"{what} is not allowed: an administrator can add '{allow}' to [etl] url_allow")


def parse_url(url: str) -> Service:
    """Take a service's URL apart. Raises EtlArgsInvalid."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EtlArgsInvalid(f"url '{url}': {error}") from error
    problem = _problem(parts)
    if problem:
        raise EtlArgsInvalid(f"url '{url}': {problem}")
    host = (parts.hostname or "").rstrip(".")
    return Service(parts.scheme == "https", host, port or PORTS[parts.scheme], parts.path.rstrip("/"))


def look_up(host: str, port: int) -> list[str]:
    """Every address of a name. Blocking; raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _problem(parts: SplitResult) -> str:
    if parts.scheme not in PORTS:
        return "a service's URL begins with http:// or https://"
    if not parts.hostname or not parts.hostname.rstrip("."):
        return "it names no host"
    if parts.username is not None or parts.password is not None:
        return "a user and a password have no place in it: the service is to verify Transom-Signature"
    if parts.query or parts.fragment:
        return "it ends with the path: what follows '?' and '#' is not the ETL's to choose"
    return ""


def _entry(text: str) -> _Entry:
    host, port = _host_and_port(text)
    network = _network(host)
    if not host or (network is None and not all(char.isalnum() or char in "-._*" for char in host)):
        raise ValueError(f"{text!r} is no host, address or network, with or without a port")
    if "*" in host and host != ANY:
        raise ValueError(f"{text!r}: only '*' as a whole stands for every public host")
    return _Entry(text, "" if network else host.lower().rstrip("."), network, port)


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        return text, 0
    if not port:
        return host, 0
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"{text!r}: {port!r} is no port")
    return host, int(port)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text:
            raise
        return None


def _is_public(ip: Ip) -> bool:
    return ip.is_global and not ip.is_multicast


def _unwrapped(ip: Ip) -> Ip:
    """The IPv4 address that an IPv6 one carries, where it leads there."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
