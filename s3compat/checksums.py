"""S3's checksums: running ones, the composite of a multipart upload's parts, and a whole object's CRC from its parts'.

Values are base64 of the big-endian digest, as on the wire.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from awscrt import checksums as crt

from transom.s3compat.errors import S3Error

ALGORITHMS: Final = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
# What newer SDKs can be told to use and this library doesn't compute: refused, never taken unverified.
UNSUPPORTED: Final = ("SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128")

DIGEST_BYTES: Mapping[str, int] = MappingProxyType({"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32})
_CRC: Mapping[str, Callable[[bytes, int], int]] = MappingProxyType(
    {"CRC32": crt.crc32, "CRC32C": crt.crc32c, "CRC64NVME": crt.crc64nvme}
)
_COMBINE: Mapping[str, Callable[[int, int, int], int]] = MappingProxyType(
    {"CRC32": crt.combine_crc32, "CRC32C": crt.combine_crc32c, "CRC64NVME": crt.combine_crc64nvme}
)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


class _Crc:
    __slots__ = ("_function", "_size", "_value")

    def __init__(self, name: str) -> None:
        self._function, self._size, self._value = _CRC[name], DIGEST_BYTES[name], 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _new_hash(name: str) -> _Hash:
    if name in _CRC:
        return _Crc(name)
    if name == "SHA1":
        return hashlib.sha1(usedforsecurity=False)
    if name == "SHA256":
        return hashlib.sha256()
    raise ValueError(f"no such checksum: {name}")


class Checksum:
    """A running checksum by its S3 name."""

    __slots__ = ("_hash", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._hash = _new_hash(name)

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def b64(self) -> str:
        """Return the checksum of what came so far."""
        return base64.b64encode(self._hash.digest()).decode()


def header_name(name: str) -> str:
    """Return the header that carries this checksum, in lower case."""
    return "x-amz-checksum-" + name.lower()


def is_wellformed(name: str, value: str) -> bool:
    """Tell whether `value` can be such a checksum at all: base64 of the right number of bytes."""
    return _decoded(value) is not None and len(_decoded(value) or b"") == DIGEST_BYTES[name]


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def composite(name: str, parts: Iterable[str]) -> str:
    """Return the COMPOSITE checksum of a multipart object, "…-N", from its parts' checksums."""
    digests = [base64.b64decode(part) for part in parts]
    whole = _new_hash(name)
    whole.update(b"".join(digests))
    return f"{base64.b64encode(whole.digest()).decode()}-{len(digests)}"


def full_object(name: str, parts: Iterable[tuple[str, int]]) -> str:
    """Return the FULL_OBJECT CRC of a multipart object from its parts' (checksum, size) in order; CRCs only."""
    if name not in _COMBINE:
        raise S3Error("InvalidRequest", f"The FULL_OBJECT checksum type cannot be used with the {name} algorithm.")
    value = 0
    for part, size in parts:
        value = _COMBINE[name](value, int.from_bytes(base64.b64decode(part), "big"), size)
    return base64.b64encode(value.to_bytes(DIGEST_BYTES[name], "big")).decode()
