"""What of this machine's Python an image needs: the interpreter, its library, the shared libraries below, a shell."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from entries import LEFT_OUT, Entry, a_file, a_tree

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
BASE = Path(sys.base_prefix).resolve()
LIBRARY = BASE / "lib" / VERSION
# Where a Python that is in no environment looks for packages: not one place, Debian has its own.
_SCHEME = "posix_local" if "posix_local" in sysconfig.get_scheme_names() else "posix_prefix"
PACKAGES = sysconfig.get_path("purelib", _SCHEME, {"base": str(BASE), "installed_base": str(BASE)})
_TOOLS = ("sh", "cat", "env", "ls", "sleep", "true")
_FOLDERS = ("/app", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/usr/bin", "/usr/lib", "/usr/lib64")
_LIBRARY_PATH = re.compile(r"(?:=> |^\t)(/\S+) \(0x", re.MULTILINE)


def python() -> Iterator[Entry]:
    """A root file system with this Python as /usr/bin/python3 and nothing else that could be called a system."""
    here = Path(__file__).parent
    yield Entry("/tmp", 0o1777)  # noqa: S108 - the image's
    for folder in _FOLDERS:
        yield Entry(folder)
    for name in ("bin", "lib", "lib64"):
        yield Entry(f"/{name}", link=f"usr/{name}")
    yield a_file(here / "passwd", "/etc/passwd")
    yield a_file(here / "group", "/etc/group")
    executable = BASE / "bin" / VERSION
    yield a_file(executable, str(executable))
    for name in _TOOLS:
        yield a_file(Path("/usr/bin", name).resolve(), f"/usr/bin/{name}")
    yield from a_tree(LIBRARY, str(LIBRARY), {*LEFT_OUT, "site-packages", "dist-packages"})
    for name in ("python", "python3"):
        yield Entry(f"/usr/bin/{name}", link=str(executable))


def packages(folder: Path) -> Iterator[Entry]:
    """The site-packages of an environment that was made with this Python."""
    return a_tree(folder, PACKAGES, LEFT_OUT)


def libraries(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The shared libraries that programs and extensions among `entries` ask for, but those that are among them."""
    loaded = [each.source for each in entries if ".so" in Path(each.source).name or "/bin/" in each.source]
    if not loaded:
        return
    said = subprocess.run(["ldd", *loaded], capture_output=True, text=True, check=False).stdout
    own = {each.source for each in entries}
    for name in sorted(set(_LIBRARY_PATH.findall(said)) - own):
        yield a_file(Path(name).resolve(), f"/usr{name}" if name.startswith("/lib") else name)
