"""What a Ray worker process does with a task of a job: its side of `transom.target.jobs.engines.ray`.

It doesn't import Ray. A node without Transom, or with another version of it, can't do tasks.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from dataclasses import dataclass
from typing import Any

import transom
from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.jobs.engines.executor import RAISED, RESULT, dump_error
from transom.target.jobs.site import Site

_NICE = 10


@dataclass(slots=True)
class _Held:
    """What this process keeps from task to task. Ray gives a worker to one job only, and calls it from one thread."""

    opener: bytes = b""
    site: Site | None = None
    work_data: bytes = b""
    work: Any = None
    worn_out: bool = False

    def site_of(self, opener: bytes) -> Site:
        if self.site is None or self.opener != opener:
            if self.site is not None:
                self.site.close()
                self.site = None
            os.nice(max(0, _NICE - os.nice(0)))  # Ray's workers yield already, unless it was told otherwise
            self.site = pickle.loads(opener)()  # noqa: S301 - of the job's runner
            self.opener = opener
        return self.site

    def work_of(self, data: bytes) -> Any:
        if self.work_data != data:
            self.work = pickle.loads(data)  # noqa: S301 - of the job's runner
            self.work_data = data
        return self.work


_held = _Held()


def perform(versions: tuple[str, str], shared: tuple[bytes, bytes], task: bytes) -> tuple[bytes, bytes]:
    """Perform a task; return the kind and the pickle of what came of it, as a local executor would send them.

    `shared` are the pickled opener and work. A worker that is worn out ends instead, and Ray gives the task to another.
    """
    if _held.worn_out:
        os._exit(0)
    try:
        check_versions(versions)
        opener, work = shared
        site = _held.site_of(opener)
        result = _held.work_of(work)(site, pickle.loads(task))  # noqa: S301 - of the job's runner
        answer = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # the runner raises it: it decides what becomes of the job
        return RAISED, dump_error(error)
    _held.worn_out = result.worn_out
    return RESULT, answer


def our_versions() -> tuple[str, str]:
    """What runner and worker must have in common: Transom's version, and Python's without the patch level."""
    return transom.__version__, f"{sys.version_info.major}.{sys.version_info.minor}"


def check_versions(versions: tuple[str, str]) -> None:
    """Refuse tasks of a runner of another version: what is pickled there can't be trusted to be understood here."""
    ours = our_versions()
    if versions != ours:
        raise EngineUnavailable(
            f"the Ray node {socket.gethostname()} has Transom {ours[0]} on Python {ours[1]}, the server has "
            f"{versions[0]} on {versions[1]}: install the server's versions on every node"
        )
