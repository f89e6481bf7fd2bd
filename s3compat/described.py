"""What answers describe, by shape: a store's objects, parts and uploads fit, and neither side imports the other.

ETags have no quotes; times are nanoseconds since the epoch.
"""
# ruff: noqa: D102 - the members say what they are by name

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class BucketLike(Protocol):
    """A bucket."""

    @property
    def name(self) -> str: ...
    @property
    def created_ns(self) -> int: ...


class AttributesLike(Protocol):
    """The attributes of an object or upload that answers show."""

    @property
    def owner(self) -> str: ...
    @property
    def storage_class(self) -> str: ...


class PartLike(Protocol):
    """A part of an upload or object; its ETag has no quotes."""

    @property
    def number(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def modified_ns(self) -> int: ...
    @property
    def checksums(self) -> Mapping[str, str]: ...


class ObjectLike(Protocol):
    """An object; its ETag has no quotes."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def modified_ns(self) -> int: ...
    @property
    def attributes(self) -> AttributesLike: ...
    @property
    def checksums(self) -> Mapping[str, str]: ...
    @property
    def checksum_type(self) -> str: ...
    @property
    def parts(self) -> Sequence[PartLike]: ...


class UploadLike(Protocol):
    """A multipart upload under way."""

    @property
    def key(self) -> str: ...
    @property
    def upload_id(self) -> str: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def attributes(self) -> AttributesLike: ...
    @property
    def checksum_algorithm(self) -> str: ...
    @property
    def checksum_type(self) -> str: ...
