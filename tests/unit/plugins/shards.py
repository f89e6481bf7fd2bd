"""Makes tar archives in memory for the tests of `tar` and `tar2tf`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any


def tarred(files: Mapping[str, bytes], *, format: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """An archive of `files` as Python's tarfile writes it; `fields` are set on every member."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format, errors="surrogateescape") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def untarred(data: bytes) -> dict[str, bytes | None]:
    """Name and data of every member, in order; None for one without data."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        return {
            member.name: archive.extractfile(member).read() if member.isfile() else None  # type: ignore[union-attr]
            for member in archive
        }


def infos(data: bytes) -> list[tarfile.TarInfo]:
    """Every member's header, in order."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        return archive.getmembers()
