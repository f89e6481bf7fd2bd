"""Counting, merging over workers, and the JSON."""

import pytest
from rich.console import Console

from transom.bench.report import Tally, WorkerResult, merge, tables, to_json


def tally(latencies_ms, *, moved=1000, errors=(), corrupt=0):
    made = Tally()
    for latency in latencies_ms:
        made.succeeded(10.0, 10.0 + latency / 2000, 10.0 + latency / 1000, moved)
    made.errors.update(errors)
    made.corrupt = corrupt
    return made


def result(started_s=0.0, finished_s=2.0, **tallies):
    return WorkerResult(started_s, finished_s, {name: made.packed() for name, made in tallies.items()})


def test_percentiles_are_those_of_all_workers_together():
    report = merge([result(get=tally(range(1, 501))), result(get=tally(range(501, 1001)))])
    latency = to_json(report, {})["ops"]["get"]["latency_ms"]
    assert latency["p50"] == pytest.approx(500, rel=0.002)
    assert latency["p90"] == pytest.approx(900, rel=0.002)
    assert latency["p99"] == pytest.approx(990, rel=0.002)
    assert latency["p99.9"] == pytest.approx(999, rel=0.002)
    assert latency["max"] == pytest.approx(1000, rel=0.002)
    assert to_json(report, {})["ops"]["get"]["ttfb_ms"]["p50"] == pytest.approx(250, rel=0.002)


def test_throughput_counts_from_the_first_start_to_the_last_end():
    report = merge(
        [result(5.0, 8.0, get=tally([1] * 60, moved=2**20)), result(6.0, 9.0, get=tally([1] * 60, moved=2**20))]
    )
    assert report.elapsed_s == 4.0
    assert report.ops_per_s() == 30.0
    assert report.mib_per_s() == 30.0


def test_operations_are_apart_and_errors_counted_by_code():
    report = merge(
        [
            result(get=tally([1], errors={"NoSuchKey": 2}), put=tally([2, 2])),
            result(get=tally([1], errors={"NoSuchKey": 1, "Timeout": 4})),
        ]
    )
    data = to_json(report, {"mix": {"get": 1}})
    assert data["schema"] == "transom.bench/1"
    assert data["mix"] == {"get": 1}
    assert (data["requests"], data["failed"]) == (4, 7)
    assert data["ops"]["get"]["errors"] == {"NoSuchKey": 3, "Timeout": 4}
    assert data["ops"]["put"]["errors"] == {}


@pytest.mark.parametrize(
    ("report", "good"),
    [
        (merge([result(get=tally([1]))]), True),
        (merge([result(get=tally([1], errors={"SlowDown": 9}))]), True),
        (merge([result(get=tally([], errors={"SlowDown": 9}))]), False),
        (merge([result(get=tally([1], corrupt=1))]), False),
        (merge([result(put=tally([1]))], unread=1), False),
        (merge([result()]), False),
    ],
)
def test_run_is_good_if_something_succeeded_and_nothing_was_corrupt(report, good):
    assert report.good is good


def test_samples_fold_without_changing_the_figures():
    made = tally(range(1, 101))
    made.latency.fold(at=0)
    for latency in range(101, 201):
        made.succeeded(0.0, 0.0, latency / 1000, 0)
    assert merge([result(get=made)]).ops["get"].latency.get_total_count() == 200


def test_tables_show_operations_and_errors():
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        for table in tables(merge([result(get=tally([1, 2], errors={"AccessDenied": 3}), put=tally([]))])):
            console.print(table)
    text = console.export_text()
    assert "get" in text
    assert "AccessDenied" in text
