"""Reads TFRecord files with protobuf's own parser and a checksum worked out bit by bit: nothing of what wrote them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_FIELD = descriptor_pb2.FieldDescriptorProto


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frames(data: bytes) -> Iterator[bytes]:
    """The records of a file, their checksums compared."""
    at = 0
    while at < len(data):
        length, length_crc = struct.unpack_from("<QI", data, at)
        assert length_crc == masked(data[at : at + 8])
        record = data[at + 12 : at + 12 + length]
        (crc,) = struct.unpack_from("<I", data, at + 12 + length)
        assert crc == masked(record)
        yield record
        at += 16 + length


def _example_class() -> Any:
    """tf.train.Example, described as in tensorflow/core/example/{feature,example}.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = {"BytesList": _FIELD.TYPE_BYTES, "FloatList": _FIELD.TYPE_FLOAT, "Int64List": _FIELD.TYPE_INT64}
    for name, kind in kinds.items():
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, type=kind, label=_FIELD.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(kinds, 1):
        feature.field.add(
            name=name.lower(), number=number, type=_FIELD.TYPE_MESSAGE, type_name=f".t.{name}", oneof_index=0,
            label=_FIELD.LABEL_OPTIONAL,
        )  # fmt: skip
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_FIELD.TYPE_MESSAGE, type_name=".t.Feature", label=_FIELD.LABEL_OPTIONAL
    )
    features.field.add(
        name="feature", number=1, type=_FIELD.TYPE_MESSAGE, type_name=".t.Features.FeatureEntry",
        label=_FIELD.LABEL_REPEATED,
    )  # fmt: skip
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features", number=1, type=_FIELD.TYPE_MESSAGE, type_name=".t.Features", label=_FIELD.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


_Example = _example_class()


def examples(data: bytes) -> list[dict[str, list[Any]]]:
    """Each record's features, with their values."""
    found = []
    for record in frames(data):
        features = _Example.FromString(record).features.feature
        found.append({name: _values(features[name]) for name in features})
    return found


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []
