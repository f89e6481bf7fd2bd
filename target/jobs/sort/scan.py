"""Finds what a sort's sources hold: members by their headers, and the values to sort by; nothing else is read.

It knows nothing of how records are kept or ordered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from transom.plugins.builtin.tar_stream import ENCODING, ERRORS, WINDOW_SIZE, Member, Seekable, members_of
from transom.plugins.contract import Reject
from transom.target.errors import SourceChanged, TargetError
from transom.target.jobs.site import Site
from transom.target.jobs.sort.archive import stored_size
from transom.target.jobs.sort.opened import Opened, open_source
from transom.target.jobs.sort.sources import Kind, SourceObject, record_of
from transom.target.jobs.sort.spill import MemberRow
from transom.target.jobs.sort.unpacked import Unpacked
from transom.target.jobs.sort.values import VALUE_SIZE_MAX, Value, ValueType, parse

_FAR_WINDOW_SIZE = 1024 * 1024
MEMBERS_MAX = 100_000  # of one archive in one result: what a result takes of memory is bounded


@dataclass(frozen=True, slots=True)
class Resume:
    """Where the scan of a long archive goes on, and what its global headers said so far."""

    offset: int
    shared: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Sources to scan, near the target `place`; with `resume` the rest of one."""

    sources: tuple[SourceObject, ...]
    place: str = ""
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is in one source, as it was when it was read: members in their order, and records that can't be sorted.

    With a `code` it couldn't be read to its end, for the reason in `message`, and counts for nothing.
    """

    source: SourceObject
    members: list[MemberRow] = field(default_factory=list)
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    resume: Resume | None = None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ScannedAll:
    """What a task found, source by source."""

    found: tuple[Scanned, ...]
    worn_out: bool = False


@dataclass(frozen=True, slots=True)
class ScanWork:
    """Scans; `content` is the extension of the members with the values, "" for none.

    Compressed archives are unpacked in `unpacked`, a folder that all workers share; None has each task do it alone.
    """

    content: str
    values: ValueType
    unpacked: Path | None
    members_max: int = MEMBERS_MAX

    def __call__(self, site: Site, task: ScanTask, /) -> ScannedAll:
        """Scan sources; what is wrong with one is said in its place."""
        with unpacking(self.unpacked, site) as unpacked:
            return ScannedAll(tuple([self._scanned(site, each, task.resume, unpacked) for each in task.sources]))

    def _scanned(self, site: Site, source: SourceObject, resume: Resume | None, unpacked: Unpacked) -> Scanned:
        try:
            opened = site.wait(open_source(site.store, source, unpacked))
            try:
                if resume is not None and opened.source.etag != source.etag:  # two versions' members would be mixed
                    raise SourceChanged(f"{source} was changed while it was scanned; sort again.")
                return self._read(opened, resume)
            finally:
                opened.close()
        except Reject as error:
            return Scanned(source, code="DamagedArchive", message=str(error))
        except TargetError as error:
            return Scanned(source, code=type(error).__name__, message=error.message)
        except OSError as error:
            return Scanned(source, code=type(error).__name__, message=str(error))

    def _read(self, opened: Opened, resume: Resume | None) -> Scanned:
        found = Scanned(opened.source)
        if opened.source.kind is not Kind.PLAIN:
            return self._read_archive(opened, resume or Resume(0, {}))
        name, size = opened.source.name, opened.size
        record, extension = record_of(name)
        value = None
        if self.content and extension == self.content:
            value = self._value(record, opened.read_at(0, VALUE_SIZE_MAX + 1), found)
        found.members.append((record, name, 0, size, stored_size(name, size), value))
        return found

    def _read_archive(self, opened: Opened, resume: Resume) -> Scanned:
        window_size = WINDOW_SIZE if opened.near else _FAR_WINDOW_SIZE
        source, shared = Seekable(opened.read_at, opened.size, resume.offset, window_size), dict(resume.shared)
        found: list[MemberRow] = []
        scanned = Scanned(opened.source, found)
        try:
            for member in members_of(source, shared):
                self._take(member, scanned)
                if len(found) >= self.members_max:
                    member.leave()
                    return Scanned(opened.source, found, scanned.problems, Resume(source.offset, shared))
            _check_end(source, opened)
        except Reject as error:
            raise Reject(f"{error} (at byte {source.offset} of {opened.size})") from error
        return scanned

    def _take(self, member: Member, scanned: Scanned) -> None:
        if member.is_global or member.info.isdir():
            return
        name = member.name.encode(ENCODING, ERRORS)
        record, extension = record_of(name)
        if not member.is_file:
            scanned.problems.append((record, f"{member.text!r} is a {member.kind}: only files can be sorted"))
            return
        value = None
        if self.content and extension == self.content:
            long = member.size > VALUE_SIZE_MAX
            value = self._value(record, bytes(VALUE_SIZE_MAX + 1) if long else b"".join(member.chunks()), scanned)
        scanned.members.append((record, name, member.offset, member.size, stored_size(name, member.size), value))

    def _value(self, record: bytes, data: bytes, scanned: Scanned) -> Value | None:
        try:
            return parse(data, self.values)
        except ValueError as error:
            scanned.problems.append((record, f"its .{self.content} is {error}"))
            return None


def _check_end(source: Seekable, opened: Opened) -> None:
    """Refuse an archive that may have lost its last members, and one with members that no reader would see."""
    if not source.marked:
        raise Reject("the archive has no end mark: it was cut short")
    begun = source.offset
    if any(any(piece) for piece in source.pieces(opened.size - begun)):
        raise Reject(f"the archive goes on after its end mark at byte {begun}: its last members would be lost")


@contextmanager
def unpacking(folder: Path | None, site: Site) -> Iterator[Unpacked]:
    """Unpack in a folder that stays, or in one of the task's own."""
    if folder is not None:
        yield Unpacked(folder)
        return
    with tempfile.TemporaryDirectory(prefix="sort-", dir=site.scratch) as own:
        yield Unpacked(Path(own))
