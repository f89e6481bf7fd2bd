"""Command ETLs, a program for an object or one that is kept: real programs in the sandbox that this machine has."""

from __future__ import annotations

import json
import os
import textwrap
import time
import venv
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.wire import eventually
from transom.plugins.contract import Context, Reject, Skip
from transom.target.errors import (
    EtlArgsInvalid,
    EtlCrashed,
    EtlFailed,
    EtlLimitReached,
    EtlOutOfMemory,
    EtlOutputTooLarge,
    EtlTimeout,
    EtlUnavailable,
    TargetError,
)
from transom.target.etl.plan import Stage
from transom.target.etl.runtimes.command import CommandRuntime
from transom.target.etl.runtimes.command_line import lacking, shown
from transom.target.etl.runtimes.command_log import CommandLog
from transom.target.etl.runtimes.environment import Environments
from transom.target.etl.runtimes.jobs import Job
from transom.target.etl.runtimes.workplace import Workplace
from transom.target.etl.sandbox.launch import Sandbox
from transom.target.etl.sandbox.look import Found
from transom.target.etl.spec import Spec, normalised
from transom.target.etl.watch import AbandonedError, Watch
from transom.target.store.base import ObjectInfo, ObjectReader

MIB = 1024 * 1024


class Stored(ObjectReader):
    """An object in a file of its own."""

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self.info = ObjectInfo("b", key, path.stat().st_size if path else 0, "e", 0)

    @property
    def path(self) -> Path | None:
        return self._path

    def read_at(self, offset: int, length: int) -> bytes:
        raise AssertionError("it is read as a file")

    def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        raise NotImplementedError

    def close(self) -> None:
        return


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "data"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="module")
def workplace(data: Path) -> Iterator[Workplace]:
    sandbox = Sandbox(data / "scratch", hidden=[data])
    with closing(sandbox):
        if sandbox.found.way is None:
            pytest.skip(f"this machine has {sandbox.found}")
        yield Workplace(
            sandbox, Environments(data / "environments", sandbox), data, CommandLog(data / "logs"), max_output=64 * MIB
        )


@pytest.fixture
def runtime(workplace: Workplace) -> Iterator[CommandRuntime]:
    made = CommandRuntime(workplace)
    yield made
    made.forget()


def job(*command: str, key: str = "k.txt", args: Any = None, reader: ObjectReader | None = None, **spec: Any) -> Job:
    """A job of an ETL with this command; `env` goes to its runtime, all else to the spec itself."""
    runtime = {"command": list(command), "env": spec.pop("env", {})}
    made = normalised(Spec.model_validate({"name": "e", "runtime": runtime, **spec}))
    stage = Stage("e", "", "", 1, json.dumps(args), "", 0, runtime="command", spec=made.to_json())
    return Job(stage, made, Context("b", key, "e", content_type="text/plain", size=None), reader)


def sh(script: str, **spec: Any) -> Job:
    return job("/bin/sh", "-c", script, **spec)


def run(runtime: CommandRuntime, wanted: Job, *chunks: bytes, timeout_s: float = 30) -> bytes:
    return b"".join(runtime.run(wanted, iter(chunks), Watch("e", timeout_s)))


# --- a program for each object: bytes in, bytes out ---------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (1,), (MIB, 1), (MIB,) * 9])
def test_standard_input_becomes_standard_output(runtime: CommandRuntime, sizes: tuple[int, ...]) -> None:
    chunks = [os.urandom(size) for size in sizes]
    assert run(runtime, job("cat"), *chunks) == b"".join(chunks)


def test_the_program_is_told_of_the_object(runtime: CommandRuntime) -> None:
    script = 'echo "$TRANSOM_ETL|$TRANSOM_BUCKET|$TRANSOM_KEY|$TRANSOM_ARGS|$TRANSOM_CONTENT_TYPE|$MINE"'
    wanted = sh(script, key="a dir/ü'\n.txt", args={"a": 1}, env={"MINE": "x", "TRANSOM_ETL": "forged"})
    assert run(runtime, wanted).decode() == 'e|b|a dir/ü\'\n.txt|{"a": 1}|text/plain|x\n'


