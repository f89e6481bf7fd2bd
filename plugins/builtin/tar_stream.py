"""Reads a tar archive in one pass, member by member, and writes one, in constant memory.

Header blocks are kept as they came, so what isn't changed is written back byte for byte, whatever tar wrote it. Nothing
is ever made on disk, and no link followed: names are just text here. POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU and V7.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from transom.plugins.contract import Reject

BLOCK = tarfile.BLOCKSIZE
ENCODING, ERRORS = "utf-8", "surrogateescape"
WINDOW_SIZE = 4 * 1024

_PIECE_SIZE = 256 * 1024
_WINDOW_SIZE_MAX = 256 * 1024
_MUCH = 8  # an eighth of a window is worth reading it in one go
_EXTENSION_SIZE_MAX = 1024 * 1024  # of a pax or long-name header: longer is an attack
_HEAD_SIZE_MAX = 4 * 1024 * 1024
_END = bytes(BLOCK)
_LOCAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_NO_DEVICE = (bytes(16), b"0000000\0" * 2)
_NUMBERS = tuple(slice(*field) for field in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (148, 156)))
_IS_EXTENDED = {"header": 482, "extension": 504}  # where old GNU sparse headers say that more of the map follows
_REAL_SIZE = slice(483, 495)  # and what the file's size is, holes included
_REWRITTEN = ("path", "size", "hdrcharset")  # pax records that a changed member gets anew


class Source:
    """Bytes that come in chunks, read by number; `offset` is how many were, `marked` whether the end mark was seen."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0
        self.offset = 0
        self.marked = False

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces, fewer only at the end of all."""
        while size and self._fill():
            whole = not self._at and len(self._chunk) <= size  # then it isn't copied
            piece = self._chunk if whole else self._chunk[self._at : self._at + size]
            self._at += len(piece)
            self.offset += len(piece)
            size -= len(piece)
            yield piece

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end of all."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; return how many there were."""
        return sum(map(len, self.pieces(size)))

    def _fill(self) -> bool:
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk, self._at = chunk, 0
        return True


class Seekable(Source):
    """An archive of `size` bytes of which any can be read: what is skipped isn't read.

    `read_at(offset, length)` is asked for a window at a time, twice as long when much of the one before was wanted,
    and half as long when most of it was skipped, but never less than `window_size`.
    """

    def __init__(
        self, read_at: Callable[[int, int], bytes], size: int, offset: int = 0, window_size: int = WINDOW_SIZE
    ) -> None:
        super().__init__(())
        self._read_at = read_at
        self._size = size
        self._least = self._window_size = window_size
        self._window = b""
        self._wanted = 0
        self._begins = 0
        self.offset = offset

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces, fewer only at the end of all."""
        while size and self._reach():
            at = self.offset - self._begins
            piece = self._window[at : at + size]
            self.offset += len(piece)
            self._wanted += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; return how many there were."""
        passed = max(min(size, self._size - self.offset), 0)
        self.offset += passed
        return passed

    def _reach(self) -> bool:
        """Have the window hold the next byte, if there is one."""
        if self.offset < self._begins + len(self._window):
            return True
        if self.offset >= self._size:
            return False
        much = self._wanted * _MUCH >= len(self._window)
        self._window_size = self._window_size * 2 if much else self._window_size // 2
        self._window_size = max(self._least, min(self._window_size, _WINDOW_SIZE_MAX))
        self._begins, self._wanted = self.offset, 0
        self._window = self._read_at(self.offset, min(self._window_size, self._size - self.offset))
        return bool(self._window)


@dataclass(slots=True)
class Member:
    """A member whose data is next in the stream, to be read once, or not at all.

    `head` is its header blocks as they came, `size` what is stored of it, `offset` where that begins in the archive.
    A global pax header comes as a member of its own, with `info.type` XGLTYPE and all of it in `head`.
    """

    info: tarfile.TarInfo
    head: bytes
    size: int
    offset: int
    sparse: bool
    _source: Source
    _left: int

    @property
    def name(self) -> str:
        """The name as stored; bytes that aren't UTF-8 are surrogates."""
        return self.info.name

    @property
    def text(self) -> str:
        """The name as text: for what isn't UTF-8 in it stands U+FFFD."""
        return _text(self.name)

    @property
    def is_global(self) -> bool:
        """Whether it is no member at all but headers for all that follow."""
        return self.info.type == tarfile.XGLTYPE

    @property
    def is_file(self) -> bool:
        """Whether it has data that stand for themselves."""
        return self.info.isreg() and not self.sparse

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        if self.sparse:
            return "sparse file"
        if self.info.isreg():
            return "file"
        if self.info.isdir():
            return "directory"
        return "link" if self.info.issym() or self.info.islnk() else "device"

    def chunks(self) -> Iterator[bytes]:
        """Yield the data. Raises Reject when the archive ends within it."""
        for piece in self._source.pieces(self._left):
            self._left -= len(piece)
            yield piece
        self._whole_or_reject()

    def _whole_or_reject(self) -> None:
        if self._left:
            raise Reject(f"the archive is cut short in member {shown(self.name)}")

    def whole(self) -> Iterator[bytes]:
        """Yield the member as the archive has it: header, data, padding."""
        yield self.head
        yield from self.chunks()
        yield bytes(_padding(self.size))

    def leave(self) -> None:
        """Pass over what wasn't read of it. Raises Reject when the archive ends within it."""
        self._left -= self._source.skip(self._left)
        self._whole_or_reject()
        if self._source.skip(_padding(self.size)) < _padding(self.size):
            raise Reject(f"the archive is cut short after member {shown(self.name)}")


