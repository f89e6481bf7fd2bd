"""`transom transform`, `inspect`, `sort` and `job` against a real server: what they print, and how they end."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ACCESS, SECRET, RunningServer

Cli = Callable[..., subprocess.CompletedProcess[str]]
UNDER_WAY = re.compile(r"transforming +\S+ +[1-9]\d*/100  \d+ B  [\d.]+/s  [\d.]+ B/s  0 errors  \d:\d\d left")
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, kept_servers: Callable[[str, Callable[[], RunningServer]], RunningServer]
) -> RunningServer:
    return kept_servers("embedded", lambda: RunningServer(tmp_path_factory.mktemp("embedded"), ()))


@pytest.fixture
def environment(running: RunningServer) -> dict[str, str]:
    keys = {"TRANSOM_ACCESS_KEY": ACCESS, "TRANSOM_SECRET_KEY": SECRET, "TRANSOM_ENDPOINT": running.endpoint}
    return {"PATH": str(Path(sys.executable).parent), "HOME": "/nonexistent", "TERM": "xterm", **keys}


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Run `transom`; it must end as `status` says."""

    def run(*args: str, status: int = 0, text: str = "") -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            ["transom", *args], env=environment, input=text, capture_output=True, text=True, timeout=90, check=False
        )
        assert ended.returncode == status, (args, ended)
        assert "Traceback" not in ended.stderr
        return ended

    return run


@pytest.fixture
def source(running: RunningServer, name: Callable[[str], str]) -> Iterator[str]:
    """A bucket with a hundred objects."""
    bucket, s3 = name("cli-source"), running.client()
    s3.create_bucket(Bucket=bucket)
    for i in range(100):
        s3.put_object(Bucket=bucket, Key=f"n-{i:03}.txt", Body=b"%d\n" % i)
    yield bucket
    s3.close()


def keys(running: RunningServer, bucket: str) -> list[str]:
    return [each["Key"] for each in running.client().list_objects_v2(Bucket=bucket).get("Contents", ())]


