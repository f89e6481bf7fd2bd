"""Environments for uploaded code, made by the real pip from wheels made here; and the code that runs in them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from transom.target.errors import EtlUnavailable
from transom.target.etl.runtimes.base import Ended, Order, StartError
from transom.target.etl.runtimes.command_log import CommandLog
from transom.target.etl.runtimes.contained import Contained
from transom.target.etl.runtimes.containers import Containers
from transom.target.etl.runtimes.environment import READY, Environment, Environments, Place, code_launch
from transom.target.etl.runtimes.isolation import Isolating
from transom.target.etl.runtimes.pip_install import Pip
from transom.target.etl.runtimes.programs import Programs
from transom.target.etl.runtimes.workplace import Workplace
from transom.target.etl.sandbox.ending import hint
from transom.target.etl.sandbox.launch import Sandbox
from transom.target.etl.sandbox.program import MIB, Limits, Program
from transom.target.etl.spec import Spec, normalised

UNREADABLE = re.compile(r"(FileNotFound|Permission)Error")
SMALL = Limits(memory=256 * MIB, pids=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "data"
    folder.mkdir(mode=0o700)
    (folder / "catalog.sqlite").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def sandbox(data: Path) -> Iterator[Sandbox]:
    with closing(Sandbox(data / "scratch", hidden=[data])) as made:
        if made.found.way is None or (made.found.way.shares_files and os.getuid() == 0):
            pytest.skip(f"this machine has {made.found}")
        yield made


@pytest.fixture(scope="module")
def workplace(sandbox: Sandbox, data: Path) -> Workplace:
    return Workplace(sandbox, Environments(data / "environments", sandbox), data, CommandLog(data / "logs"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A requirement for a package of ours, by the wheel's own file."""
    return _wheel(tmp_path_factory.mktemp("wheels"), "shout", "def up(data): return data.upper() + b'!'\n")


def _wheel(folder: Path, name: str, code: str) -> str:
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:up\n",
    }
    record = [f"{path},{_digest(text)},{len(text)}" for path, text in files.items()]
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))
    return f"{name} @ {path.as_uri()}"


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


# --- environments -----------------------------------------------------------------------------------


def test_nothing_to_install_needs_no_environment(workplace: Workplace) -> None:
    assert workplace.environments.get(()) == Environment(Path(sys.executable))


