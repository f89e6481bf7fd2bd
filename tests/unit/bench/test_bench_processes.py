"""How peers are started, watched and stopped."""

import os
import subprocess
import sys

import pytest

from transom.bench.peers.process import PeerError, family, free_port, listens, pinned, server

CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
FOREVER = "import time; print('up', flush=True); time.sleep(60)"


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_server_and_its_children_are_stopped(tmp_path):
    argv = [sys.executable, "-c", f"{CHILD}\n{FOREVER}"]
    with server("parent", argv, lambda text: "up" in text, log=tmp_path / "log") as pid:
        pids = family(pid)
        assert len(pids) == 2
        assert all(alive(each) for each in pids)
    assert not any(alive(each) for each in pids)


def test_server_that_ends_shows_the_end_of_its_log(tmp_path):
    argv = [sys.executable, "-c", "import sys; sys.exit('no such option')"]
    with (
        pytest.raises(PeerError, match=r"status 1\s+no such option"),
        server("broken", argv, lambda _: False, log=tmp_path / "log"),
    ):
        pass


def test_program_that_is_not_installed_is_said(tmp_path):
    with (
        pytest.raises(PeerError, match="not installed"),
        server("absent", ["/no/such/program"], lambda _: True, log=tmp_path / "log"),
    ):
        pass


def test_children_are_pinned_and_the_parent_is_as_before():
    before = os.sched_getaffinity(0)
    core = min(before)
    with pinned([core]):
        code = "import os; print(os.sched_getaffinity(0))"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str({core})
    assert os.sched_getaffinity(0) == before


def test_free_port_has_no_listener():
    assert not listens(free_port())