def test_arguments_fill_their_words_and_nothing_else(runtime: CommandRuntime) -> None:
    args = {"w": "a b; $(id)", "n": 3, "on": True, "list": [1]}
    wanted = job("printf", "<%s>", "--w={args.w}", "{args.n}x{args.on}", "{args.list}", "{print $1}", "{}", args=args)
    assert run(runtime, wanted) == b"<--w=a b; $(id)><3xtrue><[1]><{print $1}><{}>"


@pytest.mark.parametrize(("args", "fault"), [(None, "needs the argument 'w'"), ({"w": "a\0b"}, "NUL"), ("x", "needs")])
def test_arguments_that_do_not_fit_are_the_askers_fault(runtime: CommandRuntime, args: Any, fault: str) -> None:
    with pytest.raises(EtlArgsInvalid, match=fault):
        run(runtime, job("echo", "{args.w}", args=args))


def test_no_argument_becomes_a_word_for_the_sandbox(runtime: CommandRuntime, tmp_path: Path) -> None:
    with pytest.raises(EtlArgsInvalid, match="NUL"):
        run(runtime, sh("true", args=f"x\0--bind\0{tmp_path}\0/tmp/mine"))


def test_a_program_that_is_not_there_is_said_to_be_missing(runtime: CommandRuntime) -> None:
    for name in ("nosuchprogram", "/nowhere/x"):
        with pytest.raises(EtlFailed, match=f"ETL 'e' failed: there is no program '{name}' on this target"):
            run(runtime, job(name))


def test_what_is_lacking_is_told_beforehand_as_a_run_finds_it(runtime: CommandRuntime, tmp_path: Path) -> None:
    script = tmp_path / "tools" / "mine"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    for words, env, found in (
        (("cat",), {}, True),
        (("/bin/cat",), {}, True),
        ((str(script),), {}, True),
        (("mine",), {}, False),
        (("mine",), {"PATH": str(script.parent)}, True),
        (("cat",), {"PATH": str(script.parent)}, False),
        ((str(script.parent / "other"),), {}, False),
        ((f"/{'x' * 300}",), {}, False),
    ):
        assert lacking(words, env) == ("" if found else f"there is no program '{words[0]}' on this target")
        if not found:
            with pytest.raises(EtlFailed, match=f"failed: {lacking(words, env)}"):
                run(runtime, job(*words, env=env))
    assert run(runtime, job(str(script))) == b"ran\n"


def test_a_script_named_by_its_path_is_shown_but_nothing_of_the_data_folder(
    runtime: CommandRuntime, tmp_path: Path, data: Path
) -> None:
    for folder in (tmp_path, data):
        (folder / "script.sh").write_text(f"echo ran; cat {tmp_path}/other")
        (folder / "script.sh").chmod(0o755)
    (tmp_path / "other").write_text("not named")
    with pytest.raises(EtlFailed, match=r"exit code 1: cat: .*/other: (No such file|Permission denied)"):
        run(runtime, job("/bin/sh", str(tmp_path / "script.sh")))
    with pytest.raises(EtlFailed, match="its program ended with exit code"):
        run(runtime, job("/bin/sh", str(data / "script.sh")))


