from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.target.etl.metrics import BUCKETS_S, numbers, quantile

COUNTING = """
import sys
import threading
from pathlib import Path
from transom.target.etl.metrics import EtlMetrics, share
share(Path(sys.argv[1]))
metrics = EtlMetrics()
for n in range(10):
    metrics.ran("thumb", bytes_in=100, bytes_out=7, seconds=0.01)
metrics.ran("other", bytes_in=1, bytes_out=0, seconds=0.0)
metrics.failed("thumb", "EtlFailed")
metrics.failed("thumb", "EtlTimeout")
metrics.failed("thumb", "EtlTimeout")
"""


def count(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNTING, str(folder)], check=True, timeout=60)


def test_numbers_of_processes_that_are_gone_add_up(tmp_path: Path) -> None:
    for _ in range(2):
        count(tmp_path)
    found = numbers(tmp_path)
    thumb = found["thumb"]
    assert (thumb.objects, thumb.bytes_in, thumb.bytes_out) == (20, 2000, 140)
    assert thumb.errors == {"EtlFailed": 2, "EtlTimeout": 4}
    assert thumb.p50_s == pytest.approx(0.01, rel=0.4)
    assert thumb.p99_s == pytest.approx(0.01, rel=0.4)
    assert found["other"].objects == 2


def test_an_etl_that_only_failed_has_no_percentiles(tmp_path: Path) -> None:
    script = COUNTING.replace("metrics.ran", "(lambda *_, **__: None)")
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    thumb = numbers(tmp_path)["thumb"]
    assert thumb.objects == 0
    assert thumb.p50_s is None


def test_a_file_that_is_being_made_is_waited_for(tmp_path: Path) -> None:
    count(tmp_path)
    made = next(tmp_path.glob("counter_*.db"))
    unfinished = tmp_path / "counter_1.db"
    unfinished.touch()
    threading.Timer(0.015, lambda: unfinished.write_bytes(made.read_bytes())).start()
    assert numbers(tmp_path)["thumb"].bytes_in == 2000


def test_a_process_s_files_have_their_room_from_the_start(tmp_path: Path) -> None:
    count(tmp_path)
    for path in tmp_path.glob("*.db"):
        found = path.stat()
        assert found.st_blocks * 512 >= found.st_size == 1024 * 1024
    assert numbers(tmp_path)["thumb"].objects == 10


def test_nothing_counted_is_no_numbers(tmp_path: Path) -> None:
    assert numbers(tmp_path) == {}


@given(st.lists(st.floats(0.0001, 250.0), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    bounds = (*BUCKETS_S, float("inf"))
    cumulative = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    found = quantile(cumulative, q)
    true = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    upper = next(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    assert found is not None
    assert lower <= found <= upper


def test_a_quantile_of_nothing_is_none() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0, float("inf"): 0.0}, 0.5) is None


def test_beyond_the_last_bound_the_last_is_what_is_known() -> None:
    assert quantile({1.0: 0.0, float("inf"): 3.0}, 0.5) == 1.0


IN_TURN = """
import sys
from pathlib import Path
from transom.target.etl.metrics import EtlMetrics, share_in_turn
for _ in range(2):
    share_in_turn(Path(sys.argv[1]))
metrics = EtlMetrics()
print("counts", flush=True)
for line in sys.stdin:
    metrics.ran("thumb", bytes_in=int(line), bytes_out=7, seconds=0.01)
    print("counted", flush=True)
"""


REFUSED = """
import errno, os, sys
from pathlib import Path
from transom.target.etl import metrics
from transom.target.etl.locks import ByteLocks

def refuse(locks, n):
    if sys.argv[2] == "all taken":
        return False
    raise OSError(errno.ENOLCK, "No locks available")

ByteLocks.try_lock = refuse
metrics.share_in_turn(Path(sys.argv[1]))
made = metrics.EtlMetrics()
made.ran("thumb", bytes_in=1, bytes_out=2, seconds=0.01)
counted = made.registry.get_sample_value("transom_etl_bytes_in_total", {"etl": "thumb"})
print(os.environ.get(metrics.MULTIPROCESS), counted)
"""


@pytest.mark.parametrize("how", ["all taken", "no locks"])
def test_where_locks_are_refused_a_process_counts_for_itself(tmp_path: Path, how: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path), how], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "None 1.0\n"


class InTurn:
    """A process that counts in turn with others, until it is killed."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TURN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "counts\n"

    def count(self, size: int) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "counted\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_processes_that_come_and_go_take_over_each_other_s_files(tmp_path: Path) -> None:
    """Two at once have files of their own; a third counts on where one was killed, and nothing is lost."""
    first, second = InTurn(tmp_path), InTurn(tmp_path)
    first.count(100)
    second.count(1000)
    first.kill()
    third = InTurn(tmp_path)
    third.count(10_000)
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
    for each in (second, third):
        each.kill()
    thumb = numbers(tmp_path)["thumb"]
    assert (thumb.objects, thumb.bytes_in, thumb.bytes_out) == (3, 11_100, 21)
