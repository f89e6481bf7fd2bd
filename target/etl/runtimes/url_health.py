"""Asks a service elsewhere whether it is well: `GET /health`, at an address that a run may come to, signed as a run is.

It follows no redirect, starts nothing and remembers nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass

from transom.target.etl.runtimes.url import signed
from transom.target.etl.runtimes.url_rules import AddressRefusedError, Resolve, Service, UrlRules, parse_url
from transom.target.etl.transports.answers import MAX_HEAD, Head, LateFailureError, MalformedError, read_head
from transom.target.etl.transports.base import Address
from transom.target.etl.transports.exchange import BrokenError
from transom.target.etl.transports.sockets import connect

BOUND_S = 5.0  # for all of it
_SPARE_S = 0.5
_PIECE = 4096
_HAS_NONE = (404, 405, 501)  # what servers say to a path or method that they don't have
_REFUSED = (401, 403)
_START = "start it, or make the ETL anew with the address where it is"


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether a service is well, and what was seen of it, in words for an administrator."""

    well: bool
    message: str


async def seen_in_time(
    url: str, rules: UrlRules, secret: str, *, bound_s: float = BOUND_S, resolve: Resolve | None = None
) -> Seen:
    """What `look_at` sees, or that it saw nothing in time. A thread of its own waits: what hangs holds up nobody."""
    found: Future[Seen] = Future()
    found.set_running_or_notify_cancel()

    def look() -> None:
        try:
            found.set_result(look_at(url, rules, secret, bound_s=bound_s, resolve=resolve))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=look, name="url-health", daemon=True).start()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(found), bound_s + _SPARE_S)
    except TimeoutError:  # sockets are bounded, and a look-up isn't
        return _unknown(parse_url(url), f"not within {bound_s:g} s")


def look_at(
    url: str, rules: UrlRules, secret: str, *, bound_s: float = BOUND_S, resolve: Resolve | None = None
) -> Seen:
    """Ask the service at `url`, signing with the ETL's `secret`; at each of its addresses until one answers.

    Blocking, for `bound_s` at most but for looking its name up, with `resolve` if that is given.
    """
    service, end = parse_url(url), time.monotonic() + bound_s
    try:
        addresses = rules.addresses(service, resolve)
    except AddressRefusedError as error:
        return Seen(False, str(error))
    except OSError as error:
        return _unknown(service, error.strerror or str(error))
    problems = []
    for i, host in enumerate(addresses):
        now = time.monotonic()
        try:
            head = _answer(service, host, secret, now + (end - now) / (len(addresses) - i))
            return _judged(service, head)
        except (OSError, BrokenError, MalformedError) as error:
            problems.append(f"{_where(service, host)}: {_problem(service, error, bound_s)}")
    return Seen(False, "; ".join(problems))


def _answer(service: Service, host: str, secret: str, end: float) -> Head:
    """The head of the service's answer. Raises OSError, TimeoutError, BrokenError, MalformedError."""

    def look() -> None:
        if time.monotonic() > end:
            raise TimeoutError

    address = Address(host=host, port=service.port, tls=service.host if service.tls else "")
    target = f"{service.path}/health"
    lines = [f"GET {target} HTTP/1.1", f"Host: {service.authority}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in signed(secret, "GET", target).items()]
    with closing(connect(address, look)) as sock:
        sock.sendall("\r\n".join([*lines, "\r\n"]).encode("ascii"))

        def receive() -> bytes:
            while True:
                look()
                with suppress(BlockingIOError):
                    return sock.recv(_PIECE)

        head, data = read_head(receive)
        _read_out(head, data, receive)
        return head


def _read_out(head: Head, data: bytes, receive: Callable[[], bytes]) -> None:
    """Let it say the rest, if that is short: one that is cut short may complain of it in its log."""
    with suppress(OSError, BrokenError, MalformedError, LateFailureError):
        body = head.body()
        body.feed(data)
        length = len(data)
        while not body.done and data and length < MAX_HEAD:
            data = receive()
            body.feed(data)
            length += len(data)


def _judged(service: Service, head: Head) -> Seen:
    status, asked = head.status, f"GET {service.path}/health"
    if status // 100 == 2:  # noqa: PLR2004 - HTTP's class of successes
        return Seen(True, f"its service answers {asked} with {status}")
    if status in _HAS_NONE:
        return Seen(True, f"its service answers, and has no {asked} ({status})")
    remedy = "see what the service itself, or its log, says of that"
    if status // 100 == 3:  # noqa: PLR2004
        remedy = "no redirect is followed, so the ETL must be made with the address that it leads to"
    elif status in _REFUSED:
        remedy = "it must take what Transom-Signature signs with the secret in 'transom etl show'"
    return Seen(False, f"its service answers {asked} with {status}: {remedy}")


def _unknown(service: Service, why: str) -> Seen:
    return Seen(False, f"{service.host} can't be looked up ({why}): see to the name, or to this machine's name server")


def _where(service: Service, host: str) -> str:
    """The service as its URL has it, and the address where that isn't the same."""
    return service.authority if host == service.host else f"{service.authority} ({host})"


def _problem(service: Service, error: Exception, bound_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer to GET {service.path}/health within {bound_s:g} s: {_START}, or see why it takes so long"
    if isinstance(error, PermissionError) and not error.errno:
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens there: {_START}"
    misunderstood = _misunderstood(error)
    if misunderstood:
        return f"{misunderstood}: see whether the URL should begin with http or with https"
    return f"no connection can be made ({getattr(error, 'strerror', '') or error}): {_START}"


def _misunderstood(error: Exception) -> str:
    """What became of a conversation that broke off; "" if there was none."""
    if isinstance(error, MalformedError):
        return f"what answers there speaks no HTTP ({error})"
    if isinstance(error, ssl.SSLError):
        return f"TLS can't be agreed on ({error.reason or error})"
    if isinstance(error, BrokenError | ConnectionResetError | BrokenPipeError):
        return "it closed the connection without an answer"
    return ""
