"""What in a spec goes with what. Each rule names the key at fault and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator

from transom.target.errors import EtlArgsInvalid
from transom.target.etl.runtimes.url_rules import parse_url
from transom.target.etl.spec import DEFAULT_PORT, RUNTIMES, Spec

Fault = tuple[tuple[str, ...], str]
_BESIDE = {
    "env": ("code", "command", "image"),
    "requirements": ("code",),
    "entry": ("code",),
}
_FILE_NAME = re.compile(r"[^\n]+\.(py|txt)")


def faults(spec: Spec) -> Iterator[Fault]:
    """Every rule the spec breaks, as the path of a key and what is wrong with it."""
    if "--" in spec.name:
        yield ("name",), f"{spec.name!r} has '--', which stands for something else; write '-'"
    given = [key for key in RUNTIMES if getattr(spec.runtime, key) is not None]
    if given != ["command", "image"] and len(given) != 1:
        there = f"there are {' and '.join(given)}" if given else "there is none"
        yield ("runtime",), f"give exactly one of {', '.join(RUNTIMES)}; {there}"
        return
    yield from _runtime(spec)
    yield from _talk(spec)
    yield from _worker(spec)
    if spec.kind in ("plugin", "process"):
        yield from _installed(spec)


def _runtime(spec: Spec) -> Iterator[Fault]:
    runtime, kind = spec.runtime, spec.kind
    for key, homes in _BESIDE.items():
        if getattr(runtime, key) and kind not in homes:
            yield ("runtime", key), f"goes with {' or '.join(homes)} only, not with {kind}"
    for key in ("code", "requirements"):
        name = runtime.code if key == "code" else next(iter(runtime.requirements), "")
        if name and _FILE_NAME.fullmatch(name):
            yield (
                ("runtime", key),
                f"{name!r} is a file's name, and the server has no such file: write its text here (after '|'), "
                "or let `transom etl init -f` send it along",
            )
    if runtime.url is not None:
        yield from _url(runtime.url)


def _url(url: str) -> Iterator[Fault]:
    try:
        parse_url(url)
    except EtlArgsInvalid as error:
        yield ("runtime", "url"), error.message
        return
    if not _is_plain(url):
        yield ("runtime", "url"), f"{url!r} has a character that must be percent-encoded"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _talk(spec: Spec) -> Iterator[Fault]:
    kind, said = spec.kind, spec.communication
    io = said == "io://" or (kind == "command" and not said)
    if said == "io://" and kind != "command":
        yield ("communication",), f"io:// is for a command; {kind} speaks hpush://, hpull://, hrev:// or ws://"
    if spec.io == "persistent" and not io:
        yield ("io",), "goes with `communication: io://` only"
    if spec.redirect == "worker":
        if not spec.network:
            yield ("redirect",), "a worker that clients are sent to needs `network: true`"
        if said != "hpull://" or kind == "url":
            yield ("redirect",), "goes with a worker of ours and `communication: hpull://` only"


def _worker(spec: Spec) -> Iterator[Fault]:
    """What only a worker has that we start."""
    kind = spec.kind
    if kind == "url":
        for key, given in (("network", spec.network), ("resources", spec.resources != type(spec.resources)())):
            if given:
                yield (key,), "is not ours to set for a service that somebody else runs"
    if spec.port != DEFAULT_PORT and kind not in ("command", "image"):
        yield ("port",), "goes with a command or an image only" + ("; write it in the URL" if kind == "url" else "")
    pooled = kind in ("plugin", "process", "url") or (kind == "command" and spec.communication in ("", "io://"))
    if spec.idle_timeout_s is not None and pooled:
        yield ("idle_timeout",), "is for a worker that goes on running between objects"


def _installed(spec: Spec) -> Iterator[Fault]:
    """What a transformer that is installed here says for itself, or has no use for."""
    fine = {"name", "runtime", "args", "concurrency", "deterministic", "cache", "obj_timeout_s", "init_timeout_s"}
    fine |= {"support_direct_put"}
    for field in sorted(spec.model_fields_set - fine):
        alias = type(spec).model_fields[field].alias or field
        if getattr(spec, field) != type(spec).model_fields[field].get_default(call_default_factory=True):
            yield (alias,), f"doesn't go with an installed transformer ({spec.kind})"
    if spec.args is not None and not isinstance(spec.args, dict):
        yield ("args",), "write the transformer's arguments by name, such as {width: 224}"