def test_a_program_in_a_python_environment_has_all_of_it(runtime: CommandRuntime, tmp_path: Path, data: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    (package,) = environment.glob("lib/python*/site-packages")
    (package / "greeting.py").write_text("print('hello from', __file__)")
    (tmp_path / "beside.py").write_text("")
    words = [str(environment / "bin" / "python"), "-c", "import greeting"]
    assert run(runtime, job(*words)).decode() == f"hello from {package / 'greeting.py'}\n"
    assert environment in shown(words, data)
    assert not {environment, tmp_path} & set(shown(words, environment / "data"))  # which would be seen with it
    assert shown(["/bin/sh", str(tmp_path / "beside.py")], data) == (tmp_path / "beside.py",)


# --- its end ----------------------------------------------------------------------------------------


def test_an_exit_code_is_a_failure_with_the_last_words(runtime: CommandRuntime) -> None:
    with pytest.raises(
        EtlFailed, match=r"^ETL 'e' failed: its program ended with exit code 3: first / boom$"
    ) as caught:
        run(runtime, sh("echo first >&2; echo boom >&2; exit 3"))
    assert caught.value.etl == "e"
    with pytest.raises(EtlFailed, match=r"exit code 1$"):
        run(runtime, job("false"))


def test_what_a_program_says_is_in_its_etls_log(runtime: CommandRuntime, data: Path) -> None:
    log = data / "logs" / "e.log"
    log.unlink(missing_ok=True)
    run(runtime, sh("cat; echo odd colours >&2", key="a\nb"), b"x")
    with pytest.raises(EtlFailed):
        run(runtime, sh("echo no such codec >&2; exit 3"))
    run(runtime, sh("true"))
    assert log.read_text() == "b/a?b:\nodd colours\nb/k.txt:\nno such codec\n"


def test_a_log_of_several_processes_is_bounded(tmp_path: Path) -> None:
    logs = [CommandLog(tmp_path, max_bytes=1000) for _ in range(3)]
    for number in range(60):
        logs[number % 3].write_about("e", "b", f"k{number}", "x" * 40)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("e.log*"))]
    assert len(sizes) == 2 and max(sizes) <= 1000
    assert "b/k59:\n" in (tmp_path / "e.log").read_text()


def test_output_before_a_failure_is_no_result(runtime: CommandRuntime) -> None:
    pieces = runtime.run(sh("echo half; exit 1"), iter(()), Watch("e", 30))
    assert next(pieces) == b"half\n"
    with pytest.raises(EtlFailed):
        next(pieces)


def test_two_exit_codes_are_a_verdict_on_the_object(runtime: CommandRuntime) -> None:
    with pytest.raises(Reject, match=r"^no such picture$"):
        run(runtime, sh("echo no such picture >&2; exit 65"))
    with pytest.raises(Skip, match=r"^not mine$"):
        run(runtime, sh("echo not mine >&2; exit 100"))


def test_an_empty_result_is_a_result(runtime: CommandRuntime) -> None:
    assert run(runtime, job("true"), b"x" * MIB) == b""


@pytest.mark.parametrize(
    ("script", "spec", "kind", "said"),
    [
        ("exec python3 -c 'import ctypes; ctypes.string_at(0)'", {}, EtlCrashed, r"signal 11 \(Segmentation fault\)$"),
        (
            "exec python3 -c 'data = bytes([1]) * (1 << 30)'",
            {"memory": "64Mi"},
            EtlOutOfMemory,
            "its memory limit of 64 MiB",
        ),
        (
            "for i in $(seq 10000); do sleep 30 & done; wait",
            {"pids": 12},
            EtlLimitReached,
            "its process limit of 12",
        ),
    ],
)
def test_a_crash_says_which_limit_was_reached(
    runtime: CommandRuntime, script: str, spec: dict[str, object], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=f"ETL 'e' crashed: its program ended with .*{said}"):
        run(runtime, sh(script, resources=spec))


def test_words_alone_open_no_circuit(runtime: CommandRuntime) -> None:
    """They may be an object's name, or what is in it: whoever puts that must not close the ETL to others."""
    with pytest.raises(TargetError) as caught:
        run(runtime, sh("echo no such file: ENOMEM.jpg >&2; exit 1"))
    assert not caught.value.breaks
    with pytest.raises(EtlCrashed) as killed:
        run(runtime, sh("kill -9 $$"))
    assert killed.value.breaks


def test_a_missing_network_is_explained(runtime: CommandRuntime) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    with pytest.raises(EtlFailed, match=r"Network is unreachable.*'network: true' in its spec"):
        run(runtime, job("python3", "-c", code))


def test_too_much_output_is_cut_off(runtime: CommandRuntime) -> None:
    with pytest.raises(EtlOutputTooLarge, match="ETL 'e' made more than 1048576 bytes"):
        run(runtime, job("yes", max_output="1Mi"))


def test_a_deadline_ends_all_of_it(runtime: CommandRuntime) -> None:
    began = time.monotonic()
    with pytest.raises(EtlTimeout):
        run(runtime, sh("sleep 54321 & sleep 54321"), timeout_s=0.4)
    assert time.monotonic() - began < 10
    assert not running("54321")


