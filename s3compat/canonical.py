"""The canonical forms that signatures are made over: path, query and headers. Pure text, no keys.

Most clients sign path and query exactly as they send them; some sign Amazon's strict re-encoding of something they
sent less strictly encoded. Both name the same bucket, key and parameters, so either is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, unquote_to_bytes


def query_as_sent(items: Sequence[tuple[str, str]]) -> str:
    """Return raw query items, sorted; X-Amz-Signature is left out."""
    if len(items) == 1 and items[0][0] != "X-Amz-Signature":
        return f"{items[0][0]}={items[0][1]}"
    return "&".join([f"{name}={value}" for name, value in sorted(items) if name != "X-Amz-Signature"])


def query_reencoded(items: Sequence[tuple[str, str]]) -> str:
    """Return query items decoded, strictly encoded again and sorted; '+' is a space."""
    return query_as_sent(
        [(_reencode(name.replace("+", " "), ""), _reencode(value.replace("+", " "), "")) for name, value in items]
    )


def path_reencoded(raw_path: str) -> str:
    """Return the path decoded and strictly encoded again."""
    return _reencode(raw_path, "/")


def _reencode(text: str, safe: str) -> str:
    return quote(unquote_to_bytes(text), safe=safe + "-_.~")


def paths_and_queries(raw_path: str, items: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the canonical (path, query) pairs a client may have signed, the likeliest first, each once."""
    sent = query_as_sent(items) if items else ""
    yield raw_path, sent
    paths = dict.fromkeys((raw_path, path_reencoded(raw_path)))
    queries = dict.fromkeys((sent, query_reencoded(items)))
    for path in paths:
        for query in queries:
            if (path, query) != (raw_path, sent):
                yield path, query


def headers(present: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the canonical header lines of `names`, each ended by a newline; an absent header counts as empty."""
    lines = []
    for name in names:
        value = present.get(name, "")
        if "  " in value or "\t" in value:
            value = " ".join(value.split())
        elif value[:1] == " " or value[-1:] == " ":
            value = value.strip()
        lines.append(f"{name}:{value}\n")
    return "".join(lines)
