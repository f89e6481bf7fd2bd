"""TFRecord files of tf.train.Example messages, encoded by hand: the wire format of both is a page of protobuf.

Formats: tensorflow/core/example/{feature,example}.proto; record_writer.h for the frames. It knows nothing of shards.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

Feature = Sequence[bytes] | Sequence[int] | Sequence[float]
"""Values of one kind; the first one tells which. No values at all are an empty feature."""

# A field's tag is its number << 3 | its wire type; all fields used here are of the type "length-delimited".
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = _FIELD_1, _FIELD_2, _FIELD_3
_INT64 = range(-(2**63), 2**63)
_MASK_DELTA = 0xA282EAD8  # crc32c.h: so that a checksum of data that holds checksums is sound
_U32 = 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Frame one record: length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def example(features: Mapping[str, Feature]) -> bytes:
    """Encode one tf.train.Example, its features sorted by name. Raises ValueError for an int past 64 bits."""
    entries = (
        _field(_FIELD_1, _field(_FIELD_1, name.encode()) + _field(_FIELD_2, _feature(features[name])))
        for name in sorted(features)
    )
    return _field(_FIELD_1, b"".join(entries))


def _feature(values: Feature) -> bytes:
    if not values:
        return b""
    if isinstance(values[0], bytes):
        return _field(_BYTES_LIST, b"".join(_field(_FIELD_1, value) for value in values if isinstance(value, bytes)))
    if isinstance(values[0], float):
        return _field(_FLOAT_LIST, _field(_FIELD_1, struct.pack(f"<{len(values)}f", *values)))
    return _field(_INT64_LIST, _field(_FIELD_1, b"".join(_int64(value) for value in values if isinstance(value, int))))


def _field(tag: bytes, payload: bytes) -> bytes:
    return tag + _varint(len(payload)) + payload


def _int64(value: int) -> bytes:
    if value not in _INT64:
        raise ValueError(f"{value} does not fit into 64 bits")
    return _varint(value & 0xFFFFFFFFFFFFFFFF)  # two's complement, as protobuf writes negative ones


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:  # noqa: PLR2004 (seven bits a byte, the eighth says that more follow)
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _checksum(data: bytes) -> bytes:
    from awscrt.checksums import crc32c  # 40 ms, and every process that loads plugins loads this one

    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _U32)
