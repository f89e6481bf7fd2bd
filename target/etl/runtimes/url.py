"""Runs stages on somebody else's service: at an address that was checked, with a signature that the service can verify.

The service is neither started nor watched.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from transom.target.errors import EtlDisconnected, EtlUnavailable
from transom.target.etl.keeper.places import pull_offset
from transom.target.etl.locks import ByteHolds
from transom.target.etl.runtimes.jobs import PULLS, Job
from transom.target.etl.runtimes.services import secret_of
from transom.target.etl.runtimes.url_rules import AddressRefusedError, Service, UrlRules, parse_url
from transom.target.etl.transports.base import Address, Transport, WorkerLost
from transom.target.etl.transports.http import HttpTransport
from transom.target.etl.transports.ws import WsTransport
from transom.target.etl.waiting import Look, aside
from transom.target.etl.watch import Watch

SIGNATURE = "Transom-Signature"
_MOST = 256
_FRESH_S = 5.0  # so long the addresses of a name are remembered: no lookup for each object


@dataclass(frozen=True, slots=True)
class _Found:
    """The checked addresses of a service, and when they were looked up."""

    addresses: tuple[str, ...]
    at: float


class UrlRuntime:
    """One process's way to services elsewhere. Callable from any thread."""

    def __init__(self, rules: UrlRules, master: bytes, pulls: ByteHolds, scratch: Path) -> None:
        """`master` is the secret that those of ETLs are derived from; `pulls` holds what services may fetch."""
        self._rules = rules
        self._master = master
        self._pulls = pulls
        self._scratch = scratch
        self._found: dict[Service, _Found] = {}
        self._transports: dict[tuple[str, str, Service, str], Transport] = {}
        self._lock = threading.Lock()

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one stage; see `Transport`. Raises EtlUnavailable too, where the service may not be called."""
        etl, service = job.stage.etl, _service(job.spec.runtime.url or "")
        try:
            addresses = self._addresses(service, watch.check)
        except AddressRefusedError as error:
            raise EtlUnavailable(f"ETL '{etl}' is unavailable: {error}", etl=etl) from error
        except OSError as error:
            lost = EtlDisconnected(f"ETL '{etl}' lost its service: {service.host} can't be looked up", etl=etl)
            raise WorkerLost(lost) from error
        transport = self._transport(job, service, addresses[0])
        held: AbstractContextManager[None] = nullcontext()
        if job.reader is not None and job.pulled:
            info = job.reader.info
            held = self._pulls.holding(pull_offset(etl, info.bucket, info.key, info.etag))
        try:
            with held:
                yield from transport.run(job.call(), chunks, watch)
        except WorkerLost:
            self._turn(service)
            raise

    def close(self) -> None:
        """Let go of idle connections."""
        with self._lock:
            transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            transport.close()

    def _addresses(self, service: Service, look: Look) -> tuple[str, ...]:
        found = self._found.get(service)
        if found is None or time.monotonic() - found.at > _FRESH_S:
            found = self._found[service] = _Found(
                tuple(aside(partial(self._rules.addresses, service), look)), time.monotonic()
            )
        return found.addresses

    def _turn(self, service: Service) -> None:
        """Try another of the service's addresses next."""
        found = self._found.get(service)
        if found is not None:
            self._found[service] = _Found((*found.addresses[1:], found.addresses[0]), found.at)

    def _transport(self, job: Job, service: Service, host: str) -> Transport:
        key = (job.stage.etl, job.spec.transport, service, host)
        transport = self._transports.get(key)
        if transport is None:
            if len(self._transports) >= _MOST:
                self.close()  # of ETLs that are long gone, most of them; whoever is on one stays on it
            with self._lock:
                transport = self._transports.setdefault(key, self._made(job, service, host))
        return transport

    def _made(self, job: Job, service: Service, host: str) -> Transport:
        address = Address(host=host, port=service.port, tls=service.host if service.tls else "")
        sign = partial(signed, secret_of(self._master, job.stage.etl))
        if job.spec.transport == "ws":
            return WsTransport(address, host=service.authority, prefix=service.path, sign=sign)
        return HttpTransport(
            address,
            "pull" if job.spec.transport in PULLS else "push",
            host=service.authority,
            prefix=service.path,
            sign=sign,
            scratch=self._scratch,
            tells_length=True,  # nobody knows whether it could do without
        )


def signed(secret: str, method: str, target: str, now_s: int | None = None) -> Mapping[str, str]:
    """The header that says who asks: `Transom-Signature: t=SECONDS,v1=HEX`.

    HEX is the HMAC-SHA256, keyed with the ETL's secret, of `SECONDS.METHOD.TARGET`, with the target as the request
    line has it: path and query, percent-encoded. A service should refuse times more than a few minutes off.
    """
    at = int(time.time()) if now_s is None else now_s
    digest = hmac.digest(secret.encode(), f"{at}.{method}.{target}".encode(), "sha256")
    return {SIGNATURE: f"t={at},v1={digest.hex()}"}


@lru_cache(maxsize=256)
def _service(url: str) -> Service:
    return parse_url(url)
