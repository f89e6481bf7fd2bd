"""What a shard's bytes are: for the same members in the same order always the same, whoever packs them and when.

It knows nothing of records: names and sizes in, header blocks out.
"""

from __future__ import annotations

import tarfile

from transom.plugins.builtin.tar_stream import BLOCK, ENCODING, ERRORS

_MODE = 0o644
_NAME_SIZE = 100
_SIZE_MAX = 8**11  # beyond it the header has no room for the size
_SUM = slice(148, 156)


def _plain() -> bytearray:
    """The ustar header that all members with short names share, without name, size and checksum."""
    info = tarfile.TarInfo()
    info.mode = _MODE
    return bytearray(info.tobuf(tarfile.USTAR_FORMAT))


_HEADER = _plain()
_HEADER[124:136] = bytes(12)
_HEADER[_SUM] = b" " * 8  # as the checksum is made
_HEADER_SUM = sum(_HEADER)


def header(name: bytes, size: int) -> bytes:
    """Return a member's header blocks: mode 0644, no owner, no time; with a pax header where the name needs one."""
    if not _is_plain(name, size):
        info = tarfile.TarInfo(name.decode(ENCODING, ERRORS))
        info.size, info.mode = size, _MODE
        return info.tobuf(tarfile.PAX_FORMAT, ENCODING, ERRORS)
    digits = b"%011o\0" % size
    made = bytearray(_HEADER)
    made[: len(name)] = name
    made[124:136] = digits
    made[_SUM] = b"%06o\0 " % (_HEADER_SUM + sum(name) + sum(digits))
    return bytes(made)


def stored_size(name: bytes, size: int) -> int:
    """Return how many bytes a member takes of a shard: header, data and padding."""
    return (BLOCK if _is_plain(name, size) else len(header(name, size))) + size + padding(size)


def padding(size: int) -> int:
    """Return how many zeros follow `size` bytes of data."""
    return -size % BLOCK


def end_mark(stored: int) -> bytes:
    """Return what ends a shard whose members take `stored` bytes."""
    return bytes(2 * BLOCK + -(stored + 2 * BLOCK) % tarfile.RECORDSIZE)


def _is_plain(name: bytes, size: int) -> bool:
    return len(name) <= _NAME_SIZE and size < _SIZE_MAX and name.isascii()