def test_an_environment_is_made_once_and_is_its_makers(workplace: Workplace, data: Path, wheel: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(workplace.environments.get, [[wheel], [wheel]])
    assert one == other == workplace.environments.get([wheel])
    folder = one.read[0]
    assert folder.parent == data / "environments" and re.fullmatch("[0-9a-f]{64}", folder.name)
    code = "import sys, shout; print(shout.up(b'x').decode(), *sys.version_info[:2])"
    said = subprocess.run([one.python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["X!", *map(str, sys.version_info[:2])]
    owners = {path.lstat().st_uid for path in [folder, *folder.rglob("*")]}
    assert owners == {os.getuid()}
    assert str(folder) in (folder / "bin" / "shout").read_text()
    assert not (folder / "tmp").exists()


def test_other_requirements_are_another_environment(workplace: Workplace, tmp_path: Path, wheel: str) -> None:
    other = _wheel(tmp_path, "whisper", "def low(data): return data.lower()\n")
    made = workplace.environments.get([other])
    assert made != workplace.environments.get([wheel])


def test_a_private_umask_does_not_keep_code_from_its_environment(
    sandbox: Sandbox, tmp_path: Path, wheel: str, data: Path
) -> None:
    before = os.umask(0o077)
    try:
        environments = Environments(data / "private", sandbox)
        made, sdk = environments.get([wheel]), environments.sdk()
    finally:
        os.umask(before)
    code = (str(made.python), "-c", "import shout, transom.worker")
    confined = sandbox.start(Program(code, {"PYTHONPATH": str(sdk)}, read=(*made.read, sdk)))
    with closing(confined):
        assert confined.wait(20).good


def test_what_was_left_half_made_is_made_anew(workplace: Workplace, wheel: str) -> None:
    folder = workplace.environments.get([wheel]).read[0]
    (folder / READY).unlink()
    (folder / "left").touch()
    workplace.environments.get([wheel])
    assert (folder / READY).exists() and not (folder / "left").exists()


def test_a_failure_says_pips_last_words_and_leaves_nothing_ready(
    workplace: Workplace, data: Path, tmp_path: Path
) -> None:
    missing = f"gone @ {(tmp_path / 'gone-1.0-py3-none-any.whl').as_uri()}"
    with pytest.raises(
        EtlUnavailable, match=r"could not be installed: pip ended with exit code 1: .*gone-1.0"
    ) as caught:
        workplace.environments.get([missing])
    assert len(caught.value.message) < 1500


def test_a_package_that_is_built_is_in_the_sandbox_too(workplace: Workplace, data: Path, tmp_path: Path) -> None:
    project = tmp_path / "spy"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "spy"\nbackend-path = ["."]\n'
    )
    steal = f"raise SystemExit(open({str(data / 'catalog.sqlite')!r}).read())\n"
    (project / "spy.py").write_text(f"def build_wheel(*_): {steal}\ndef get_requires_for_build_wheel(*_): {steal}")
    source = tmp_path / "spy-1.0.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for file in project.iterdir():
            archive.write(file, f"spy-1.0/{file.name}")
    with pytest.raises(EtlUnavailable) as caught:
        workplace.environments.get([f"spy @ {source.as_uri()}"])
    assert "secret" not in caught.value.message and UNREADABLE.search(caught.value.message)


def test_an_installation_has_bounds(sandbox: Sandbox, tmp_path: Path, wheel: str) -> None:
    slow = Environments(tmp_path / "slow", sandbox, Pip(sandbox, timeout_s=0.0, look_s=0.01))
    with pytest.raises(EtlUnavailable, match="could not be installed within 0 s"):
        slow.get([wheel])
    small = Environments(tmp_path / "small", sandbox, Pip(sandbox, max_bytes=10, look_s=0.01))
    with pytest.raises(EtlUnavailable, match="take more than 10 bytes of the disk"):
        small.get([wheel])


def test_the_sdk_is_all_of_transom_that_is_shown(workplace: Workplace) -> None:
    sdk = workplace.environments.sdk()
    assert sdk == workplace.environments.sdk()
    assert {path.name for path in (sdk / "transom").iterdir()} - {"__pycache__"} == {"__init__.py", "worker"}


# --- code -------------------------------------------------------------------------------------------

NAUGHTY = """
import os, socket, time
import shout

def transform(data, context):
    what, _, where = data.decode().partition(" ")
    if what == "read":
        return open(where, "rb").read()
    if what == "connect":
        socket.create_connection(("127.0.0.1", int(where)), 5)
    if what == "fork":
        for _ in range(10000):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
    if what == "allocate":
        data = bytearray(4 << 30)
        for i in range(0, len(data), 4096):
            data[i] = 1
    return shout.up(data)
"""


def sandboxed(workplace: Workplace) -> Programs:
    contained = Contained(Containers())
    return Programs(workplace, Isolating("sandbox", contained, str), contained)


class Started:
    """A code ETL's worker, as a keeper starts it."""

    def __init__(self, workplace: Workplace, folder: Path, code: str, **spec: Any) -> None:
        runtime = {"code": code, **spec.pop("runtime", {})}
        made = normalised(Spec.model_validate({"name": "e", "runtime": runtime, **spec}))
        folder.mkdir()
        self.said, log_fd = os.pipe()
        self.socket = folder / "worker.sock"
        env = {"TRANSOM_SOCKET": str(self.socket), "TRANSOM_ETL": "e"}
        order = Order("e", 1, json.loads(made.to_json()), folder, None, env, 8000, log_fd, "m")
        try:
            self.worker = sandboxed(workplace).start(order)
        finally:
            os.close(log_fd)

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """PUT an object, as soon as the worker listens and is ready."""
        give_up = time.monotonic() + 20
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                status, said = self._put(data)
                if status != 503:
                    return status, said
            assert self.worker.ended() is None, self.words()
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def _put(self, data: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        with closing(connection), socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.socket))
            connection.sock = line
            connection.request("PUT", "/b/k", body=data)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def words(self) -> str:
        return os.read(self.said, 65536).decode()

    def ended(self) -> Ended:
        give_up = time.monotonic() + 20
        while (how := self.worker.ended()) is None:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        return how

    def close(self) -> None:
        self.worker.stop(2)
        os.close(self.said)


@pytest.fixture
def start(workplace: Workplace, wheel: str) -> Iterator[Callable[..., Started]]:
    """Start code; what is started is stopped."""
    started: list[Started] = []
    folder = Path(tempfile.mkdtemp(prefix="transom-", dir="/tmp"))  # a socket's path is short
    folder.chmod(0o711)

    def start(code: str = NAUGHTY, requirements: Sequence[str] = (wheel,), **spec: Any) -> Started:
        runtime = {"requirements": list(requirements), **spec.pop("runtime", {})}
        started.append(Started(workplace, folder / str(len(started)), code, runtime=runtime, **spec))
        return started[-1]

    yield start
    for each in started:
        each.close()
    shutil.rmtree(folder)


def test_code_runs_with_what_it_requires(start: Callable[..., Started]) -> None:
    assert start().ask(b"hello") == (200, b"HELLO!")


def test_code_without_requirements_runs_with_transoms_own_python(start: Callable[..., Started]) -> None:
    code = """
        class One:
            def transform(self, data, context):
                import pydantic
                return data + b"1"

        class Two(One):
            def transform(self, data, context):
                return data + b"2"

        class Three(One):
            pass
    """
    assert start(textwrap.dedent(code), (), runtime={"entry": "Two"}).ask(b"x") == (200, b"x2")
    assert start(textwrap.dedent(code), (), runtime={"entry": "Three"}).ask(b"x") == (200, b"x1")


def test_code_that_can_not_be_loaded_ends_with_the_reason(start: Callable[..., Started]) -> None:
    broken = start("import nosuchmodule", ())
    assert str(broken.ended()) == "exit code 1"
    assert "No module named 'nosuchmodule'" in broken.words()


def test_code_can_not_read_the_data_folder(start: Callable[..., Started], data: Path) -> None:
    status, said = start().ask(b"read " + bytes(data / "catalog.sqlite"))
    assert status == 500 and UNREADABLE.search(said.decode()) and b"secret" not in said
    status, said = start().ask(b"read /etc/shadow")
    assert status == 500, said
    assert "its sandbox shows it the object" in hint(said.decode(), SMALL, network=False)


def test_code_can_not_open_a_connection_unless_its_spec_says_so(start: Callable[..., Started]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = f"connect {server.getsockname()[1]}".encode()
        status, said = start().ask(asked)
        assert status == 500, "there is a loopback of its own at most"
        assert b"ConnectionRefusedError" in said or b"Network is unreachable" in said
        assert start(network=True).ask(asked) == (200, asked.upper() + b"!")


def test_code_can_not_fork_ten_thousand_times(start: Callable[..., Started]) -> None:
    naughty, other = start(resources={"pids": 32}), start()
    status, said = naughty.ask(b"fork")
    assert status == 500 and b"Resource temporarily unavailable" in said
    assert hint(said.decode(), SMALL, network=False) == " (having reached its process limit of 32)"
    assert other.ask(b"fine") == (200, b"FINE!")


def test_code_can_not_use_four_gibibytes(start: Callable[..., Started], sandbox: Sandbox) -> None:
    naughty, other = start(resources={"memory": "256Mi"}), start()
    if sandbox.found.home:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            naughty.ask(b"allocate")
        assert naughty.ended().words.endswith("having reached its memory limit of 256 MiB")
        assert naughty.ended().bound == "memory"
    else:
        status, said = naughty.ask(b"allocate")
        assert status == 500
        assert hint(said.decode(), SMALL, network=False) == " (having reached its memory limit of 256 MiB)"
    assert other.ask(b"fine") == (200, b"FINE!")


def test_requirements_that_can_not_be_had_are_final(start: Callable[..., Started], tmp_path: Path) -> None:
    with pytest.raises(StartError, match="could not be installed") as caught:
        start(requirements=[f"gone @ {(tmp_path / 'gone-1.0-py3-none-any.whl').as_uri()}"])
    assert caught.value.final


def test_a_link_that_a_worker_left_in_the_place_of_its_code_is_not_followed(tmp_path: Path) -> None:
    spec = normalised(Spec.model_validate({"name": "e", "runtime": {"code": "x = 1", "entry": "x"}}))
    (tmp_path / "own").write_text("the server's")
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "transformer.py").symlink_to(tmp_path / "own")
    code_launch(spec, Environment(Path("/env/bin/python")), Path("/sdk"), Place(folder), {}, SMALL)
    assert (tmp_path / "own").read_text() == "the server's"
    assert (folder / "transformer.py").read_text() == "x = 1"


def test_the_launch_shows_code_its_own_and_nothing_more(workplace: Workplace, tmp_path: Path) -> None:
    spec = normalised(Spec.model_validate({"name": "e", "runtime": {"code": "x = 1", "entry": "x"}}))
    environment, sdk = Environment(Path("/env/bin/python"), (Path("/env"),)), Path("/sdk")
    program = code_launch(spec, environment, sdk, Place(tmp_path, Path("/files")), {"PYTHONPATH": "/own"}, SMALL)
    assert program.argv == (
        "/env/bin/python",
        "-P",
        "-m",
        "transom.worker",
        f"{tmp_path}/transformer.py",
        "--class",
        "x",
    )
    assert (program.read, program.write) == ((Path("/env"), sdk, Path("/files")), (tmp_path,))
    assert program.env["PYTHONPATH"] == "/sdk:/own" and program.limits is SMALL and not program.network
