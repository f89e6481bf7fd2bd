from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from stand_in import StandIn
from typer.testing import CliRunner, Result

from transom import __version__
from transom.cli.main import app

LOWER, UPPER = b"meow\n" * 1000, b"MEOW\n" * 1000
CAT = "s3://photos/dir/cat one.txt"


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, result.output
    if code:
        assert "Traceback" not in result.output
    return result


def one_line(result: Result) -> str:
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("transom: ")
    return lines[0].removeprefix("transom: ")


# --- etl, view, plugins -----------------------------------------------------------------------


def test_etl_commands_reach_the_server(server: StandIn) -> None:
    run(
        "etl", "init", "--plugin", "image", "--name", "thumb", "--args", '{"width": 10}', "--no-cache", "--timeout", "2"
    )
    assert server.etls["thumb"] == {
        "name": "thumb",
        "plugin": "image",
        "args": {"width": 10},
        "cache": False,
        "deterministic": None,
        "concurrency": None,
        "timeout_s": 2.0,
        "state": "running",
        "kind": "explicit",
        "revision": 1,
        "owner": "root",
    }
    run("etl", "init", "--plugin", "md5", "--not-deterministic")
    assert server.etls["md5"]["deterministic"] is False
    run("etl", "stop", "thumb")
    assert server.etls["thumb"]["state"] == "stopped"
    run("etl", "start", "thumb")
    assert server.etls["thumb"]["state"] == "running"
    run("etl", "rm", "thumb")
    assert list(server.etls) == ["md5"]


def test_etl_show(server: StandIn) -> None:
    assert run("etl", "show").stderr == "no ETLs\n"
    run("etl", "init", "--plugin", "image", "--name", "thumb", "--args", json.dumps({"style": "[red]" * 40}))
    table = run("etl", "show").stdout
    columns = ["NAME", "RUNTIME", "KIND", "STATE", "REVISION", "WORKERS", "OBJECTS", "ERRORS", "ARGS", "MESSAGE"]
    assert table.split()[:10] == columns
    assert "plugin image" in table
    assert "[red]" * 40 in table  # neither cut to a terminal's width nor read as markup
    assert "state          running" in run("etl", "show", "thumb").stdout
    assert json.loads(run("etl", "show", "--json").stdout)[0]["name"] == "thumb"
    assert json.loads(run("etl", "show", "thumb", "--json").stdout)["revision"] == 1