def last(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def test_a_bucket_from_the_first_run_to_the_last(
    cli: Cli, running: RunningServer, source: str, name: Callable[[str], str]
) -> None:
    made = name("cli-made")
    job = ("transform", f"s3://{source}", f"s3://{made}", "--etl", "upper>>append", "--args", '[null, "!"]')
    dry = cli(*job, "--dry-run")
    assert re.fullmatch(r"job \w+ done: 100 would be written; 290 B in, 390 B out; 0:\d\d\n", dry.stdout)
    first = cli(*job, "--concurrency", "4")
    assert re.match(r"job \w+ done: 100 written; 290 B in, 390 B out; ", first.stdout)
    told = first.stderr.splitlines()
    assert all(line.startswith("job ") for line in told)
    assert re.search(r"done  100/100  290 B  .*0 errors$", told[-1])
    ended = cli(*job, "--json")
    assert ended.stderr == ""
    counts = {"written": 0, "unchanged": 100, "skipped": 0, "failed": 0, "deleted": 0}
    result = last(ended.stdout)
    assert {key: result[key] for key in counts} == counts
    assert (result["state"], result["message"], len(result)) == ("done", "", 10)
    assert len(keys(running, made)) == 100


def test_twenty_of_a_hundred_by_list_and_by_template(
    cli: Cli, running: RunningServer, source: str, name: Callable[[str], str]
) -> None:
    wanted = [f"n-{i:03}.txt" for i in range(0, 100, 5)]
    for ask, text in ((["--keys", "-"], "\n".join(wanted)), (["--template", "n-{000..099..5}.txt"], "")):
        made = name("cli-twenty")
        ended = cli("transform", f"s3://{source}", f"s3://{made}", "--etl", "echo", *ask, "--json", text=text)
        assert last(ended.stdout)["written"] == 20
        assert keys(running, made) == wanted


def test_every_error_is_listed_and_the_exit_code_tells(cli: Cli, source: str, name: Callable[[str], str]) -> None:
    ended = cli("transform", f"s3://{source}", f"s3://{name('cli-bad')}", "--etl", "fail", status=1)
    (job,) = re.findall(r"^job (\w+) done: 0 written, 100 failed; ", ended.stdout)
    assert ended.stderr.splitlines()[-1] == f"transom: 100 failed: see transom job errors {job}"
    listed = [json.loads(line) for line in cli("job", "errors", job, "--json").stdout.splitlines()]
    assert [each["key"] for each in listed] == [f"n-{i:03}.txt" for i in range(100)]
    assert {(each["stage"], each["code"]) for each in listed} == {("fail", "EtlFailed")}
    assert "as asked" in cli("job", "errors", job).stdout
    retried = cli("transform", "--retry-errors", job, "--json", status=1)
    assert (last(retried.stdout)["job"], last(retried.stdout)["failed"]) == (job, 100)
    assert f"{job} " in cli("job", "ls").stdout
    cli("job", "rm", job)
    assert "NotFound" in cli("job", "show", job, status=1).stderr


def test_an_inspection_and_a_sort(cli: Cli, running: RunningServer, source: str, name: Callable[[str], str]) -> None:
    assert ": 100 good; 290 B in" in cli("inspect", f"s3://{source}").stdout
    made = name("cli-shards")
    ask = (
        "sort",
        f"s3://{source}",
        f"s3://{made}",
        "--descending",
        "--shard-records",
        "40",
        "--shards",
        "s-{0..9}.tar",
    )
    assert last(cli(*ask, "--json").stdout)["written"] == 3
    s3, members = running.client(), []
    for key in keys(running, made):
        with tarfile.open(fileobj=io.BytesIO(s3.get_object(Bucket=made, Key=key)["Body"].read())) as tar:
            members += tar.getnames()
    assert members == [f"n-{i:03}.txt" for i in reversed(range(100))]


@pytest.mark.parametrize(
    ("args", "status", "reason"),
    [
        (["transform", "s3://{source}", "s3://{source}", "--etl", "upper"], 2, "force"),
        (["transform", "s3://{source}", "s3://x-y-z", "--etl", "nope"], 2, "no ETL named 'nope'"),
        (["transform", "s3://no-such", "s3://x-y-z", "--etl", "upper"], 1, "NoSuchBucket"),
        (
            ["transform", "s3://{source}", "s3://x-y-z", "--etl", "upper", "--where", "siez > 1"],
            2,
            "there is no 'siez'",
        ),
        (["transform", "s3://{source}", "s3://x-y-z", "--etl", "upper", "--limit", "0"], 2, "--limit"),
        (["transform", "{source}", "s3://x-y-z", "--etl", "upper"], 2, "is not s3://BUCKET"),
        (["sort", "s3://{source}", "s3://x-y-z"], 2, "say how large shards are"),
        (["job", "show", "nothing"], 1, "there is no job 'nothing'"),
    ],
)
def test_refusals_are_said_at_once(
    cli: Cli, running: RunningServer, source: str, args: list[str], status: int, reason: str
) -> None:
    ended = cli(*(each.format(source=source) for each in args), status=status)
    assert reason in ended.stderr
    assert ended.stdout == ""
    assert "x-y-z" not in [each["Name"] for each in running.client().list_buckets()["Buckets"]]


def test_a_terminal_shows_the_job_and_an_interrupt_leaves_it_running(
    cli: Cli, environment: dict[str, str], source: str, name: Callable[[str], str]
) -> None:
    main, terminal = pty.openpty()
    command = ["transom", "transform", f"s3://{source}", f"s3://{name('cli-seen')}", "--etl", "sleep"]
    process = subprocess.Popen(
        [*command, "--args", "0.2", "--concurrency", "2"],
        env={**environment, "COLUMNS": "100", "LINES": "24"},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = ""
    try:
        while not UNDER_WAY.search(seen):
            seen += CURSOR.sub("", os.read(main, 65536).decode())  # the test's own time limit bounds it
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        seen += CURSOR.sub("", os.read(main, 65536).decode())
    finally:
        process.kill()
        process.communicate()
        os.close(main)
    assert (process.returncode, out) == (130, b"")
    (job,) = re.findall(r"transom: job (\w+) goes on without you", seen)
    record = cli("job", "show", job).stdout
    assert re.search(r"^state +running$", record, re.MULTILINE)
    cli("job", "abort", job)
    assert f"job {job} aborted" in cli("job", "wait", job, status=1).stdout