def read(chunks: Iterable[bytes]) -> Iterator[Member]:
    """Yield the members of an archive in order; asking for the next leaves the one before.

    Raises Reject for a damaged archive, and for what is none: no bytes at all, since an empty one has its end mark.
    """
    return members_of(Source(chunks), {})


def members_of(source: Source, shared: dict[str, str]) -> Iterator[Member]:
    """Do as `read` does, from where `source` stands; `shared` is what global headers before said, and is kept up."""
    while (member := _next(source, shared)) is not None:
        yield member
        member.leave()


def is_header(block: bytes) -> bool:
    """Tell whether an archive may begin so: with a header block, or with the end mark."""
    if block[:BLOCK] == _END:
        return True
    try:
        tarfile.TarInfo.frombuf(block[:BLOCK], ENCODING, ERRORS)
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def rewritten(info: tarfile.TarInfo, name: str, size: int) -> bytes:
    """Return header blocks for a member that has become `size` bytes under `name`, all else as in `info`."""
    changed = tarfile.TarInfo(name)
    changed.size = size
    for field in ("mode", "uid", "gid", "uname", "gname", "mtime"):
        setattr(changed, field, getattr(info, field))
    kept = {key: text for key, text in info.pax_headers.items() if key not in _REWRITTEN}
    changed.pax_headers = kept
    return changed.tobuf(tarfile.PAX_FORMAT, ENCODING, ERRORS)


