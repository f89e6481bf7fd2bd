"""Makes a container image of this machine's own Python and given files, as an archive that an engine loads.

No registry, no network, no Dockerfile, no engine: for tests, and for machines that can't pull. The same machine and
the same files give the same image; when nothing changed since the archive was written, nothing is done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

# run with -I, which leaves the script's own folder out
sys.path.insert(0, str(Path(__file__).parent))

from archive import write_archive
from entries import Entry, a_file, a_tree, placed
from interpreter import PACKAGES, libraries, packages, python

_SKIPPED = ("__pycache__",)
_ADD = "a file or folder, and its path in the image; a path without a leading / is below Python's packages"


def main() -> int:
    """Build what the command line asks for; print the image's id."""
    asked = _arguments()
    base = placed(python())
    extra = placed(_extra(asked), (entry.path for entry in base))
    config: dict[str, Any] = {
        "User": asked.user,
        "Entrypoint": asked.entrypoint,
        "Cmd": asked.cmd,
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *asked.env],
        "WorkingDir": "/",
    }
    stamp = Path(f"{asked.output}.stamp")
    inputs = _inputs(asked.tag, config, [*base, *extra])
    if asked.output.exists() and stamp.exists() and stamp.read_text().startswith(inputs):
        print(stamp.read_text().split()[1])
        return 0
    stamp.unlink(missing_ok=True)
    base = placed([*base, *libraries(base)])
    extra = placed([*extra, *libraries(extra)], (entry.path for entry in base))
    image = write_archive(asked.output, asked.tag, [base, extra] if extra else [base], config)
    stamp.write_text(f"{inputs} {image}\n")
    print(image)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/images/build", description=__doc__)
    add = parser.add_argument
    add("--tag", required=True, help="the image's name, such as localhost/worker:1")
    add("--output", required=True, type=Path, metavar="FILE", help="the archive to write")
    add("--add", action="append", default=[], metavar="SOURCE:PATH", help=_ADD)
    add("--packages", type=Path, metavar="ENVIRONMENT", help="a venv of this same Python, for its packages")
    add("--entrypoint", type=json.loads, default=["/usr/bin/python3"], metavar="JSON", help="default: the interpreter")
    add(
        "--cmd",
        type=json.loads,
        default=[],
        metavar="JSON",
        help="the entry point's arguments by default",
    )
    add("--env", action="append", default=[], metavar="NAME=VALUE")
    add("--user", default="65534:65534", metavar="UID:GID", help="default: 65534:65534, nobody")
    return parser.parse_args()


def _extra(asked: argparse.Namespace) -> list[Entry]:
    found: list[Entry] = []
    if asked.packages:
        (folder,) = asked.packages.glob(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
        found += packages(folder)
    for each in asked.add:
        source, _, path = each.rpartition(":")
        path = str(PurePosixPath(PACKAGES, path))
        found += [a_file(Path(source), path)] if Path(source).is_file() else a_tree(Path(source), path, _SKIPPED)
    return found


def _inputs(tag: str, config: dict[str, Any], entries: list[Entry]) -> str:
    """What the image is made of, in short: names, sizes and times, as of a Makefile, and this program itself."""
    digest = hashlib.sha256(json.dumps([tag, config], sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for entry in entries:
        info = Path(entry.source).stat() if entry.source else None
        seen = [info.st_size, info.st_mtime_ns] if info else []
        digest.update(json.dumps([asdict(entry), seen]).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
