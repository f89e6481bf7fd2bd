"""Tells, from inside of a container, what it may do: one JSON object on standard output."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def refused(act: Callable[[], object]) -> str:
    """The name of the error that an act ends with; "" if it may be done."""
    try:
        act()
    except OSError as error:
        return type(error).__name__ if error.errno is None else os.strerror(error.errno)
    return ""


def call_out() -> None:
    with socket.create_connection(("192.0.2.1", 80), timeout=2):
        pass


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


process = status()
told = {
    "uid": os.getuid(),
    "capabilities": int(process["CapEff"], 16) | int(process["CapPrm"], 16) | int(process["CapBnd"], 16),
    "no_new_privileges": process["NoNewPrivs"],
    "seccomp": process["Seccomp"],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "calling_out": refused(call_out),
    "writing_root": refused(lambda: Path("/here").write_text("x")),
    "writing_app": refused(lambda: Path("/app/here").write_text("x")),
    "writing_tmp": refused(lambda: Path("/tmp/here").write_text("x")),
    "writing_code": refused(lambda: Path("/code/here").write_text("x")),
    "code": Path("/code/given.txt").read_text(),
    "home": str(Path.home()),
    "greeting": os.environ["GREETING"],
}
json.dump(told, sys.stdout)