def written(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an archive of whole members, with the end mark and its padding."""
    total = 0
    for piece in pieces:
        total += len(piece)
        yield piece
    end = 2 * BLOCK
    yield bytes(end + -(total + end) % tarfile.RECORDSIZE)


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join short pieces into ones worth sending; pass long ones on."""
    held = bytearray()
    for piece in pieces:
        if held and len(held) + len(piece) > _PIECE_SIZE:
            yield bytes(held)
            held.clear()
        if len(piece) >= _PIECE_SIZE:
            yield piece
        else:
            held += piece
    if held:
        yield bytes(held)


def padded(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the data of a member of `size` bytes, filled up to whole blocks."""
    yield from chunks
    yield bytes(_padding(size))


def shown(name: str) -> str:
    """Put a member's name into a message."""
    text = _text(name)
    return repr(text if len(text) <= 200 else text[:199] + "…")  # noqa: PLR2004 (a message's length)


def _text(name: str) -> str:
    return name.encode(ENCODING, ERRORS).decode(ENCODING, "replace")


def _next(source: Source, shared: dict[str, str]) -> Member | None:
    """Read on to the next member's data; `shared` is what global headers said so far."""
    head: list[bytes] = []
    own: dict[str, str] = {}
    begun = source.offset
    while source.offset - begun <= _HEAD_SIZE_MAX:
        block = source.take(BLOCK)
        if not head and source.offset and (not block or block == _END):
            source.marked = block == _END
            return None
        info = _parsed(block, source.offset - len(block))
        head.append(block)
        if info.type in _LOCAL:
            payload = _payload(source, info, head)
            own = _records(payload) | own
        elif info.type in _LONG:
            own[_LONG[info.type]] = _payload(source, info, head).partition(b"\0")[0].decode(ENCODING, ERRORS)
        elif info.type == tarfile.XGLTYPE and len(head) == 1:
            shared.update(_records(_payload(source, info, head)))
            return Member(info, b"".join(head), 0, source.offset, False, source, 0)
        else:
            return _member(source, info, head, own, shared)
    raise Reject("the archive has a member with more headers than any tar writes")


def _parsed(block: bytes, offset: int) -> tarfile.TarInfo:
    if len(block) < BLOCK:
        raise Reject("the archive is cut short in a header" if offset else "not a tar archive: it is too short")
    try:
        info = _usual(block) or tarfile.TarInfo.frombuf(block, ENCODING, ERRORS)
    except (tarfile.HeaderError, ValueError) as error:
        what = f"damaged header at byte {offset} of the archive" if offset else "not a tar archive"
        raise Reject(f"{what}: {error}") from error
    if info.size < 0:
        raise Reject(f"damaged header at byte {offset} of the archive: a negative size")
    return info


def _usual(block: bytes) -> tarfile.TarInfo | None:
    """Do as `TarInfo.frombuf` does for a file's header as nearly all are, in a third of the time; None for others."""
    if (
        block[156:157] != tarfile.REGTYPE
        or block[257:262] != b"ustar"
        or block[329:345] not in _NO_DEVICE
        or block[345]
    ):
        return None
    try:
        mode, uid, gid, size, mtime, checksum = [int(block[field].partition(b"\0")[0] or b"0", 8) for field in _NUMBERS]
    except ValueError:
        return None
    if checksum != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        return None
    info = tarfile.TarInfo(_field(block, 0, 100))
    info.mode, info.uid, info.gid, info.size, info.mtime, info.chksum = mode, uid, gid, size, mtime, checksum
    info.linkname, info.uname, info.gname = _field(block, 157, 257), _field(block, 265, 297), _field(block, 297, 329)
    return info


def _field(block: bytes, start: int, stop: int) -> str:
    return block[start:stop].partition(b"\0")[0].decode(ENCODING, ERRORS)


def _payload(source: Source, info: tarfile.TarInfo, head: list[bytes]) -> bytes:
    """Read what an extension header announces, and keep it with the member's other blocks."""
    if info.size > _EXTENSION_SIZE_MAX:
        raise Reject(f"the archive has a header of {info.size} bytes, more than any tar writes")
    stored = source.take(info.size + _padding(info.size))
    if len(stored) < info.size:
        raise Reject("the archive is cut short in a header")
    head.append(stored)
    return stored[: info.size]


def _member(
    source: Source, info: tarfile.TarInfo, head: list[bytes], own: dict[str, str], shared: Mapping[str, str]
) -> Member:
    info.pax_headers = own
    said = {**shared, **own}
    sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in said)
    stored = _number(said["size"]) if "size" in said else info.size
    info.name = said.get("GNU.sparse.name", said.get("path", info.name))
    if info.isdir():
        info.name = info.name.rstrip("/")
    info.linkname = said.get("linkpath", info.linkname)
    info.size = stored
    if sparse:
        info.size = _real_size(source, info, head, said)
    # The types that tarfile knows without data have none, whatever their size says: links, folders, devices.
    has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
    size = stored if has_data else 0
    return Member(info, b"".join(head), size, source.offset, sparse, source, size)


def _real_size(source: Source, info: tarfile.TarInfo, head: list[bytes], said: Mapping[str, str]) -> int:
    """Return a sparse file's size with its holes, having read the rest of an old GNU header."""
    if info.type != tarfile.GNUTYPE_SPARSE:
        return _number(said.get("GNU.sparse.realsize", said.get("GNU.sparse.size", str(info.size))))
    digits = head[-1][_REAL_SIZE].strip(b" \0")
    more = head[-1][_IS_EXTENDED["header"]]
    begun = source.offset
    while more:
        block = source.take(BLOCK)
        if len(block) < BLOCK or source.offset - begun > _HEAD_SIZE_MAX:
            raise Reject("the archive is damaged in the header of a sparse file")
        head.append(block)
        more = block[_IS_EXTENDED["extension"]]
    return int(digits, 8) if digits and all(digit in b"01234567" for digit in digits) else info.size


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):  # noqa: PLR2004 (digits of 2**64)
        raise Reject(f"the archive has a pax header with {text[:40]!r} for a size")
    return int(text)


def _records(payload: bytes) -> dict[str, str]:
    """Read a pax header: records of `LENGTH KEY=VALUE NEWLINE`."""
    found: dict[str, str] = {}
    at = 0
    while at < len(payload) and payload[at]:
        digits, blank, _ = payload[at : at + 20].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record = payload[at + len(digits) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(payload) or not record.endswith(b"\n") or not equals or not _is_text(key):
            raise Reject("the archive has a damaged pax header")
        found[key.decode(ENCODING)] = value.decode(ENCODING, ERRORS)
        at += length
    return found


def _is_text(key: bytes) -> bool:
    try:
        return bool(key.decode(ENCODING))
    except UnicodeDecodeError:
        return False


def _padding(size: int) -> int:
    return -size % BLOCK