def test_etls_of_a_spec(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text("x = 1\n")
    (tmp_path / "needs.txt").write_text("regex\n")
    spec = tmp_path / "spec.yaml"
    text = "name: a\nruntime:\n  code: shout.py\n  requirements: needs.txt\n---\nname: b\nruntime: {command: cat}\n"
    spec.write_text(text)
    shown = run(
        "etl", "init", "-f", str(spec), "--communication", "ws://", "--init-timeout", "5m", "--obj-timeout", "2s"
    )
    files = {"shout.py": "x = 1\n", "needs.txt": "regex\n"}
    query = {"communication": "ws://", "init_timeout": "5m", "obj_timeout": "2s", "wait": "true"}
    assert server.posted == [(query, text, files)]
    assert "1 running" in shown.stdout
    run("etl", "update", "--spec", str(spec), "--no-wait")
    assert server.posted[1][0] == {"wait": "false"}
    run("etl", "init", "-f", str(spec), "--name", "c")
    assert server.posted[2][0] == {"name": "c", "wait": "true"}
    piped = CliRunner().invoke(app, ["etl", "init", "-f", "-"], input="name: d\nruntime: {image: x}\n")
    assert (piped.exit_code, server.posted[3][1]) == (0, "name: d\nruntime: {image: x}\n")
    record = run("etl", "show", "d").stdout
    assert "runtime        image" in record
    assert "TARGET" in record
    spec.write_text("name: a\nruntime: {code: missing.py}\n")
    message = one_line(run("etl", "init", "-f", str(spec), code=1))
    assert message == f"can't read {tmp_path / 'missing.py'}: No such file or directory"
    server.failing = "No module named 'torch'"
    failed = one_line(run("etl", "init", "--image", "x", code=1))
    assert failed == "EtlStartFailed: ETL 'x' failed to start: No module named 'torch'"


@pytest.mark.parametrize(
    ("args", "spec"),
    [
        (["--command", "tr a-z 'A-Z '"], {"name": "tr", "runtime": {"command": ["tr", "a-z", "A-Z "]}}),
        (["--command", "/bin/cat"], {"name": "cat", "runtime": {"command": ["/bin/cat"]}}),
        (
            ["--image", "gh.io/a/Echo_v2:1@sha256:0"],
            {"name": "echo_v2", "runtime": {"image": "gh.io/a/Echo_v2:1@sha256:0"}},
        ),
        (["--url", "http://h:1", "--name", "x"], {"name": "x", "runtime": {"url": "http://h:1"}}),
        (
            ["--image", "a", "--env", "A=b=c", "--env", "B=1", "--network"],
            {"name": "a", "runtime": {"image": "a", "env": {"A": "b=c", "B": "1"}}, "network": True},
        ),
        (
            ["--image", "a", "--no-cache", "--concurrency", "2"],
            {"name": "a", "runtime": {"image": "a"}, "cache": False, "concurrency": 2},
        ),
        (
            ["--image", "a", "--args", "7", "--not-deterministic"],
            {"name": "a", "runtime": {"image": "a"}, "args": 7, "deterministic": False},
        ),
    ],
)
def test_short_forms_build_a_spec(server: StandIn, args: list[str], spec: dict[str, object]) -> None:
    run("etl", "init", *args)
    ((query, text, files),) = server.posted
    assert (query, json.loads(text), files) == ({"wait": "true"} | ({"name": "x"} if "x" in args else {}), spec, {})


def test_code_is_sent_with_what_it_needs(server: StandIn, tmp_path: Path) -> None:
    code, deps = tmp_path / "My Shout.py", tmp_path / "requirements.txt"
    code.write_text("class Shout: ...\n")
    deps.write_text("# ours\nregex\n")
    run("etl", "init", "--code", str(code), "--deps", str(deps), "--class", "Shout", "--obj-timeout", "5s")
    ((query, text, _),) = server.posted
    assert query == {"obj_timeout": "5s", "wait": "true"}
    assert json.loads(text) == {
        "name": "my-shout",
        "runtime": {"code": "class Shout: ...\n", "requirements": "# ours\nregex\n", "entry": "Shout"},
    }


def test_several_etls_are_started_and_stopped_and_removed(server: StandIn) -> None:
    for name in ("a", "b", "c"):
        run("etl", "init", "--image", name)
    server.etls["md5"] = {"name": "md5", "plugin": "md5", "kind": "implicit", "state": "running"}
    assert run("etl", "stop", "a", "b").stdout.count("stopped") == 2
    assert [etl["state"] for etl in server.etls.values()] == ["stopped", "stopped", "running", "running"]
    run("etl", "stop", "--all")
    assert [etl["state"] for etl in server.etls.values()] == ["stopped"] * 3 + ["running"]
    run("etl", "start", "--all")
    assert json.loads(run("etl", "start", "a", "b", "--json").stdout)[1]["name"] == "b"
    assert "state          running" in run("etl", "restart", "a").stdout
    run("etl", "rm", "a", "b")
    run("etl", "rm", "--all")
    assert list(server.etls) == ["md5"]


def test_what_an_etl_has_to_say(server: StandIn) -> None:
    run("etl", "init", "--image", "a")
    assert run("etl", "logs", "a").stdout == "one\ntwo\n"
    server.log = {"t-0": "one", "t-1": "two\n"}
    assert run("etl", "logs", "a").stdout == "==> t-0 <==\none\n==> t-1 <==\ntwo\n"
    assert run("etl", "logs", "a", "--target", "t-1").stdout == "two\n"
    table = run("etl", "errors", "a").stdout
    assert table.split()[:5] == ["TIME", "OBJECT", "CODE", "STAGE", "MESSAGE"]
    assert "1970-01-01 00:00:01" in table
    assert "b/k" in table
    assert "no way" in table
    assert len(json.loads(run("etl", "errors", "a", "--limit", "1", "--json").stdout)) == 1
    assert run("etl", "metrics", "a").stdout.splitlines() == ["objects  3", "workers"]
    assert json.loads(run("etl", "metrics", "a", "--json").stdout)["objects"] == 3
    unwell = run("etl", "health", "a", code=1)
    assert "message  a: failed" in unwell.stdout
    assert one_line(unwell) == "ETL 'a' is degraded"


def test_whoever_runs_a_service_can_be_told_what_it_needs(server: StandIn) -> None:
    shown = run("etl", "init", "--url", "http://there", "--name", "far").stdout
    assert re.search(r"^secret +s3cret$", shown, re.MULTILINE)
    assert re.search(r"^AIS_TARGET_URL +http://here/v1$", shown, re.MULTILINE)
    run("etl", "init", "--image", "a")
    assert "secret" not in run("etl", "show", "a").stdout


def test_logs_are_followed_until_told_to_stop(server: StandIn) -> None:
    run("etl", "init", "--image", "a")
    command = [sys.executable, "-c", "from transom.cli.main import main; main()", "etl", "logs", "a", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"one\n", b"two\n"]
        server.log["local"] += "thr"
        assert process.stdout.read(3) == b"thr"  # half a line is shown as it comes
        server.log["local"] += "ee\n"
        assert process.stdout.readline() == b"ee\n"
        process.terminate()
        process.stdout.close()


def test_view_commands_reach_the_server(server: StandIn) -> None:
    made = run(
        "view", "create", "thumbs", "--of", "photos", "--etl", "a>>b", "--args", "[null, 1]", "--ext", "jpg=webp"
    )
    assert "ext     jpg=webp" in made.stdout
    assert server.views["thumbs"] == {
        "name": "thumbs",
        "bucket": "photos",
        "etl": "a>>b",
        "args": [None, 1],
        "ext": {"jpg": "webp"},
        "sizes": "materialise",
        "owner": "root",
    }
    run("view", "create", "exact", "--of", "photos", "--etl", "a", "--sizes", "source")
    assert server.views["exact"]["sizes"] == "source"
    assert "thumbs" in run("view", "show").stdout
    assert json.loads(run("view", "show", "thumbs", "--json").stdout)["ext"] == {"jpg": "webp"}
    assert len(json.loads(run("view", "show", "--json").stdout)) == 2
    run("view", "rm", "thumbs")
    assert list(server.views) == ["exact"]


def test_plugins(server: StandIn) -> None:
    table = run("plugins").stdout
    assert "Resize [bold] images." in table
    assert "not available: no module named whisper" in table
    one = run("plugins", "image").stdout
    assert "integer|null" in one
    assert "webp|png" in one
    assert json.loads(run("plugins", "--json").stdout)["missing"] == {"speech": "no module named whisper"}
    assert json.loads(run("plugins", "md5", "--json").stdout)["name"] == "md5"
    assert one_line(run("plugins", "speech", code=1)) == "no transformer named 'speech': no module named whisper"


# --- get --------------------------------------------------------------------------------------


def test_get_to_stdout(server: StandIn) -> None:
    assert run("get", CAT).stdout_bytes == LOWER
    assert run("get", CAT, "--etl", "upper", "-o", "-").stdout_bytes == UPPER
    assert run("get", CAT, "--etl", "upper>>args", "--args", "[null, 7]").stdout_bytes == b"[null, 7]"


def test_get_to_a_file_or_a_folder(server: StandIn, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    run("get", CAT, "--etl", "upper", "-o", str(old))
    assert old.read_bytes() == UPPER
    run("get", CAT, "-o", str(tmp_path))
    assert (tmp_path / "cat one.txt").read_bytes() == LOWER
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat one.txt", "old"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "cat one.txt").stat().st_mode) == 0o666 & ~umask


def test_get_to_a_device_writes_to_it(server: StandIn) -> None:
    run("get", CAT, "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_body_cut_short_leaves_the_old_file(server: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "cat"
    path.write_text("old")
    server.raw_answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nmeow"
    result = run("get", CAT, "-o", str(path), code=1)
    assert "4 read" in one_line(result) or "4 bytes" in one_line(result)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_chunked_body_without_its_end_is_an_error(server: StandIn, tmp_path: Path) -> None:
    server.raw_answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmeow\r\n"
    one_line(run("get", CAT, "-o", str(tmp_path / "cat"), code=1))
    assert not list(tmp_path.iterdir())


def test_get_says_what_the_server_says(server: StandIn) -> None:
    assert one_line(run("get", "s3://photos/none", code=1)) == "NoSuchKey: The specified key does not exist."
    assert one_line(run("get", CAT, "--etl", "nonsense", code=1)) == "InvalidArgument: no ETL named 'nonsense'"


def test_get_names_the_file_it_cannot_write(server: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "folder"
    assert one_line(run("get", CAT, "-o", str(path), code=1)) == f"can't write {path}: No such file or directory"


def test_a_reader_that_leaves_ends_get_quietly(server: StandIn) -> None:
    server.objects["/photos/big.txt"] = b"x" * 8_000_000
    command = [sys.executable, "-c", "from transom.cli.main import main; main()", "get", "s3://photos/big.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == b"x" * 10
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def on_terminal(*args: str) -> tuple[int, bytes]:
    """Exit code and what was shown, on a pseudo-terminal."""
    main, terminal = pty.openpty()
    command = [sys.executable, "-c", "from transom.cli.main import main; main()", *args]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, stdin=subprocess.DEVNULL) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(main, 65536):
                shown += data
        except OSError:  # how Linux says that the last writer has closed a terminal
            pass
        os.close(main)
        return process.wait(), shown


def test_text_is_shown_on_a_terminal_but_bytes_are_not(server: StandIn, tmp_path: Path) -> None:
    server.objects |= {"/photos/note.txt": b"a note", "/photos/cat.jpg": b"\xff\xd8\x00"}
    code, shown = on_terminal("get", "s3://photos/note.txt")
    assert (code, b"a note" in shown) == (0, True)
    code, shown = on_terminal("get", "s3://photos/cat.jpg")
    assert code == 1
    assert b"give -o FILE" in shown
    assert b"\xff\xd8" not in shown
    code, shown = on_terminal("get", "s3://photos/cat.jpg", "-o", "-")
    assert (code, b"\xff\xd8" in shown) == (0, True)
    code, _ = on_terminal("get", "s3://photos/cat.jpg", "-o", str(tmp_path / "cat.jpg"))  # with a progress bar
    assert code == 0
    assert (tmp_path / "cat.jpg").read_bytes() == b"\xff\xd8\x00"


# --- wrong use --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["get", "http://a/b"], "'http://a/b' is not s3://BUCKET/KEY"),
        (["get", "s3://bucket"], "'s3://bucket' is not s3://BUCKET/KEY"),
        (["get", "s3://b/k", "--args", "1"], "--args needs --etl"),
        (["get", "s3://b/k", "--etl", "a", "--args", "{"], "--args: not JSON"),
        (["get", "s3://b/k", "--endpoint", "localhost:9000"], "an endpoint is a URL"),
        (["etl", "init", "--plugin", "image", "--args", "[1]"], "--args: give a JSON object"),
        (["etl", "init"], "give exactly one of --file, --plugin, --code, --command, --image, --url"),
        (["etl", "init", "--plugin", "a", "--image", "b"], "give exactly one of --file"),
        (["etl", "init", "-f", "a", "--image", "b"], "give exactly one of --file"),
        (["etl", "init", "-f", "a", "--network"], "write it in the spec, not beside it: network"),
        (["etl", "init", "--image", "a", "--class", "A"], "--deps and --class go with --code"),
        (["etl", "init", "--plugin", "a", "--env", "A=b"], "an installed transformer has no worker to set up: env"),
        (["etl", "init", "--plugin", "a", "--timeout", "soon"], "--obj-timeout: 'soon' is no duration"),
        (["etl", "init", "--command", "'"], "--command: No closing quotation"),
        (["etl", "init", "--command", " "], "--command: name a program"),
        (["etl", "init", "--url", "http://a"], "give the ETL a --name"),
        (["etl", "stop"], "name ETLs, or give --all"),
        (["etl", "stop", "a", "--all"], "name ETLs, or give --all"),
        (["view", "create", "v", "--of", "b", "--etl", "e", "--ext", "jpg"], "--ext: 'jpg' is not OLD=NEW"),
        (
            ["view", "create", "v", "--of", "b", "--etl", "e", "--ext", "a=b", "--ext", "a=c"],
            "--ext: 'a' is given twice",
        ),
        (["serve", "--folder", "photos"], "--folder: 'photos' is not NAME=PATH"),
        (["serve", "--folder", "photos=/no/such"], "--folder: /no/such is no folder"),
        (["serve", "--gateways", "2"], "--gateways needs --targets"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(server: StandIn, args: list[str], reason: str) -> None:
    assert one_line(run(*args, code=2)).startswith(reason)


@pytest.mark.parametrize("args", [["nonsense"], ["etl", "logs"], ["serve", "--port", "x"], ["get"]])
def test_usage_errors_have_exit_code_2(args: list[str]) -> None:
    run(*args, code=2)


def test_a_refusal_is_one_line_and_exit_code_1(server: StandIn) -> None:
    assert one_line(run("etl", "start", "nothing", code=1)) == "Missing: nothing named 'nothing'"
    assert one_line(run("etl", "show", "--endpoint", "http://127.0.0.1:1", code=1)).startswith("Unreachable: no answer")


def test_missing_keys_are_named(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSOM_SECRET_KEY")
    assert "TRANSOM_SECRET_KEY" in one_line(run("etl", "show", code=1))
    assert "TRANSOM_SECRET_KEY" in one_line(run("get", CAT, code=1))


# --- serve, bench, help -----------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path | None, Path | None, dict[str, object]]]:
    """What `serve` hands to the composition root, in place of a server that would run for ever."""
    calls: list[tuple[Path | None, Path | None, dict[str, object]]] = []
    module = ModuleType("transom.gateway.serve")

    def fake_run(directory: Path | None, config_file: Path | None, overrides: dict[str, object]) -> int:
        calls.append((directory, config_file, overrides))
        return 3

    module.run = fake_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transom.gateway.serve", module)
    return calls


def test_serve_passes_on_only_what_was_given(served: list[object]) -> None:
    run("serve", code=3)
    assert served == [(None, None, {})]


def test_serve_passes_on_everything_given(served: list[object], tmp_path: Path) -> None:
    config = tmp_path / "transom.toml"
    config.touch()
    args = ["serve", str(tmp_path / "data"), "--folder", f"photos={tmp_path}", "--host", "::1", "--port", "0"]
    args += ["--processes", "2", "--config", str(config), "--domain", "a.test", "--domain", "b.test"]
    args += ["--advertise", "box", "--server", "granian", "--targets", "4", "--gateways", "2", "--log-level", "debug"]
    run(*args, code=3)
    overrides = {
        "folders": {"photos": tmp_path},
        "host": "::1",
        "port": 0,
        "processes": 2,
        "domains": ["a.test", "b.test"],
        "advertise": "box",
        "server": "granian",
        "targets": 4,
        "gateways": 2,
        "log_level": "debug",
    }
    assert served == [(tmp_path / "data", config, overrides)]


def test_bench_gets_its_options_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    bench_app, seen = typer.Typer(), []
    module = ModuleType("transom.bench.command")

    @bench_app.command()
    def bench(size: str = "", op: str = "") -> None:
        seen.append((size, op))

    module.app = bench_app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transom.bench.command", module)
    run("bench", "--size", "1MiB", "--op=get")
    assert seen == [("1MiB", "get")]
    assert "--size" in run("bench", "--help").stdout


def test_version() -> None:
    assert run("--version").stdout == f"transom {__version__}\n"


def test_help_imports_no_client_library_and_nothing_of_the_server() -> None:
    script = (
        "import sys\nfrom transom.cli.main import main\nsys.argv = ['transom', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'boto3', 'botocore', 'starlette', 'pydantic'}),\n"
        "      [name for name in sys.modules if name.startswith(('transom.gateway', 'transom.target'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"
    for name in ("serve", "get", "etl", "view", "plugins", "bench"):
        assert f" {name} " in done.stdout
