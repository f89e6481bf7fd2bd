"""The header of NumPy's array files (.npy, version 1.0), always of one length, so that it can be filled in last."""

from __future__ import annotations

from collections.abc import Sequence

HEADER_SIZE = 128
_MAGIC = b"\x93NUMPY\x01\x00"


def header(dtype: str, shape: Sequence[int]) -> bytes:
    """Return the header of an array in C order; `dtype` as NumPy writes it, such as '<f4'."""
    sizes = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}"
    room = HEADER_SIZE - len(_MAGIC) - 2
    return _MAGIC + room.to_bytes(2, "little") + text.encode().ljust(room - 1) + b"\n"
