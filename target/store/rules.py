"""The rules of writing that all stores share: conditions, and what a completed upload must be made of.

It knows nothing of where objects rest.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from transom.target.errors import EntityTooSmall, InvalidPart, InvalidPartOrder, NoSuchKey, PreconditionFailed
from transom.target.store.base import Attributes, Part, WriteCondition


def check_condition(condition: WriteCondition | None, etag: str | None) -> None:
    """Refuse a write whose condition does not hold; `etag` is that of the object in place, None when there is none."""
    if condition is None:
        return
    if condition.if_none_match_any and etag is not None:
        raise PreconditionFailed("An object of that key exists.", condition="If-None-Match")
    if condition.if_match is None:
        return
    if etag is None:
        raise NoSuchKey("The key that If-Match names does not exist.")
    if condition.if_match not in ("*", etag):
        raise PreconditionFailed("The object has another ETag.", condition="If-Match")


def choose_parts(wanted: Sequence[tuple[int, str]], have: Mapping[int, Part], min_part_size: int) -> list[Part]:
    """Return the parts that a completion names, in order, or refuse it."""
    if not wanted:
        raise InvalidPart("A completion names at least one part.")
    numbers = [number for number, _ in wanted]
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise InvalidPartOrder("The parts are not in ascending order.")
    chosen = [_named_part(number, etag, have) for number, etag in wanted]
    for part in chosen[:-1]:
        if part.size < min_part_size:
            raise EntityTooSmall(f"Part {part.number} has {part.size} bytes; all but the last need {min_part_size}.")
    return chosen


def _named_part(number: int, etag: str, have: Mapping[int, Part]) -> Part:
    part = have.get(number)
    if part is None:
        raise InvalidPart(f"Part {number} was not uploaded.")
    if part.etag != etag.strip('"'):
        raise InvalidPart(f"Part {number} has another ETag.")
    return part


def multipart_etag(part_etags: Iterable[str]) -> str:
    """The ETag of an object made of parts: the MD5 of their MD5s, and how many."""
    digests = [bytes.fromhex(etag) for etag in part_etags]
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def after_prefix(prefix: bytes) -> bytes | None:
    """The least byte string above everything that starts with `prefix`; None when nothing can be."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else None


def common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """What `key` rolls up to, up to and with the first `delimiter` past `prefix`; None when it stands for itself."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def updated(attributes: Attributes, tags: Mapping[str, str] | None, acl: str | None) -> Attributes:
    """The attributes with other tags, another ACL, or both."""
    return replace(
        attributes,
        tags=attributes.tags if tags is None else tags,
        acl=attributes.acl if acl is None else acl,
    )
