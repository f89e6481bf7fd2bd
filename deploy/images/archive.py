"""Writes the archive that `docker load` and `podman load` take: layers, a configuration, a manifest; ever the same."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from entries import Entry

_EPOCH = "1970-01-01T00:00:00Z"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_BUFFER = 1024 * 1024


def write_archive(output: Path, tag: str, layers: Sequence[Sequence[Entry]], config: dict[str, Any]) -> str:
    """Write an image of these layers, the lowest first; return its id. The file appears when it is whole."""
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        whole = Path(folder, "archive")
        with tarfile.open(whole, "w", format=tarfile.GNU_FORMAT) as archive:
            digests = [_add_layer(archive, Path(folder, "layer"), layer) for layer in layers]
            described = _described(config, digests)
            image = hashlib.sha256(described).hexdigest()
            _add(archive, f"{image}.json", described)
            names = [f"{digest}/layer.tar" for digest in digests]
            manifest = [{"Config": f"{image}.json", "RepoTags": [tag], "Layers": names}]
            _add(archive, "manifest.json", json.dumps(manifest).encode())
        whole.replace(output)
    return image


def _described(config: dict[str, Any], digests: Sequence[str]) -> bytes:
    image = {
        "architecture": _MACHINES[platform.machine()],
        "os": "linux",
        "created": _EPOCH,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _EPOCH, "created_by": "transom deploy/images/build"} for _ in digests],
    }
    return json.dumps(image, sort_keys=True).encode()


def _add_layer(archive: tarfile.TarFile, scratch: Path, layer: Sequence[Entry]) -> str:
    with tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in layer:
            _add_entry(tar, entry)
    with scratch.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        _add_from(archive, f"{digest}/layer.tar", file, scratch.stat().st_size)
    return digest


def _add_entry(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path.strip("/"))
    info.mode, info.mtime = entry.mode, entry.mtime
    if entry.source:
        with Path(entry.source).open("rb") as file:
            info.size = Path(entry.source).stat().st_size
            tar.addfile(info, file)
        return
    info.type, info.linkname = (tarfile.SYMTYPE, entry.link) if entry.link else (tarfile.DIRTYPE, "")
    tar.addfile(info)


def _add(archive: tarfile.TarFile, name: str, body: bytes) -> None:
    _add_from(archive, name, io.BytesIO(body), len(body))


def _add_from(archive: tarfile.TarFile, name: str, file: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    archive.addfile(info, file)
