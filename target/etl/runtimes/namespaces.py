"""Whether this process may enter the network namespace of a container, and whether a process id is a container's.

How to connect from in there is `transports/sockets`'s.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

_CLONE_NEWNET = 0x40000000
NEEDS_NETWORK = (
    "a worker without a network that listens on TCP can only be reached by a server with CAP_SYS_ADMIN; let the worker "
    "listen on the unix socket that TRANSOM_SOCKET names, or say 'network: true' in the spec"
)


def can_enter_namespaces() -> bool:
    """Whether threads of this process may enter network namespaces: tried on its own, which changes nothing."""
    entered: list[bool] = []

    def enter() -> None:  # in a thread of its own, for the namespace is a thread's
        try:
            own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            entered.append(ctypes.CDLL(None).setns(own, _CLONE_NEWNET) == 0)
        finally:
            os.close(own)

    thread = threading.Thread(target=enter, name="enter-namespace")
    thread.start()
    thread.join()
    return any(entered)


def is_container(pid: int, container: str) -> bool:
    """Whether process `pid`, as we count them, is in the container of that id.

    An engine counts processes of its own machine: to a server that runs in a container itself, or beside an engine in
    a virtual machine, the number is somebody else's, or nobody's.
    """
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