def test_an_abandoned_run_ends_its_program(runtime: CommandRuntime) -> None:
    watch = Watch("e", 30)
    pieces = runtime.run(sh("echo; sleep 43210"), iter(()), watch)
    assert next(pieces) == b"\n"
    watch.abandon()
    with pytest.raises(AbandonedError):
        next(pieces)
    assert not running("43210")


def test_closing_early_ends_the_program(runtime: CommandRuntime) -> None:
    pieces = runtime.run(sh("echo; sleep 32109"), iter(()), Watch("e", 30))
    next(pieces)
    pieces.close()
    assert not running("32109")


def test_what_the_input_raises_passes_through(runtime: CommandRuntime) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("upstream")

    with pytest.raises(KeyError, match="upstream"):
        b"".join(runtime.run(job("cat"), chunks(), Watch("e", 30)))


def test_without_a_sandbox_it_does_not_run(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, found=Found(missing=("nothing here",)))
    runtime = CommandRuntime(Workplace(sandbox, Environments(tmp_path, sandbox), tmp_path, CommandLog(tmp_path)))
    with (
        closing(runtime),
        pytest.raises(EtlUnavailable, match=r"ETL 'e' is unavailable: .*nothing here.*allow_unsandboxed"),
    ):
        run(runtime, job("cat"))


# --- files ------------------------------------------------------------------------------------------


def test_file_to_file(runtime: CommandRuntime, data: Path) -> None:
    script = 'case $0 in *.txt) ;; *) exit 9;; esac; case $1 in *.up) ;; *) exit 8;; esac; tr a-z A-Z <"$0" >"$1"'
    wanted = job("/bin/sh", "-c", script, "{input}", "{output}", extension="up")
    assert run(runtime, wanted, b"some ", b"text") == b"SOME TEXT"
    assert run(runtime, wanted) == b""
    assert not list((data / "scratch").iterdir())


def _blob(data: Path, content: bytes) -> Path:
    """A file as a store keeps it: for its own reading only."""
    path = data / f"blob-{len(list(data.iterdir()))}"
    path.write_bytes(content)
    path.chmod(0o400)
    return path


def test_a_stored_object_is_read_in_place_and_can_not_be_changed(runtime: CommandRuntime, data: Path) -> None:
    stored = _blob(data, b"stored bytes")
    wanted = job("cat", "{input}", reader=Stored(stored, "k.txt"))
    assert run(runtime, wanted, b"not these") == b"stored bytes"
    harm = 'cat "$TRANSOM_INPUT"; chmod 777 "$0"; echo changed >"$0"; rm -f "$0"; true'
    said = run(runtime, job("/bin/sh", "-c", harm, "{input}", reader=Stored(stored, "k.txt")))
    assert said == b"stored bytes"
    assert stored.read_bytes() == b"stored bytes"
    assert not list((data / "run" / "commands").iterdir())


def test_direct_file_gives_the_path_in_the_environment(runtime: CommandRuntime, data: Path) -> None:
    stored = _blob(data, b"stored bytes")
    wanted = sh('cat "$TRANSOM_INPUT" -', direct_file=True, reader=Stored(stored, "k"))
    assert run(runtime, wanted) == b"stored bytes"
    assert run(runtime, replace(wanted, reader=Stored(None, "k")), b"as chunks") == b"as chunks"


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("true", EtlFailed, "made no output file"),
        ('mkdir "$0"', EtlFailed, "its output is no plain file"),
        ('mkfifo "$0"', EtlFailed, "its output is no plain file"),
        ('ln -s /etc/passwd "$0"', EtlFailed, "its output is no plain file"),
        ('head -c 2000000 /dev/zero >"$0"', EtlOutputTooLarge, "made more than 1048576 bytes"),
    ],
)
def test_an_output_file_is_looked_at(runtime: CommandRuntime, script: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(runtime, job("/bin/sh", "-c", script, "{output}", max_output="1Mi"))


# --- a program that is kept ---------------------------------------------------------------------------

WORKER = """
import os, time

def transform(data, context):
    if data == b"die":
        os.abort()
    if data == b"exit":
        os._exit(7)
    if data == b"sleep":
        time.sleep(60)
    if data == b"fail":
        raise ValueError("bad bytes")
    return b"%d %s" % (os.getppid(), data.upper())
"""


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Job]:
    """Make jobs for a worker of our own SDK, by its own path."""
    file = tmp_path / "worker.py"
    file.write_text(textwrap.dedent(WORKER))

    def make(**spec: Any) -> Job:
        return job("python3", "-m", "transom.worker", str(file), "--io", io="persistent", **spec)

    return make


