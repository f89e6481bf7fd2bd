"""The image that programs of this machine run in: nothing but links and names, for all else is shown to a container.

It is made here, in memory, and never pulled. It asks no engine.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transom.target.etl.sandbox import system

_NAME = "localhost/transom-root"
_EPOCH = "1970-01-01T00:00:00Z"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_FILES = {"etc/passwd": system.PASSWD, "etc/group": system.GROUP, "etc/nsswitch.conf": system.NSSWITCH}


@dataclass(frozen=True, slots=True)
class Root:
    """An image: its name, which differs with what is in it, and the archive that engines load."""

    reference: str
    archive: bytes


@lru_cache(maxsize=1)
def root() -> Root:
    """The image for this machine: the same bytes whenever it is made."""
    layer = _layer()
    config = _config(hashlib.sha256(layer).hexdigest())
    image = hashlib.sha256(config).hexdigest()
    reference = f"{_NAME}:{image[:16]}"
    manifest = [{"Config": f"{image}.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {f"{image}.json": config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return Root(reference, _tar(files, {}))


def _layer() -> bytes:
    links = {str(path).strip("/"): str(path.readlink()) for path in system.FOLDERS if path.is_symlink()}
    return _tar({name: text.encode() for name, text in _FILES.items()}, links)


def _config(layer: str) -> bytes:
    image: dict[str, Any] = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": _EPOCH,
        "config": {"User": f"{system.USER}:{system.USER}"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": _EPOCH, "created_by": "transom"}],
    }
    return json.dumps(image, sort_keys=True).encode()


def _tar(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    """An archive of files and symbolic links, with the folders above them."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            tar.addfile(_info(folder, tarfile.DIRTYPE, 0o755))
        for name, data in files.items():
            info = _info(name, tarfile.REGTYPE, 0o644)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = _info(name, tarfile.SYMTYPE, 0o777)
            info.linkname = target
            tar.addfile(info)
    return written.getvalue()


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    return info
