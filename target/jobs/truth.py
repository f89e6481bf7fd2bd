"""What a job's objects say of their making: metadata that tells a later run what is up to date and what is not.

It knows nothing of jobs, stores or worklists: it reads and makes descriptions of objects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from transom.target.etl.plan import Plan, identify
from transom.target.store.base import Attributes, ObjectInfo

PREFIX = "transom-"
SOURCE = "transom-source"
SOURCE_ETAG = "transom-source-etag"
PIPELINE = "transom-pipeline"
REVISIONS = "transom-revisions"
ARGS = "transom-args"
RESULT = "transom-result"
PLACE = "transom-place"
SHARD = "transom-shard"  # as PLACE, of what a sort made: of no one object
_MAX_ARGS = 512  # bytes: all of an object's metadata has to fit in headers
_CARRIED = ("cache-control",)  # what else describes the source's bytes need not hold for what was made of them


def marks(plan: Plan, args: Any) -> dict[str, str]:
    """The metadata that all objects of one job share; `args` are those that were asked for."""
    revisions = " ".join(f"{stage.etl}@{stage.revision}" for stage in plan.stages)
    return {PIPELINE: plan.name, REVISIONS: revisions, ARGS: args_text(args)}


def args_text(args: Any) -> str:
    """The arguments as they were asked for, on one line of ASCII that fits in a header."""
    text = json.dumps(args, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
    return text if len(text) <= _MAX_ARGS else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def attributes_of(
    marked: Mapping[str, str], source: ObjectInfo, result: str, content_type: str, owner: str, place: str
) -> Attributes:
    """What is said of an object made of `source`: the source's own metadata and tags, `marked`, and its making.

    `place` is where it is written (see `place_of`): a copy of it elsewhere is none of a job's
    making. `result` names what was made, of what and how (see `result_of`): two objects with one result need no
    comparing.
    """
    there = source.attributes
    content = {name: there.content[name] for name in _CARRIED if name in there.content}
    content["content-type"] = content_type
    metadata = {name: value for name, value in there.metadata.items() if not name.startswith(PREFIX)}
    metadata.update(marked)
    metadata[SOURCE] = source_text(source.bucket, source.key)
    metadata[SOURCE_ETAG] = source.etag
    metadata[RESULT] = result
    metadata[PLACE] = place
    return Attributes(content=content, metadata=metadata, tags=there.tags, owner=owner)


def source_text(bucket: str, key: str) -> str:
    """A bucket and a key as one line of ASCII."""
    return quote(f"{bucket}/{key}".encode("utf-8", "surrogatepass"), safe="/")


def place_of(bucket: str, key: str) -> str:
    """A digest of where an object is, 16 hex digits."""
    return hashlib.blake2b(source_text(bucket, key).encode(), digest_size=8).hexdigest()


def source_of(info: ObjectInfo) -> tuple[str, str] | None:
    """Of which (bucket, key) a job made an object, where it is; None where no job did, as for a copy of one."""
    metadata = info.attributes.metadata
    said = metadata.get(SOURCE)
    if said is None or metadata.get(PLACE) != place_of(info.bucket, info.key):
        return None
    try:
        bucket, _, key = unquote_to_bytes(said).decode("utf-8", "surrogatepass").partition("/")
    except UnicodeDecodeError:  # somebody else's metadata of that name
        return None
    return bucket, key


def result_of(plan: Plan, source: ObjectInfo) -> str:
    """Name what `plan` makes of `source`; needs no run."""
    return identify(plan, source).base


def up_to_date(destination: ObjectInfo, result: str) -> bool:
    """Whether an object is what a run would make again; `result` as `result_of` names it."""
    return destination.attributes.metadata.get(RESULT) == result
