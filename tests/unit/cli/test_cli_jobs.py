"""`transom transform`, `inspect`, `sort` and `job` against a stand-in server: what they send, show and end with."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stand_in import StandIn
from typer.testing import CliRunner, Result

from transom.cli import job_progress
from transom.cli.job_progress import Meter, human_size, human_time
from transom.cli.main import app
from transom.client.records import Job

COMMAND = [sys.executable, "-c", "from transom.cli.main import main; main()"]
PLAIN = ("transform", "s3://src/a/", "s3://dst", "--etl", "upper")
RUNNING = {"state": "running", "phase": "transforming", "total": 4000, "written": 1000, "bytes_in": 5_000_000}
DONE = {"state": "done", "total": 4, "written": 3, "unchanged": 1, "bytes_in": 2500, "bytes_out": 1200, "ended_s": 8.0}
FINAL = {
    "job": "1",
    "state": "done",
    "written": 3,
    "unchanged": 1,
    "skipped": 0,
    "failed": 0,
    "deleted": 0,
    "bytes_in": 2500,
    "bytes_out": 1200,
    "message": "",
}
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(*args: str, code: int = 0, text: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(args), input=text)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def last_line(result: Result) -> str:
    line = result.stderr.splitlines()[-1]
    assert line.startswith("transom: ")
    return line.removeprefix("transom: ")


@pytest.mark.parametrize("command", ["transform", "inspect", "sort"])
def test_the_help_says_how_many_objects_at_once_there_can_be(command: str) -> None:
    assert "Without Ray 64 at the most" in " ".join(
        CURSOR.sub("", run(command, "--help").stdout).replace("│", " ").split()
    )


# --- what is sent -----------------------------------------------------------------------------


def test_every_option_of_a_transform_reaches_the_order(server: StandIn) -> None:
    args = ["--etl", "a>>b", "--args", '[null, {"n": 1}]', "--ext", "jpg=webp", "--ext", "png=webp"]
    args += ["--prefix", "x", "--prepend", "new/", "--match", "*.jpg", "--where", "size > 1", "--where-etl", "c"]
    args += ["--where-args", "2", "--num-workers", "3", "--dry-run", "--sync", "--force", "--fail-fast"]
    args += ["--timeout", "2h", "--object-timeout", "1.5", "--engine", "ray"]
    run("transform", "s3://src/a/", "s3://dst/b", *args)
    assert server.orders == [
        {
            "kind": "transform",
            "source": "s3://src/a/",
            "destination": "s3://dst/b",
            "etl": "a>>b",
            "args": [None, {"n": 1}],
            "ext": {"jpg": "webp", "png": "webp"},
            "prefix": "x",
            "prepend": "new/",
            "match": "*.jpg",
            "where": "size > 1",
            "where_etl": "c",
            "where_args": 2,
            "concurrency": 3,
            "dry_run": True,
            "sync": True,
            "force": True,
            "continue_on_error": False,
            "timeout_s": 7200.0,
            "object_timeout_s": 1.5,
            "engine": "ray",
        }
    ]
    run(*PLAIN, "--concurrency", "16", "--limit", "5")
    assert (server.orders[1]["concurrency"], server.orders[1]["limit"]) == (16, 5)
    assert "args" not in server.orders[1]


def test_keys_of_a_file_of_stdin_and_of_a_template(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("keys.txt").write_text("a b.jpg\r\n\nsub/ü.jpg\n")
    run(*PLAIN, "--keys", "keys.txt")
    run(*PLAIN, "--keys", "-", text="one\ntwo\n")
    run(*PLAIN, "--keys", "shard-{0001..0999..2}.tar")
    run(*PLAIN, "--template", "s-{1..3}")
    Path("odd{1}").write_text("k\n")
    run(*PLAIN, "--keys", "odd{1}")  # a file of that name comes before a template
    chosen = [{name: order.get(name) for name in ("keys", "template")} for order in server.orders]
    assert chosen == [
        {"keys": ["a b.jpg", "sub/ü.jpg"], "template": None},
        {"keys": ["one", "two"], "template": None},
        {"keys": None, "template": "shard-{0001..0999..2}.tar"},
        {"keys": None, "template": "s-{1..3}"},
        {"keys": ["k"], "template": None},
    ]


def test_an_inspection_has_no_destination(server: StandIn) -> None:
    server.states = [{"state": "done", "unchanged": 2, "failed": 1}]
    shown = run("inspect", "s3://src/k", code=1)
    assert shown.stdout == "job 1 done: 2 good, 1 failed; 0 B in, 0 B out; 0:00\n"
    server.states = [{"state": "done", "failed": 0}]
    run("inspect", "s3://src", "--etl", "a", "--args", "1", "--fail-fast")
    assert server.orders[0] | {"kind": "inspect", "source": "s3://src/k"} == server.orders[0]
    assert all("destination" not in order for order in server.orders)
    assert (server.orders[1]["etl"], server.orders[1]["args"]) == ("a", 1)


def test_a_sort_says_by_what_and_into_what(server: StandIn) -> None:
    run("sort", "s3://src", "s3://dst", "--shard-size", "256MiB")
    run("sort", "s3://src", "s3://dst", "--content", "cls", "--values", "int", "--descending", "--shard-count", "4")
    args = ["--by", "shuffle", "--seed", "7", "--shard-records", "100", "--shards", "s-{00..99}.tar"]
    run("sort", "s3://src", "s3://dst", *args)
    by_key, by_content, shuffled = (order["sorting"] for order in server.orders)
    assert {order["kind"] for order in server.orders} == {"sort"}
    assert (by_key["by"], by_key["shard_size"], "shards" in by_key) == ("key", 256 * 1024 * 1024, False)
    told = {name: by_content[name] for name in ("by", "content", "values", "descending", "shard_count")}
    assert told == {"by": "content", "content": "cls", "values": "int", "descending": True, "shard_count": 4}
    told = {name: shuffled[name] for name in ("by", "seed", "shard_records", "shards")}
    assert told == {"by": "shuffle", "seed": 7, "shard_records": 100, "shards": "s-{00..99}.tar"}


@pytest.mark.parametrize(
    ("text", "wanted"), [("4096", 4096), ("1 KB", 1000), ("1.5MiB", 1_572_864), ("2GB", 2 * 10**9)]
)
def test_sizes_of_shards(server: StandIn, text: str, wanted: int) -> None:
    run("sort", "s3://src", "s3://dst", "--shard-size", text)
    assert server.orders[0]["sorting"]["shard_size"] == wanted


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["transform", "s3://a", "s3://b"], "say what to transform: SOURCE DESTINATION --etl PIPELINE"),
        (["transform", "s3://a", "--etl", "x"], "say what to transform"),
        (["transform", "s3://a", "--retry-errors", "1"], "--retry-errors runs a job as it was asked for"),
        (
            ["transform", "--retry-errors", "1", "--num-workers", "2", "--sync"],
            "--retry-errors runs a job as it was asked for: leave out concurrency, sync",
        ),
        ([*PLAIN, "--args", "{"], "--args: not JSON"),
        ([*PLAIN, "--where-args", "{"], "--where-args: not JSON"),
        ([*PLAIN, "--keys", "nothing.txt"], "--keys: can't read nothing.txt: No such file or directory"),
        ([*PLAIN, "--keys", "a", "--template", "b"], "give --keys or --template, not both"),
        ([*PLAIN, "--timeout", "soon"], "--timeout: 'soon' is no duration"),
        ([*PLAIN, "--ext", "jpg"], "--ext: 'jpg' is not OLD=NEW"),
        (["inspect", "s3://a", "--args", "1"], "--args needs --etl"),
        (["sort", "s3://a", "s3://b", "--shard-size", "big"], "--shard-size: 'big' is no size such as 256MiB"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(server: StandIn, args: list[str], reason: str) -> None:
    result = run(*args, code=2)
    assert last_line(result).startswith(reason)
    assert len(result.stderr.splitlines()) == 1
    assert not server.orders


# --- how it ends ------------------------------------------------------------------------------


def test_a_job_that_went_well_ends_with_its_counts(server: StandIn) -> None:
    server.states = [RUNNING, DONE]
    result = run(*PLAIN)
    assert result.stdout == "job 1 done: 3 written, 1 up to date already; 2.5 kB in, 1.2 kB out; 0:07\n"
    lines = result.stderr.splitlines()
    assert lines[0].startswith("job 1: transforming  1,000/4,000  5.0 MB  0 errors")
    assert lines[-1].startswith("job 1: done  4/4  2.5 kB")


def test_a_dry_run_says_what_would_be(server: StandIn) -> None:
    server.states = [DONE | {"deleted": 2}]
    assert "done: 3 would be written, 1 up to date already, 2 would be deleted;" in run(*PLAIN, "--dry-run").stdout


def test_json_ends_with_the_result_on_stdout_and_says_nothing_else(server: StandIn) -> None:
    server.states = [RUNNING, DONE]
    result = run(*PLAIN, "--json")
    assert (json.loads(result.stdout), result.stderr) == (FINAL, "")


def test_json_tells_of_long_jobs_a_line_at_a_time(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_progress, "LINE_EVERY_S", 0.0)
    server.states = [RUNNING, DONE]
    first, last = map(json.loads, run(*PLAIN, "--json").stdout.splitlines())
    assert (first["state"], first["phase"], first["total"], first["written"]) == ("running", "transforming", 4000, 1000)
    assert last == FINAL


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ({"state": "done", "written": 6, "failed": 3}, "3 failed: see transom job errors 1"),
        ({"state": "failed", "message": "no room"}, "job 1 failed: no room"),
        ({"state": "aborted", "failed": 1}, "job 1 aborted; 1 failed: see transom job errors 1"),
    ],
)
def test_what_failed_is_said_and_the_exit_code_is_1(server: StandIn, ending: dict[str, Any], reason: str) -> None:
    server.states = [ending]
    assert last_line(run(*PLAIN, code=1)) == reason
    machine = run(*PLAIN, "--json", code=1)
    assert json.loads(machine.stdout)["failed"] == ending.get("failed", 0)


def test_a_refused_order_is_one_line(server: StandIn) -> None:
    refused = run("transform", "s3://a", "s3://b", "--etl", "nope", code=2)
    assert refused.stderr == "transom: InvalidArgument: no ETL named 'nope'\n"


def test_a_detached_job_is_named_and_left(server: StandIn) -> None:
    assert run(*PLAIN, "--detach").stdout == "1\n"
    told = json.loads(run(*PLAIN, "--detach", "--json").stdout)
    assert (told["job"], told["state"]) == ("1", "queued")


def test_a_server_that_is_away_for_a_moment_is_waited_for(server: StandIn) -> None:
    server.failing_looks = [503, 502]
    server.states = [DONE]
    assert "3 written" in run(*PLAIN).stdout
    server.failing_looks = [500]
    told = last_line(run(*PLAIN, code=1))
    assert told == "ServiceUnavailable: away; what became of job 1 is told by: transom job wait 1"


def test_errors_are_tried_again(server: StandIn) -> None:
    run(*PLAIN, "--detach")
    server.states = [DONE]
    assert "3 written" in run("transform", "--retry-errors", "1").stdout
    assert server.told == ["retry POST 1"]
    assert last_line(run("transform", "--retry-errors", "2", code=1)) == "NotFound: there is no job '2'"


# --- job --------------------------------------------------------------------------------------


def test_jobs_are_listed_and_shown(server: StandIn) -> None:
    assert run("job", "ls").stderr == "no jobs\n"
    run(*PLAIN, "--detach")
    server.job |= {"total": 9, "failed": 2, "keys": 3, "runs": 1}
    table = run("job", "ls").stdout
    columns = ["JOB", "KIND", "STATE", "DONE", "FAILED", "SOURCE", "DESTINATION", "ETL", "CREATED"]
    assert table.split()[:9] == columns
    assert re.search(r"1 +transform +queued +2/9 +2 +s3://src/a/ +s3://dst +upper +1970-01-01 00:00:01", table)
    assert json.loads(run("job", "ls", "--json").stdout)[0]["id"] == "1"
    server.states = [DONE]
    record = run("job", "show", "1").stdout
    for line in (r"state +done", r"written +3", r"bytes in +2.5 kB", r"keys +3", r"ended +1970-01-01 00:00:08"):
        assert re.search(rf"^{line}$", record, re.MULTILINE), line
    assert json.loads(run("job", "show", "1", "--json").stdout)["bytes_in"] == 2500


def test_jobs_are_listed_page_by_page_or_the_newest(server: StandIn) -> None:
    run(*PLAIN, "--detach")
    server.earlier_jobs = [{**server.job, "id": f"before-{i}"} for i in range(2400)]
    every = ["1", *(job["id"] for job in server.earlier_jobs)]
    assert [job["id"] for job in json.loads(run("job", "ls", "--json").stdout)] == every
    for limit in (1, 1000, 1001, 2401, 5000):
        some = json.loads(run("job", "ls", "--json", "--limit", str(limit)).stdout)
        assert [job["id"] for job in some] == every[:limit]
    run("job", "ls", "--limit", "0", code=2)


def test_jobs_are_aborted_waited_for_and_removed(server: StandIn) -> None:
    run(*PLAIN, "--detach")
    run("job", "abort", "1")
    server.states = [RUNNING, {"state": "aborted", "ended_s": 2.0}]
    assert last_line(run("job", "wait", "1", code=1)) == "job 1 aborted"
    run("job", "rm", "1", "1")
    assert server.told == ["abort POST 1", "DELETE 1", "DELETE 1"]
    assert last_line(run("job", "rm", "2", code=1)) == "NotFound: there is no job '2'"


def test_all_errors_are_listed_page_by_page(server: StandIn) -> None:
    run(*PLAIN, "--detach")
    server.job_errors = [
        {"key": f"k{i}", "stage": "upper", "code": "EtlFailed", "message": "no\nway"} for i in range(12_000)
    ]
    lines = run("job", "errors", "1", "--json").stdout.splitlines()
    assert [json.loads(line)["key"] for line in lines] == [f"k{i}" for i in range(12_000)]
    assert json.loads(lines[0]) == server.job_errors[0]
    table = run("job", "errors", "1").stdout
    assert table.split()[:4] == ["KEY", "STAGE", "CODE", "MESSAGE"]
    assert re.search(r"^ k11999 +upper +EtlFailed +no way", table, re.MULTILINE)
    server.job_errors = []
    assert run("job", "errors", "1").stderr == "no errors\n"


# --- the display ------------------------------------------------------------------------------


def test_a_meter_tells_rates_of_the_last_seconds_and_what_is_left() -> None:
    now = iter([0.0, 2.0, 20.0, 22.0, 23.0])
    meter = Meter(lambda: next(now))

    def line(done: int, size: int, failed: int = 0) -> str:
        return meter.line(Job("1", "running", total=1000, written=done - failed, failed=failed, bytes_in=size))

    assert line(0, 0) == "0/1,000  0 B  0 errors"
    assert line(100, 2_000_000) == "100/1,000  2.0 MB  50.0/s  1.0 MB/s  0 errors  0:18 left"
    assert line(280, 3_000_000, 1) == "280/1,000  3.0 MB  10.0/s  55.6 kB/s  1 error  1:12 left"
    # what was before the last ten seconds counts no more
    assert line(300, 3_000_000, 2) == "300/1,000  3.0 MB  10.0/s  0 B/s  2 errors  1:10 left"
    assert line(298, 3_000_000) == "298/1,000  3.0 MB  0 errors"  # what failed is done again


@pytest.mark.parametrize(("seconds", "wanted"), [(0.2, "0:00"), (7, "0:07"), (3599.4, "59:59"), (3723, "1:02:03")])
def test_durations_for_people(seconds: float, wanted: str) -> None:
    assert human_time(seconds) == wanted


@pytest.mark.parametrize(("count", "wanted"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e18, "2500.0 PB")])
def test_sizes_for_people(count: float, wanted: str) -> None:
    assert human_size(count) == wanted


def on_terminal(*args: str, term: str = "xterm") -> tuple[subprocess.Popen[bytes], int]:
    """Start a command with a terminal of 100 columns for its stderr; stdout is a pipe."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": term, "COLUMNS": "100", "LINES": "24"}
    process = subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=terminal, env=environment)
    os.close(terminal)
    return process, main