def test_a_kept_program_takes_one_object_after_another(runtime: CommandRuntime, kept: Callable[..., Job]) -> None:
    assert run(runtime, kept(), b"one").endswith(b" ONE")
    began = time.monotonic()
    for _ in range(20):
        assert run(runtime, kept(), b"two").endswith(b" TWO")
    assert time.monotonic() - began < 2, "none of them was started anew"
    big = os.urandom(3 * MIB)
    assert run(runtime, kept(), big[:MIB], big[MIB:]).partition(b" ")[2] == big.upper()


def test_a_kept_program_that_fails_goes_on(runtime: CommandRuntime, kept: Callable[..., Job]) -> None:
    with pytest.raises(EtlFailed, match=r"ETL 'e' failed: .*bad bytes"):
        run(runtime, kept(), b"fail")
    assert run(runtime, kept(), b"fine").endswith(b" FINE")


@pytest.mark.parametrize(("given", "said"), [(b"die", r"signal (6|11)"), (b"exit", "exit code 7")])
def test_a_kept_program_that_dies_is_replaced(
    runtime: CommandRuntime, kept: Callable[..., Job], given: bytes, said: str
) -> None:
    with pytest.raises(EtlCrashed, match=f"ETL 'e' crashed: its program ended with {said}"):
        run(runtime, kept(), given)
    assert run(runtime, kept(), b"fine").endswith(b" FINE")


def test_a_kept_program_that_is_late_is_ended(runtime: CommandRuntime, kept: Callable[..., Job]) -> None:
    assert run(runtime, kept(), b"warm")
    with pytest.raises(EtlTimeout):
        run(runtime, kept(), b"sleep", timeout_s=0.4)
    assert run(runtime, kept(), b"fine").endswith(b" FINE")


def test_a_kept_program_reads_stored_objects_in_place(
    runtime: CommandRuntime, kept: Callable[..., Job], data: Path
) -> None:
    stored = _blob(data, b"stored")
    wanted = kept(direct_file=True, reader=Stored(stored, "k"))
    for _ in range(2):
        assert run(runtime, wanted, b"not these").endswith(b" STORED")
    assert run(runtime, replace(wanted, reader=Stored(None, "k")), b"these").endswith(b" THESE")


def test_a_kept_program_that_talks_no_frames_is_not_kept(runtime: CommandRuntime) -> None:
    with pytest.raises(EtlCrashed, match=r"ETL 'e' crashed: .*no frame"):
        run(runtime, sh("echo hello there; cat", io="persistent"))
    with pytest.raises(EtlCrashed, match="ended with exit code 3: sorry"):
        run(runtime, sh("echo sorry >&2; exit 3", io="persistent"))
    with pytest.raises(EtlCrashed, match=r"did not say hello in 0.3 s"):
        run(runtime, job("sleep", "21098", io="persistent", init_timeout="0.3s"))
    assert not running("21098")


def test_a_kept_program_that_nobody_uses_ends(workplace: Workplace, kept: Callable[..., Job]) -> None:
    runtime = CommandRuntime(workplace, unused_s=0.1)
    try:
        pieces = runtime.run(kept(env={"KEPT_MARK": "10987"}), iter([b"x"]), Watch("e", 30))
        assert next(pieces).endswith(b" X")
        assert marked("KEPT_MARK=10987")
        assert not list(pieces)
        eventually(lambda: not marked("KEPT_MARK=10987"), within_s=10)
    finally:
        runtime.forget()


def running(word: str) -> list[str]:
    return _processes("cmdline", word)


def marked(variable: str) -> list[str]:
    return _processes("environ", variable)


def _processes(file: str, word: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and folder.name != str(os.getpid()):
            try:
                if word.encode() in (folder / file).read_bytes().split(b"\0"):
                    found.append(folder.name)
            except OSError:
                continue
    return found