def read_until(main: int, wanted: str | None, within_s: float = 30.0) -> str:
    """What the terminal was sent until `wanted` is in it, or till the other side has closed it."""
    seen, give_up = b"", time.monotonic() + within_s
    while wanted is None or wanted not in CURSOR.sub("", seen.decode(errors="replace")):
        ready, _, _ = select.select([main], [], [], max(0.0, give_up - time.monotonic()))
        assert ready, seen
        try:
            piece = os.read(main, 65536)
        except OSError:  # EIO: nobody has it open any more
            piece = b""
        if not piece:
            assert wanted is None, seen
            break
        seen += piece
    return seen.decode()


def test_a_terminal_gets_a_live_display_that_goes_away(server: StandIn) -> None:
    server.states = [{"state": "running", "phase": "listing"}, *[RUNNING] * 4, RUNNING | {"written": 3000, "failed": 2}]
    process, main = on_terminal(*PLAIN)
    try:
        seen = read_until(main, "2 errors")
        server.states = [DONE]
        seen += read_until(main, None)
        assert process.stdout is not None
        assert process.stdout.read() == (
            b"job 1 done: 3 written, 1 up to date already, 2 failed; 2.5 kB in, 1.2 kB out; 0:07\n"
        )
        assert process.wait(10) == 1
    finally:
        process.kill()
        process.communicate()
        os.close(main)
    shown = CURSOR.sub("", seen)
    assert re.search(r"transforming +\S+ +1,000/4,000  5\.0 MB  ", shown)
    assert re.search(r"3,002/4,000  5\.0 MB  [\d.,]+/s  \S+ \w?B/s  2 errors  \d+:\d\d left", shown)
    assert "\x1b[?25l" in seen and "\x1b[?25h" in seen  # the cursor is given back
    assert shown.rstrip().splitlines()[-1].strip() == "transom: 2 failed: see transom job errors 1"


def test_a_dumb_terminal_gets_lines(server: StandIn) -> None:
    server.states = [RUNNING, DONE]
    process, main = on_terminal(*PLAIN, term="dumb")
    with process:
        seen = read_until(main, None)
        assert process.wait(10) == 0
    os.close(main)
    assert "\x1b" not in seen
    assert seen.splitlines()[0].startswith("job 1: transforming  1,000/4,000")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupted_wait_leaves_the_job_alone_and_says_so(server: StandIn, *, as_json: bool) -> None:
    server.states = [RUNNING]
    command = [*COMMAND, *PLAIN, *(["--json"] if as_json else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        give_up = time.monotonic() + 30
        while server.job.get("state") != "running":
            assert time.monotonic() < give_up
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "transom: job 1 goes on without you; watch it with: transom job wait 1, stop it with: transom job abort 1"
    )
    assert server.told == []
    if as_json:
        assert json.loads(out)["state"] in ("queued", "running")  # as it was last seen
    else:
        assert out == ""
